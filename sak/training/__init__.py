"""One training loop for both stages, with exact resume and tracking."""
