"""What values of a config mean: odd ones that are valid, and that every number has a rule."""

import dataclasses
import math
import os
import typing
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from sak import config
from sak.config import ranges
from sak.config.schema import LOCATIONS, Config
from sak.errors import UserError

COMPLETE = """
name: test
data: {dataset: pascal_context, root: nowhere, image_size: [96, 96], tasks: [semseg]}
student: {stem: vit_tiny_patch16_384}
teachers: {sam: {family: sam, model: vit_b}}
stages:
  distill: {steps: 0, batch_size: 2, optim: {lr: 1e-3, weight_decay: 0.01, schedule: cosine}}
  multitask: {epochs: 1, batch_size: 2, optim: {lr: 2e-5, weight_decay: 1e-6, schedule: poly}}
"""


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base.yaml").write_text(COMPLETE)
    return tmp_path / "base.yaml"


def extended(base, text):
    child = base.with_name("child.yaml")
    child.write_bytes(text if isinstance(text, bytes) else f"extends: base.yaml\n{text}\n".encode())
    return child


# --- a rule for every number ------------------------------------------------------------------------------------------


def numeric(kind):
    return kind in (int, float) or any(numeric(part) for part in typing.get_args(kind))


def numeric_fields(schema, prefix=""):
    """(key, dataclass, field) of all that hold numbers."""
    for field in dataclasses.fields(schema):
        inner = [part for part in (field.type, *typing.get_args(field.type)) if dataclasses.is_dataclass(part)]
        if inner:
            yield from numeric_fields(inner[0], f"{prefix}{field.name}.")
        elif numeric(field.type):
            yield f"{prefix}{field.name}", schema, field


NUMERIC = {key: (schema, field) for key, schema, field in numeric_fields(Config)}


def test_the_walk_meets_numbers_in_all_their_forms():
    """What the test below relies on."""
    assert NUMERIC.keys() >= {
        "seed", "data.image_size", "data.renderer.val", "student.levels", "teachers.scales", "teachers.input_size",
        "stages.distill.optim.lr", "stages.multitask.evaluate_every", "cache.views", "probe.scales",
        "probe.extra.levels",
    }  # fmt: skip


@pytest.mark.parametrize("key", NUMERIC)
def test_every_number_has_a_rule_that_its_default_keeps_and_nonsense_breaks(key):
    schema, field = NUMERIC[key]
    rule = ranges.rule_of(schema, field.name)
    assert rule is not None, f"{key} has no rule in sak/config/ranges.py"
    made = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    if made not in (None, "???", {}):
        assert rule.holds(made)
    listed = list in map(typing.get_origin, (field.type, *typing.get_args(field.type)))
    for nonsense in [[-1, -2], [math.nan, 1], []] if listed else [-1, math.nan, math.inf]:
        assert not rule.holds(nonsense), (key, nonsense)
    assert rule.says


def test_no_rule_is_of_a_key_that_does_not_exist():
    for schema, rules in ranges.RANGES.items():
        assert rules.keys() <= {field.name for field in dataclasses.fields(schema)}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("teachers.sam.scales=[2,0]", "teachers.sam.scales is [2, 0], but must be a list of different whole numbers"),
        (
            "probe.extra={x: {family: timm, model: y, levels: [3, 2]}}",
            "probe.extra.x.levels is [3, 2], but must be a list",
        ),
        ("probe.optim.min_lr=inf", "probe.optim.min_lr is inf, but must be at least 0, and finite"),
        ("stages.multitask.optim.lr=-1e-4", "stages.multitask.optim.lr is -0.0001, but must be positive"),
        ("data.renderer.seed=-7", "data.renderer.seed is -7, but must be at least 0, and at most"),
    ],
)
def test_rules_hold_wherever_their_dataclass_stands(base, override, sentence):
    with pytest.raises(UserError) as error:
        config.load(base, [override])
    assert sentence in str(error.value)


# --- odd, but valid ---------------------------------------------------------------------------------------------------

TEXT = {  # what stands in a file or on a command line: what it says
    "2024_11": "2024_11",
    "1e3": "1e3",
    "0123456": "0123456",
    "0x1F": "0x1F",
    "12:30": "12:30",
    "2024-01-01": "2024-01-01",
    "1_000.5": "1_000.5",
    "no": "no",
    "Yes": "Yes",
    "on": "on",
    "true": "true",
    ".inf": ".inf",
    "...": "...",
    "=": "=",
    "a=b": "a=b",
    "'null'": "null",
    '"12"': "12",
    "ünï": "ünï",
    "a b": "a b",
}


@pytest.mark.parametrize("written", TEXT)
def test_text_is_taken_as_it_is_written(base, written, tmp_path):
    for loaded in (
        config.load(base, [f"name={written}"]),
        *([] if written in ("...", "=") else [config.load(extended(base, f"name: {written}"))]),  # marks of YAML itself
    ):
        assert loaded.name == TEXT[written]
        config.save(loaded, tmp_path / "saved.yaml")
        assert config.load(tmp_path / "saved.yaml").name == TEXT[written]


@pytest.mark.parametrize("key", ["teachers.sam.revision", "data.dataset", "student.router", "stages.distill.images"])
def test_any_key_of_text_is(base, key):
    for written in ("042798", "no", "1e3"):
        assert OmegaConf.select(config.load(base, [f"{key}={written}"]), key) == written


def test_so_is_text_in_lists_and_what_yaml_itself_would_refuse(base):
    loaded = config.load(
        base, ["data.tasks=[no,1e3,'null']", "stages.distill.images={a,b}-{000..146}.tar", "output=@x"]
    )
    assert loaded.data.tasks == ["no", "1e3", "null"]
    assert (loaded.stages.distill.images, loaded.output) == ("{a,b}-{000..146}.tar", "@x")
    loaded = config.load(base, ["teachers.x={family: timm, model: 007, weights: no, revision: null}"])
    assert (loaded.teachers.x.model, loaded.teachers.x.weights, loaded.teachers.x.revision) == ("007", "no", None)


VALUES = [  # (key, what is written, the value)
    ("seed", "0x10", 16),
    ("seed", "1_000", 1000),
    ("seed", "'5'", 5),
    ("seed", "+3", 3),
    ("seed", "9223372036854775807", 2**63 - 1),
    ("stages.distill.optim.lr", "1e-3", 0.001),
    ("stages.distill.optim.lr", "1E-3", 0.001),
    ("stages.distill.optim.lr", "'1e-3'", 0.001),
    ("stages.distill.optim.lr", ".5", 0.5),
    ("stages.distill.optim.lr", "5.", 5.0),
    ("stages.distill.optim.lr", "1", 1.0),
    ("stages.multitask.optim.weight_decay", "0", 0.0),
    ("compile", "yes", True),
    ("compile", "Off", False),
    ("compile", "'true'", True),
    ("student.aligner", "~", None),
    ("student.aligner", "no", False),
    ("student.weights", "", None),
    ("student.weights", "null", None),
    ("stages.multitask.optim.clip", "null", None),
    ("data.image_size", "[ 64 ,96, ]", [64, 96]),
    ("data.image_size", "['64', 96]", [64, 96]),
    ("data.workers", "0", 0),
    ("data.max_skipped", "1", 1.0),
    ("stages.distill.crop_scale", "[1, 1]", [1.0, 1.0]),
    ("stages.multitask.evaluate_every", "0", 0),
    ("teachers.sam.input_size", "native", "native"),
    ("teachers.sam.input_size", "512", 512),
    (
        "teachers.sam.options",
        "{act: no, n: 1e3, deep: {a: [1, x]}}",
        {"act": False, "n": 1000.0, "deep": {"a": [1, "x"]}},
    ),
    ("student.stem_options", "{}", {}),
    ("precision", "no", "fp32"),
    ("precision", "'no'", "fp32"),
    ("precision", "bf16", "bf16"),
]


@pytest.mark.parametrize(("key", "written", "value"), VALUES)
def test_values(base, key, written, value):
    content = written
    for part in reversed(key.split(".")):
        content = f"{{{part}: {content}}}"
    for loaded in (
        config.load(base, [f"{key}={written}"]),
        config.load(extended(base, content.removeprefix("{").removesuffix("}"))),
    ):
        found = OmegaConf.select(loaded, key)
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert (found, type(found)) == (value, type(value))


def test_a_run_of_the_older_precision_is_the_same_experiment(base, tmp_path):
    loaded = config.load(base)
    old = yaml.safe_load(OmegaConf.to_yaml(loaded))
    assert old["precision"] == "fp32"
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({**old, "precision": "no"}))
    assert config.differences(config.load(tmp_path / "old.yaml"), loaded) == []


def test_interpolations_have_their_values_types(base):
    loaded = config.load(base, ["name=of_${seed}", "seed=3", "data.root=${output}/data", "probe.steps=${seed}"])
    assert (loaded.name, loaded.data.root, loaded.probe.steps) == ("of_3", "runs/data", 3)


def test_anchors_merge_keys_and_a_byte_order_mark(base):
    text = "stages:\n  distill: &stage {steps: 7, batch_size: 4}\n  multitask: {<<: *stage, batch_size: 6}\n"
    loaded = config.load(
        extended(base, b"\xef\xbb\xbfextends: base.yaml\n" + text.encode()), ["stages.multitask.epochs="]
    )
    assert (loaded.stages.distill.steps, loaded.stages.multitask.steps) == (7, 7)
    assert (loaded.stages.distill.batch_size, loaded.stages.multitask.batch_size) == (4, 6)


def test_extends_through_other_folders_and_links(base, tmp_path):
    (tmp_path / "own" / "deeper").mkdir(parents=True)
    (tmp_path / "own" / "deeper" / "leaf.yaml").write_text("extends: ../../own/middle.yaml\nseed: 5")
    (tmp_path / "own" / "middle.yaml").write_text("extends: ../link.yaml\nname: middle")
    (tmp_path / "link.yaml").symlink_to("base.yaml")
    loaded = config.load(tmp_path / "own" / "deeper" / "leaf.yaml")
    assert (loaded.name, loaded.seed) == ("middle", 5)


def test_a_tilde_is_the_home_directory(base, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    loaded = config.load(base, [f"{key}=~/x/y" for key in LOCATIONS if not key.startswith(("student", "cache"))])
    assert (loaded.output, loaded.data.root, loaded.stages.distill.images) == ("/home/somebody/x/y",) * 3


def test_a_name_of_two_hundred_bytes_is_one_that_file_systems_take(base, tmp_path):
    name = "ü" * 100
    assert config.load(base, [f"name={name}"]).name == name
    (tmp_path / f".{name}.{os.getpid()}.partial").touch()
    with pytest.raises(UserError, match="at most 200 bytes"):
        config.load(base, [f"name={name}x"])


def test_an_error_of_a_file_says_which_line_of_which_file(base):
    child = extended(base, "seed: 1\n\ndata:\n  workers: several")
    with pytest.raises(UserError, match=r"child.yaml, line 5: data.workers is 'several', but must be a whole number"):
        config.load(child)
    base.write_text(COMPLETE + "seed: [")
    with pytest.raises(UserError, match=r"base.yaml is not a readable YAML file: line \d+: "):
        config.load(child)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_say_the_same_as_to_the_library_that_reads_yaml(path):
    """Their text is written so that it is text to any reader."""

    def compare(ours, theirs):
        for key, value in theirs.items():
            if OmegaConf.is_dict(value):
                compare(ours[key], value)
            elif key != "extends" and value is not None:
                assert ours[key] == value, key

    compare(config.load(path), OmegaConf.load(path))
