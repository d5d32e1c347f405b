"""In mmsegmentation: a student as a backbone, and our archives as data sets.

``custom_imports = dict(imports=["sak.deploy.mmseg"])`` in a config of mmengine makes both known.
"""

from collections.abc import Sequence

import numpy as np
from mmengine.model import BaseModule
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS
from torch import Tensor

from sak import data
from sak.bundles.bundle import load_bundle
from sak.student.features_only import FeaturesOnly


@MODELS.register_module()
class SAKStudent(BaseModule):
    """``backbone=dict(type="SAKStudent", bundle="runs/sak_pascal_mini/student")``: the student's levels as NCHW maps.

    All of them have the patch's stride and the stem's width, for the decode head's ``in_channels``. The sizes of images
    must be multiples of the patch: ``size_divisor`` of the data_preprocessor pads them, in training and testing.

    Args:
        bundle: a bundle, or its id on the hub.
        source: ``stem``, a teacher (its path), or a task (its routers' mixture).
        out_indices: of the student's levels; None: all.
        frozen: the student's weights rest.
        normalised: whether the data_preprocessor has normalised the images with ImageNet's mean and std already. Else
            they must be RGB in [0, 1] (``mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True``), and the student does it.

    Raises:
        UserError: there is no such bundle.
        ValueError: it has no such source or level.
    """

    def __init__(
        self,
        bundle: str,
        source: str = "stem",
        out_indices: Sequence[int] | None = None,
        frozen: bool = True,
        normalised: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.features = FeaturesOnly(load_bundle(bundle), source, out_indices, frozen)
        self.normalised = normalised

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> per level (B, D, h, w)."""
        if self.normalised:  # the student does it once more
            images = images * self.features.student.std + self.features.student.mean
        return tuple(self.features(images))


@DATASETS.register_module()
class SAKSemSeg(BaseSegDataset):
    """``dataset=dict(type="SAKSemSeg", dataset="mini_context", data_root=..., split="train", pipeline=...)``.

    Images and semseg labels of one of our archives, with its classes and colours; 255 is ignored.

    Args:
        dataset: as ``data.dataset`` of our configs.
        split: ``train`` or ``val``.

    Raises:
        UserError: there is no such data set there.
    """

    def __init__(self, dataset: str, data_root: str, split: str, **options):
        task = data.described(dataset).build("semseg")
        archive = data.class_of(dataset)(data_root, split, tasks=["semseg"])
        self.pairs = list(zip(archive.image_files, (path for (path,) in archive.label_files("semseg")), strict=True))
        palette = task.colour(np.arange(task.channels)[None])[0].tolist()
        super().__init__(metainfo={"classes": task.classes, "palette": palette}, **options)

    def load_data_list(self) -> list[dict]:
        how = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label, "seg_fields": []}
        return [{"img_path": str(image), "seg_map_path": str(label), **how} for image, label in self.pairs]
