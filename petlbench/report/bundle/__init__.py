"""A study as one file to hand on: packed without what is private, opened with care, and computed again."""
