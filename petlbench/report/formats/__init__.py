"""The forms that a report takes as text."""
