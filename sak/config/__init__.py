"""The configuration of an experiment: its schema, how it is read, and the rules that its values keep."""

from sak.config.loading import ALIASES, differences, find, load, save

__all__ = ["ALIASES", "differences", "find", "load", "save"]
