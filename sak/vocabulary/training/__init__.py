"""The training of a vision vocabulary, and its evaluations on the way."""
