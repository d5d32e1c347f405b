"""What the paths of a student learn: losses, standardised features, features from the cache."""
