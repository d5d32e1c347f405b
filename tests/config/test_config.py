from pathlib import Path

import pytest
from omegaconf import OmegaConf

import sak
from sak import config
from sak.config import derived, schema
from sak.config.derived import image_size, left_out
from sak.config.schema import Config
from sak.distillation import losses, standardisation
from sak.errors import UserError
from sak.tasks import Kind
from sak.training.task_balance import GradNorm, Uncertainty, build_task_balance

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
COMPLETE = """
name: test
data: {dataset: pascal_context, root: nowhere, image_size: [96, 96], tasks: [semseg]}
student: {stem: vit_tiny_patch16_384}
stages:
  distill: {steps: 0, batch_size: 2, optim: {lr: 1e-3, weight_decay: 0.01, schedule: cosine}}
  multitask: {epochs: 1, batch_size: 2, optim: {lr: 2e-5, weight_decay: 1e-6, schedule: poly}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="test.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_complete(path):
    assert config.load(path).name == path.stem


def test_order_of_precedence(write):
    write(COMPLETE, "base.yaml")
    child = write("extends: base.yaml\nname: child\nseed: 3\nstages: {distill: {batch_size: 4}}\n")
    loaded = config.load(child, ["seed=5", "stages.multitask.optim.lr=1e-4", "data.tasks=[edge,normals]"])
    assert loaded.output == "runs"  # default
    assert loaded.data.root == "nowhere"  # extended file
    assert (loaded.name, loaded.stages.distill.batch_size) == ("child", 4)  # file
    assert (loaded.seed, loaded.stages.multitask.optim.lr) == (5, 1e-4)  # command line
    assert loaded.data.tasks == ["edge", "normals"]


def test_learning_rates_are_numbers(write):
    assert config.load(write(COMPLETE)).stages.distill.optim.lr == 0.001


def test_teachers_are_added_by_file_and_command_line(write):
    path = write(COMPLETE + "teachers: {a: {family: dinov2, model: m}}\n")
    loaded = config.load(path, ["teachers.a.levels=[1,2]", "teachers.b={family: sam, model: n}"])
    assert list(loaded.teachers) == ["a", "b"]
    assert loaded.teachers.a.levels == [1, 2]
    assert loaded.teachers.b.input_stats == "own"


def test_teachers_are_taken_out(write):
    write(COMPLETE + "teachers: {a: {family: dinov2, model: m}, b: {family: clip, model: n}}\n", "base.yaml")
    child = write("extends: base.yaml\nteachers: {a: null, c: {family: sam, model: o}}\n")
    assert list(config.load(child).teachers) == ["b", "c"]
    assert list(config.load(child, ["teachers.b=null", "teachers.a={family: sam, model: p}"]).teachers) == ["c", "a"]
    with pytest.raises(UserError, match="the command line: there is no teacher a to take out; the teachers are: b, c"):
        config.load(child, ["teachers.a=null"])


def test_a_stage_of_no_steps_is_left_out_whatever_its_epochs(write):
    loaded = config.load(write(COMPLETE), ["stages.multitask.steps=0"])
    assert left_out(loaded.stages.multitask)
    assert not left_out(config.load(write(COMPLETE)).stages.multitask)


def test_the_first_stage_may_have_an_image_size_of_its_own(write):
    loaded = config.load(write(COMPLETE), ["data.image_size=[64,96]"])
    assert image_size(loaded, "distill") == image_size(loaded, "multitask") == (64, 96)
    loaded = config.load(write(COMPLETE), ["stages.distill.image_size=[32,32]"])
    assert (image_size(loaded, "distill"), image_size(loaded, "multitask")) == ((32, 32), (96, 96))


def test_saved_and_read_again_it_is_the_same(write, tmp_path):
    loaded = config.load(write(COMPLETE))
    config.save(loaded, tmp_path / "saved.yaml")
    assert config.differences(config.load(tmp_path / "saved.yaml"), loaded) == []
    other = config.load(tmp_path / "saved.yaml", ["seed=1", "data.tasks=[edge]"])
    assert config.differences(other, loaded) == ["data.tasks", "seed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("studnet: {}", r"test.yaml, line 2: unknown key studnet; the nearest known key is student"),
        ("stages: {distill: {optim: {lrr: 1}}}", "unknown key stages.distill.optim.lrr; .* stages.distill.optim.lr$"),
        ("teachers: {a: {famly: sam}}", "unknown key teachers.a.famly; .* teachers.a.family"),
        ("seed: many", "test.yaml, line 2: seed is 'many', but must be a whole number"),
        (
            "stages: {distill: {optim: {lr: fast}}}",
            "test.yaml, line 2: stages.distill.optim.lr is 'fast', but must be a number",
        ),
        ("data: [1]", "test.yaml, line 2: data must be keys and values"),
        ("precision: bf32", "precision is 'bf32', but must be one of auto, fp32, bf16, fp16"),
        ("stages: {multitask: {steps: 3}}", "stages.multitask needs either steps or epochs"),
        ("stages: {distill: {steps: null}}", "stages.distill needs either steps or epochs"),
        ("stages: {multitask: {epochs: 0}}", "stages.multitask.epochs is 0, but must be positive; steps=0 leaves"),
        (
            "stages: {distill: {optim: {warmup_steps: 1, warmup_epochs: 1}}}",
            "distill.optim takes either warmup_steps or",
        ),
        (
            "stages: {distill: {image_size: [96]}}",
            r"stages.distill.image_size is \[96\], but must be \[height, width\]",
        ),
        ("teachers: {sam: null}", "there is no teacher sam to take out; the teachers are: none"),
        ("stages: {distill: {batch_size: 0}}", "stages.distill.batch_size is 0, but must be positive"),
        ("stages: {multitask: {optim: {schedule: step}}}", "must be cosine or poly"),
        ("data: {image_size: [96]}", r"must be \[height, width\]"),
        ("name: a/b", "must be the name of a directory"),
    ],
)
def test_mistakes_name_key_and_file(write, change, message):
    write(COMPLETE, "base.yaml")
    with pytest.raises(UserError, match=message):
        config.load(write(f"extends: base.yaml\n{change}\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "'seed' on the command line is not of the form key=value"),
        ("sed=1", "the command line: unknown key sed; the nearest known key is seed"),
        ("seed=[", "command line"),
        ("stages.distill.steps=many", "the command line: stages.distill.steps"),
    ],
)
def test_mistakes_on_the_command_line(write, override, message):
    with pytest.raises(UserError, match=message):
        config.load(write(COMPLETE), [override])


def test_mistakes_in_files(write, tmp_path):
    with pytest.raises(UserError, match=r"no config file at .*missing\.yaml"):
        config.load(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match=r"no config file at .*gone.yaml, which .*test.yaml extends"):
        config.load(write("extends: gone.yaml"))
    with pytest.raises(UserError, match="extends itself"):
        config.load(write("extends: test.yaml"))
    with pytest.raises(UserError, match="not a readable YAML"):
        config.load(write("a: [1"))
    with pytest.raises(UserError, match="must hold keys and values"):
        config.load(write("- 1"))
    with pytest.raises(UserError, match=r"data\.dataset has no value"):
        config.load(write("name: incomplete"))


def test_the_schema_is_typed():
    assert OmegaConf.structured(Config).stages.distill.accumulate == 1


def test_what_a_config_may_name_is_what_there_is():
    """The schema lists names, so that a config is checked before torch is loaded."""
    assert tuple(losses.LOSSES) == schema.LOSSES
    assert ("none", *standardisation.KINDS) == schema.STANDARDISATIONS
    student = sak.Student("vit_tiny_patch16_384", (32, 32), {}, {})
    balances = [
        build_task_balance(kind, {"semseg": Kind.CLASSES}, 0.01, 1.5, student, None) for kind in schema.TASK_BALANCES
    ]
    assert [type(balance) for balance in balances] == [type(None), Uncertainty, GradNorm]


ONE = "{a: {family: timm, model: x}}"
STAGE = "{batch_size: 4, optim: {lr: 1e-3, weight_decay: 0, schedule: poly}, "


@pytest.mark.parametrize(
    ("distill", "multitask", "teachers", "active", "distilling", "steps"),
    [
        (
            "steps: 3",
            "steps: 5",
            ONE,
            ["distill", "multitask"],
            ["distill", "multitask"],
            8,
        ),
        ("steps: 3", "steps: 5, alpha: 0", ONE, ["distill", "multitask"], ["distill"], 8),
        ("steps: 0", "epochs: 2", ONE, ["multitask"], ["multitask"], 4),
        ("steps: 3", "epochs: 2", "{}", ["distill", "multitask"], [], 7),
        ("epochs: 2", "steps: 0, epochs: 9", ONE, ["distill"], ["distill"], 4),
    ],
)
def test_stages_steps_and_distillation(write, distill, multitask, teachers, active, distilling, steps):
    text = f"stages: {{distill: {STAGE}{distill}}}, multitask: {STAGE}{multitask}}}}}\nteachers: {teachers}\n"
    settings = config.load(write(COMPLETE.split("stages:")[0] + text))
    assert derived.active_stages(settings) == active
    assert [stage for stage in schema.STAGES if derived.distils(settings, stage)] == distilling
    assert sum(derived.number_of_steps(stage, images=11) for stage in settings.stages.values()) == steps


def test_unlabelled_scenes_serve_the_first_stage_unless_other_images_are_named():
    def images(*overrides):
        return config.load("sak_pascal_mini", ["data.root=~/scenes", *overrides]).stages.distill.images

    assert images() == str(Path("~/scenes/unlabelled/images.tar").expanduser())
    assert images("stages.distill.images=pictures") == "pictures"
    assert images("data.renderer.unlabelled=0") is None
    assert images("data.dataset=pascal_context") is None
