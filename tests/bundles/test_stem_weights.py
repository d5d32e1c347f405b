"""A stem that starts from a file, such as a supervised miniature."""

import re

import pytest
import safetensors.torch
import timm
import torch
from omegaconf import OmegaConf

from sak import config
from sak.bundles.build import build_student, start_from_weights
from sak.errors import UserError
from sak.preflight.doctor import check_weights
from teachers import weights


@pytest.fixture
def settings(tiny):
    """A config, and the options of its stem."""
    read = config.load(tiny)
    return read, OmegaConf.to_container(read.student.stem_options)


def vit(options, size=64):
    torch.manual_seed(5)
    return timm.create_model("vit_tiny_patch16_384", img_size=size, num_classes=7, **options)


def started(settings, **changes):
    chosen = OmegaConf.merge(settings, {"student": changes})
    student = build_student(chosen, {}, {name: [8] * len(chosen.student.levels) for name in chosen.teachers})
    return student, start_from_weights(student, chosen)


def save(model, path):
    state = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
    safetensors.torch.save_file(state, path)
    return str(path)


def test_the_stem_has_the_file_s_blocks(settings, tmp_path):
    settings, options = settings
    source = vit(options)  # with a final norm and a classifier, which no stem has
    student, said = started(settings, stem_weights=save(source, tmp_path / "vit.safetensors"))
    for key, value in student.stem.vit.blocks.state_dict().items():
        torch.testing.assert_close(value, source.blocks.state_dict()[key].half().float(), rtol=0, atol=0)
    assert "stem from" in said
    assert "vit.safetensors" in said


def test_its_positions_are_resized_to_the_student_s_grid(settings, tmp_path):
    settings, options = settings
    source = vit(options, size=128)
    student, _ = started(settings, stem_weights=save(source, tmp_path / "vit.safetensors"))
    assert student.stem.vit.pos_embed.shape != source.pos_embed.shape
    torch.testing.assert_close(student.stem.vit.pos_embed[:, 0], source.pos_embed[:, 0].half().float())


def test_a_file_is_named_that_is_missing_or_of_another_kind(settings, tmp_path):
    settings, options = settings
    wider = save(vit({**options, "embed_dim": 2 * options["embed_dim"]}), tmp_path / "wider.safetensors")
    deeper = save(vit({**options, "depth": options["depth"] + 1}), tmp_path / "deeper.safetensors")
    shallower = save(vit({**options, "depth": options["depth"] - 1}), tmp_path / "shallower.safetensors")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "nested.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for path, problem in {
        str(tmp_path / "nowhere.pt"): "there is no file",
        wider: "but this stem",
        deeper: "holds the unknown blocks",
        shallower: "lacks blocks",
        str(tmp_path / "nested.pt"): "not a flat dict",
        str(tmp_path / "text.pt"): "cannot be read as weights",
    }.items():
        with pytest.raises(UserError, match=rf"(?s){re.escape(path)}.*{problem}|{problem}.*{re.escape(path)}"):
            started(settings, stem_weights=path)


def test_another_number_of_heads_is_told_by_the_file_s_notes(settings, tmp_path):
    settings, options = settings
    source, fewer = vit(options), vit({**options, "num_heads": options["num_heads"] // 2})
    for network, fits in ((source, True), (fewer, False)):
        weights.save(tmp_path / "vit.safetensors", source.state_dict(), network, (0.5,) * 3, (0.5,) * 3)
        if fits:
            started(settings, stem_weights=str(tmp_path / "vit.safetensors"))
        else:
            with pytest.raises(UserError, match=r"student\.stem_weights: .*num_heads 1, but num_heads is 2 here"):
                started(settings, stem_weights=str(tmp_path / "vit.safetensors"))


def test_what_a_training_put_around_the_weights_is_taken_off(settings, tmp_path):
    settings, options = settings
    source = vit(options)
    wrapped = {f"module.{key}": value for key, value in source.state_dict().items()}
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "checkpoint.pt")
    student, _ = started(settings, stem_weights=str(tmp_path / "checkpoint.pt"))
    torch.testing.assert_close(student.stem.vit.blocks.state_dict(), source.blocks.state_dict())


def test_weights_of_a_run_come_first(settings, tmp_path):
    settings, _ = settings
    with pytest.raises(UserError, match=r"student\.weights"):
        started(settings, stem_weights="nowhere.pt", weights=str(tmp_path))


def test_the_doctor_says_what_the_training_would(settings, tmp_path):
    settings, options = settings
    wider = save(vit({**options, "embed_dim": 2 * options["embed_dim"]}), tmp_path / "wider.safetensors")
    right = save(vit(options), tmp_path / "right.safetensors")
    for path, count in ((wider, 1), (right, 0)):
        problems = []
        facts = dict(check_weights(OmegaConf.merge(settings, {"student": {"stem_weights": path}}), problems))
        assert path in facts["stem"]
        assert len([problem for problem in problems if "stem_weights" in str(problem)]) == count
