"""The recipe of ``petlbench_micro``: drawn images, a teacher that looks at them, a student that learns from it.

Nobody needs it to use the backbone, whose weights travel with the package.
"""
