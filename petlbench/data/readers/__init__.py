"""Readers: from a layout of files to records of images and labels."""
