"""Statistics of a study: cells, comparisons of methods, rank tests and clinical metrics, each with what it can say."""
