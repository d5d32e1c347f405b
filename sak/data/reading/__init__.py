"""The files of a data set, read: one reader for each kind, which all that use the files share.

Each says of a file what is wrong with it (a `FaultyFile`) instead of guessing what it may mean.
"""

from sak.data.reading.faults import CorruptFile, FaultyFile, naming
from sak.data.reading.id_lists import read_ids
from sak.data.reading.label_maps import (
    Coding,
    check_label,
    ignore_far,
    read_classes,
    read_coded_classes,
    read_depth,
    read_edges,
    read_levels,
    read_map,
    read_normals,
    read_saliency,
    read_scaled,
)
from sak.data.reading.matlab import read_label_map, read_matlab
from sak.data.reading.pixels import SUFFIXES, opened, read_image, shown_size, stored_size, to_rgb

__all__ = [
    "SUFFIXES",
    "Coding",
    "CorruptFile",
    "FaultyFile",
    "check_label",
    "ignore_far",
    "naming",
    "opened",
    "read_classes",
    "read_coded_classes",
    "read_depth",
    "read_edges",
    "read_ids",
    "read_image",
    "read_label_map",
    "read_levels",
    "read_map",
    "read_matlab",
    "read_normals",
    "read_saliency",
    "read_scaled",
    "shown_size",
    "stored_size",
    "to_rgb",
]
