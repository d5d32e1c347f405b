"""How a scene is put together: the main object, its company, and the place around them."""
