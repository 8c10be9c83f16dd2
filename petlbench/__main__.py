"""``python -m petlbench``."""

from petlbench.cli import main

main()
