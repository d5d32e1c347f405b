"""A trained student at work: predictions for any picture, and the student in other hands."""
