"""Results in, tables and figures out."""
