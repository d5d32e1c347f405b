"""What each frozen model is good at: the same small heads on all of them."""
