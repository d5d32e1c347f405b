"""What a student's routers do: their weights in numbers and pictures, and what each source is worth without them."""
