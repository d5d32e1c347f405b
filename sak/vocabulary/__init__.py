"""A vision vocabulary: a small language model reads and points through an encoder of ours (docs/vocabulary.md)."""
