"""From a document to files: Markdown, CSV, LaTeX, figures, one HTML page."""
