"""What scenes are made of: the 20 classes of VOC, and clutter that belongs to none of them."""
