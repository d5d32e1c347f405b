"""MATLAB files, as the archives hold them."""

from pathlib import Path

import numpy as np
import scipy.io

from sak.data.reading.faults import FaultyFile, naming

CONTEXT_CLASSES = 459  # of PASCAL-Context's LabelMap, from 1 on; 0 has none


def read_matlab(path: str | Path, variable: str) -> np.ndarray:
    """One variable of a MATLAB file, structures as NumPy records."""
    with naming(path):
        try:
            content = scipy.io.loadmat(str(path), variable_names=[variable])
        except NotImplementedError as error:  # scipy's, over the HDF5 of version 7.3
            raise FaultyFile(
                f"{path} is a MATLAB file of version 7.3, which is not read: store it again in MATLAB with the option "
                "-v7, or restore it from the archive."
            ) from error
    if variable not in content:
        raise FaultyFile(f"{path} holds no variable {variable}: it belongs to another data set, or is corrupt.")
    return content[variable]


def read_label_map(path: str | Path) -> np.ndarray:
    """int32 (H, W): PASCAL-Context's LabelMap, classes 0..459.

    Raises:
        FaultyFile: LabelMap is no array of whole numbers in that range and of two dimensions.
    """
    values = read_matlab(path, "LabelMap")
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or values.ndim != 2 or not values.size:
        form = f"{values.dtype} of shape {values.shape}"
        raise FaultyFile(
            f"{path}: LabelMap is {form}, where numbers (height, width) are expected: restore it from the archive.",
            kind="label map",
        )
    strays = values[~((values >= 0) & (values <= CONTEXT_CLASSES)) | (np.trunc(values) != values)]
    if strays.size:
        raise FaultyFile(
            f"{path}: LabelMap holds {strays[0]}, but PASCAL-Context has the classes 0..{CONTEXT_CLASSES}: restore it "
            "from the archive.",
            kind="label map",
        )
    return values.astype(np.int32)
