"""What `tools/benchmark.py` measures: one file is one section."""
