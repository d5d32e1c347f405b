"""Data of one's own: folders of images and labels, and what other tools leave on disk (docs/own_data.md)."""
