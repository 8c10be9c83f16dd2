"""Scores of one classifier, their intervals, and the two that weigh performance against cost."""
