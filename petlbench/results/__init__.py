"""What is kept of runs: the result and its files, the journal, and the ways to find and read them."""
