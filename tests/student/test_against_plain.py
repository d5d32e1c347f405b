"""The student against the paper's formulas written out plainly: values, and gradients of every weight."""

import pytest
import torch

from sak.student import Student

SHAPE = {
    "image_size": (32, 48),
    "tasks": {"semseg": 5, "edge": 1},
    "teachers": {"wide": [24] * 4, "own": [32] * 4},
    "levels": (0, 1, 2, 3),
}
STEM = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("path_norm", [True, False])
def test_values_and_gradients(training, path_norm, reference):
    torch.manual_seed(0)
    shape = {"stem": "vit_tiny_patch16_384", **SHAPE, "path_norm": path_norm}
    ours = Student(stem_options=STEM, **shape).train(training)
    plain = reference("student").PlainStudent(options=STEM, **shape).train(training)
    plain.load_state_dict(ours.state_dict(), strict=True)
    images = torch.rand(2, 3, 32, 48)

    torch.manual_seed(1)  # of the gates' noise
    out = ours(images)
    torch.manual_seed(1)
    predictions, paths, routing = plain(images)
    for one, other in ((out.predictions, predictions), (out.paths, paths), (out.routing, routing)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    sum(p.square().mean() for p in (*out.predictions.values(), *out.paths["wide"])).backward()
    sum(p.square().mean() for p in (*predictions.values(), *paths["wide"])).backward()
    expected = {name: weight.grad for name, weight in plain.named_parameters() if weight.grad is not None}
    assert any("routers" in name for name in expected)
    assert any("adapters" in name for name in expected)
    found = {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
