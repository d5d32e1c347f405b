"""What each teacher, router, loss or seed is worth: a table of retrained and masked students."""
