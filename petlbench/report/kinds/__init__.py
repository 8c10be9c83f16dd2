"""Kinds of report, each one file."""
