"""Searches: which settings suit a method on a dataset, found on validation and by the same number of trials for all."""
