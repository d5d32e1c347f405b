"""What the labels of all tasks have in common."""

IGNORE = 255  # in a label of any task, a pixel that nothing is known of; predictions there do not count
