"""What scenes are made of: each thing with its primitives, in its own frame."""
