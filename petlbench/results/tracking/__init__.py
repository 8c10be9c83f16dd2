"""What MLflow is told of runs and studies.

The result on disk is the truth and MLflow a view of it, so tracking never stops a run and hardly slows it: what a store
that is away does not take is kept and sent later, and what it never took can be sent from the disk.
"""
