"""Ways to use a frozen backbone, compared: metrics against what each costs."""
