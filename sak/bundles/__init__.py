"""Students on disk: built from a config, as bundles, from published checkpoints, with teachers that come and go."""
