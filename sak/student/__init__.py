from sak.student.adapter import Adapter, AdapterPath
from sak.student.hub import BundleError
from sak.student.router import MixtureOfRepresentations
from sak.student.student import Student, StudentOutput

__all__ = ["Adapter", "AdapterPath", "BundleError", "MixtureOfRepresentations", "Student", "StudentOutput"]
