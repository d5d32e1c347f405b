"""Before a run: is the data sound, what will it cost, and the features of its teachers ahead of it."""
