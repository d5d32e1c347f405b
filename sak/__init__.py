"""Distil several frozen vision foundation models into one multi-task student that keeps their strengths apart."""

from .official import load_official
from .student import Student, StudentOutput

__all__ = ["Student", "StudentOutput", "load_official"]
