"""The committee, with the miniature weights that are part of the repository."""

import subprocess
import sys

import torch

from teachers import Committee
from teachers.pretrain.miniatures import MINIATURES


def test_the_miniature_committee_answers():
    committee = Committee({name: MINIATURES[name] for name in ("dinov2", "clip", "sam")})
    images = torch.rand(2, 3, 96, 72, generator=torch.Generator().manual_seed(0))
    features = committee(images)

    assert committee.dims == {"dinov2": [128] * 4, "clip": [96] * 4, "sam": [96] * 4}
    for name, levels in features.items():
        h, w = committee[name].grid(96, 72)
        assert (h, w) == ((32, 24) if name == "sam" else (12, 9))  # SAM's longer side is always 256 pixels
        assert [tuple(level.shape) for level in levels] == [(2, dim, h, w) for dim in committee.dims[name]]
        assert all(level.isfinite().all() for level in levels)
    assert not committee.train().training
    assert not any(parameter.requires_grad for parameter in committee.parameters())


def test_a_family_is_imported_when_it_is_asked_for():
    code = "import sys, teachers; print({'open_clip', 'segment_anything'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
