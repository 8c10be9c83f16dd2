"""Task types: what a label is, and what follows from it; one file each."""
