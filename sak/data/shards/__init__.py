"""Tars of images, on a disk or behind an address: indexed once, then each image is one read at a known place."""
