"""Distil several frozen vision foundation models into one multi-task student that keeps their strengths apart."""

from sak.bundles.official import load_official
from sak.student import Student, StudentOutput

__all__ = ["Student", "StudentOutput", "load_official"]
