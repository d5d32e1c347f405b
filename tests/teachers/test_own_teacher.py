"""A teacher from outside of the package: `family: package.module:Class`."""

import textwrap

import pytest
import torch
import torch.nn.functional as F

import teachers
from sak.errors import UserError

MODULE = '''
import torch
from torch import nn
from teachers import Teacher


class Pools(Teacher):
    """Mean colours of squares, mixed by one matrix per level."""

    def __init__(self, name, spec):
        widths = [spec.options.get("width", 6)] * 2
        layers = nn.ModuleList(nn.Conv2d(3, width, 1, bias=False) for width in widths)
        super().__init__(name, spec, layers, widths=widths, strides=[8, 8], mean=[0.5] * 3, std=[0.5] * 3)

    def features(self, inputs):
        cells = nn.functional.avg_pool2d(inputs, 8)
        return [self.backbone[level](cells) for level in self.levels]


class NoTeacher(nn.Module):
    pass
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    package = tmp_path / "my_vision_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pools.py").write_text(textwrap.dedent(MODULE))
    (package / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_vision_package.pools:Pools"


def spec(family, **changes):
    return {"family": family, "model": "pools", "levels": [0, 1], "weights": "random", **changes}


def test_it_is_as_good_as_any_other(outside):
    torch.manual_seed(0)
    committee = teachers.Committee({"mine": spec(outside), "twice": spec(outside, scales=[1, 2], options={"width": 4})})
    images = torch.rand(2, 3, 20, 32)
    features = committee(images)
    assert committee.dims == {"mine": [6, 6], "twice": [8, 8]}
    assert [tuple(level.shape) for level in features["mine"]] == [(2, 6, 3, 4)] * 2
    assert not any(parameter.requires_grad for parameter in committee.parameters())
    seen = F.interpolate(images, (24, 32), mode="bilinear", antialias=True)
    expected = committee["mine"].backbone[1](F.avg_pool2d((seen - 0.5) / 0.5, 8))
    torch.testing.assert_close(features["mine"][1], expected)


def test_what_is_not_a_teacher(outside):
    for family, message in (
        ("my_vision_package.pools:Pool", r"module my_vision_package\.pools has no Pool"),
        ("my_vision_package.pools:NoTeacher", "is not a subclass of teachers.Teacher"),
        ("my_vision_package.ponds:Pools", r"there is no module my_vision_package\.ponds"),
        ("nobody_has_this:Pools", "there is no module nobody_has_this"),
        (":Pools", "family is ':Pools', but must be package.module:Class"),
        ("my_vision_package.pools:", "family is .*, but must be package.module:Class"),
        (".pools:Pools", r"module \.pools has no Pools"),
        ("tim", r"unknown family 'tim'; did you mean timm\?"),
    ):
        with pytest.raises(UserError, match=f"teacher t: .*{message}"):
            teachers.build("t", spec(family))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):  # a defect of that module, not a name
        teachers.build("t", spec("my_vision_package.broken:Pools"))
