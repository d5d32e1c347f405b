"""How alike features are: frozen models among each other, and paths with their teachers."""
