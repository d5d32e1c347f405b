"""What one asks of trained students and frozen teachers; one folder a question."""
