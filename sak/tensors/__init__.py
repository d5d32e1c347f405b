"""Files of tensors: what others have written is read strictly, and never as code."""

from sak.tensors.files import metadata_of, read_tensors, writing_safetensors

__all__ = ["metadata_of", "read_tensors", "writing_safetensors"]
