"""F-measures of predicted boundaries: the protocols of the multi-task literature on one exact matcher.

The field's figures come from SEISM (Pont-Tuset and Marques, PAMI 2016) in two forms that are not comparable. Both are
here, and a result says which one it followed. The matching follows the BSDS benchmark (Martin, Fowlkes and Malik,
PAMI 2004), but is exact: the original finds slightly fewer pairs, so figures here are 0.0003 to 0.0012 higher.

Legend: N images, K thresholds, H, W image (each image may have its own).
"""

from sak.metrics.boundary.evaluation import PROTOCOLS, Result, boundary_map, evaluate
from sak.metrics.boundary.metric import BoundaryF

__all__ = ["PROTOCOLS", "BoundaryF", "Result", "boundary_map", "evaluate"]
