"""Everything between files on disk and a table of labelled images: cards, readers, splits and manifests."""
