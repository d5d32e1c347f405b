"""A teacher with random weights is one network, decided by its name: whoever builds it, and whatever else is built."""

import dataclasses
import textwrap

import pytest
import torch

import teachers
from sak import config
from sak.bundles.build import build_committee
from sak.errors import UserError
from sak.research.frozen_models import build_models, models_to_probe
from teachers.fingerprints import weights_hash

VIT = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 2}
SPECS = {
    "dinov2": teachers.TeacherSpec(family="dinov2", model="vit_small_patch14_dinov2", options=VIT),
    "clip": teachers.TeacherSpec(
        family="clip", model="ViT-B-16",
        options={"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 12, "embed_dim": 8},
    ),
    "sam": teachers.TeacherSpec(
        family="sam", model="vit_b",
        options={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "out_chans": 8},
    ),
    "timm": teachers.TeacherSpec(family="timm", model="convnext_atto", options={"depths": (1, 1, 1, 1)}),
}  # fmt: skip
SPECS = {name: dataclasses.replace(spec, weights="random", levels=[0, 1]) for name, spec in SPECS.items()}
PARTLY_RANDOM = '''
from torch import nn
from teachers import Teacher


class Mixed(Teacher):
    """Its backbone comes from somewhere, what maps it is drawn: no `weights: random` says so."""

    def __init__(self, name, spec):
        super().__init__(name, spec, nn.Linear(3, 5), widths=[5], strides=[8], mean=[0.5] * 3, std=[0.5] * 3)
'''


@pytest.fixture
def specs(tmp_path, monkeypatch):
    (tmp_path / "partly_random.py").write_text(textwrap.dedent(PARTLY_RANDOM))
    monkeypatch.syspath_prepend(str(tmp_path))
    return {**SPECS, "mixed": teachers.TeacherSpec(family="partly_random:Mixed", model="mixed", levels=[0])}


def test_alone_or_in_any_company_and_after_any_draw(specs):
    alone = {}
    for name, spec in specs.items():
        torch.manual_seed(len(alone))
        alone[name] = weights_hash(teachers.build(name, spec))
    together = teachers.Committee(specs)
    backwards = teachers.Committee(dict(reversed(specs.items())))
    for committee in (together, backwards):
        assert {name: weights_hash(teacher) for name, teacher in committee.items()} == alone


def test_another_name_is_another_network():
    assert weights_hash(teachers.build("one", SPECS["dinov2"])) != weights_hash(teachers.build("two", SPECS["dinov2"]))


def test_what_others_draw_does_not_depend_on_it(specs):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    teachers.Committee(specs)
    assert torch.equal(torch.rand(4), expected)


def test_the_generator_is_given_back_where_building_fails():
    before = torch.get_rng_state()
    with pytest.raises(UserError):
        teachers.build("t", dataclasses.replace(SPECS["dinov2"], levels=[7]))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_and_probe_see_the_same_one_and_its_s2_variant_is_that_at_two_scales(tiny):
    trained, reseeded = build_committee(config.load(tiny)), build_committee(config.load(tiny, ["seed=5"]))
    probed = build_models(models_to_probe(config.load(tiny, ["probe.scales=[1,2]"])))
    expected = weights_hash(trained["dinov2"])
    assert [weights_hash(model) for model in (reseeded["dinov2"], probed["dinov2"], probed["dinov2-s2"].teacher)] == [
        expected
    ] * 3


def test_a_model_that_is_merely_called_like_a_variant_keeps_its_name():
    models = build_models({"vit-s2": SPECS["dinov2"]})
    assert weights_hash(models["vit-s2"]) == weights_hash(teachers.build("vit-s2", SPECS["dinov2"]))
