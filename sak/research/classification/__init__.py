"""What frozen features know of classes of whole images: nearest neighbours and a linear probe."""
