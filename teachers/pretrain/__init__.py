"""Training of the miniature committee: three small networks, each in the manner of its big sister."""
