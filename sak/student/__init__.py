from .adapter import Adapter, AdapterPath
from .router import MixtureOfRepresentations
from .student import Student, StudentOutput

__all__ = ["Adapter", "AdapterPath", "MixtureOfRepresentations", "Student", "StudentOutput"]
