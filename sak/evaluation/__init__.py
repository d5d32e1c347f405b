"""What a trained student is worth: metrics on a benchmark, baselines, masked sources, tables and pictures."""
