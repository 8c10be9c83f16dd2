"""Losses, each one row in one file."""
