"""What is off by default, in whole runs: it ends, is logged, and an interrupted run ends as one that was not."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils._pytree import tree_leaves

from sak import Student, config
from sak.bundles.build import build_student, build_tasks
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.training import checkpoint
from sak.training.run_directory import RunDirectory
from sak.training.stage import StageTraining
from sak.training.standardising import learned
from sak.training.tracking import read_scalars
from sak.training.train import train

FIRST = [
    "student.router=token",
    "stages.distill.standardise=phi_s",
    "stages.distill.standardise_images=3",
    "stages.distill.loss=token_cos+l1",
    "stages.multitask.standardise=phi_s",
    "stages.multitask.task_balance=gradnorm",
    "stages.multitask.balance=0.1",
]
SECOND = [
    "student.router=token_topk",
    "student.router_temperature=0.5",
    "student.activation_checkpointing=true",
    "stages.distill.standardise=ema",
    "stages.multitask.standardise=ema",
    "stages.distill.teacher_dropping=0.5",
    "stages.multitask.teacher_dropping=0.5",
    "stages.multitask.task_balance=uncertainty",
    "stages.multitask.loss=token_cos",
    "teachers.second={family: dinov2, model: vit_small_patch14_dinov2, weights: random, levels: [0,1,2,3], "
    "options: {img_size: 96, patch_size: 16, embed_dim: 28, depth: 4, num_heads: 2}}",
]


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def settings(tiny):
    """Two short stages, and a checkpoint at every step."""
    short = [f"stages.{stage}.{key}" for stage in STAGES for key in ("checkpoint_every=1", "steps=2")]
    without = ["data.tasks=[semseg,normals]", "stages.multitask.evaluate_every=null"]
    return lambda *overrides: config.load(tiny, [*without, *short, *overrides])


def killed_twice(monkeypatch, own):
    """In the second step of each stage; then to the end."""
    for when in (2, 3):
        calls, real = [], StageTraining._step

        def dying(self, *arguments, calls=calls, real=real, when=when):
            calls.append(1)
            if len(calls) == when:
                raise Killed
            return real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(StageTraining, "_step", dying)
            with pytest.raises(Killed):
                train(own)
    return train(own)


def terms(run, stage):
    prefix, scalars = f"{stage}/loss/", read_scalars(run.events)
    names = [tag for tag in scalars if tag.startswith(prefix)]
    return {tag.removeprefix(prefix): [scalar.value for scalar in scalars[tag]] for tag in names}


@pytest.mark.parametrize("options", [FIRST, SECOND], ids=["phi_s-gradnorm", "ema-uncertainty"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(options, settings, monkeypatch):
    whole = train(settings("name=whole", *options))
    killed = killed_twice(monkeypatch, settings("name=killed", *options))
    one, other = (checkpoint.load(checkpoint.newest(run.checkpoints)) for run in (whole, killed))
    assert one.keys() == other.keys()
    for ours, theirs in zip(tree_leaves(other), tree_leaves(one), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert killed.metrics.read_text() == whole.metrics.read_text()
    assert terms(killed, "multitask") == terms(whole, "multitask")

    logged = terms(whole, "multitask")
    if options is FIRST:
        assert sum(values[1] for name, values in logged.items() if name.startswith("weight/")) == pytest.approx(2)
        weighted = [logged[f"task/{task}"][1] * logged[f"weight/{task}"][1] for task in ("semseg", "normals")]
        distilled = [values[1] for name, values in logged.items() if name.startswith("distill/")]
        expected = sum(weighted) + sum(distilled) + 0.1 * logged["balance"][1]
        assert logged["total"][1] == pytest.approx(expected, rel=1e-5)
        turn = one["standardise"]["phi_s"]["teachers.dinov2.3.turn"]
        first = checkpoint.load(checkpoint.path_of(whole.checkpoints, checkpoint.Progress("distill", 1)))
        assert torch.equal(turn, first["standardise"]["phi_s"]["teachers.dinov2.3.turn"])  # one for the whole run
    else:
        assert one["standardise"]["ema"]["teachers.second.0.count"] == 4
    student = Student.from_pretrained(whole.student)
    assert student(torch.rand(1, 3, 96, 96)).token_routing["semseg"][0].shape == (1, len(student.sources), 6, 6)


def test_a_run_on_a_distilled_students_weights_goes_on_with_its_statistics(settings):
    distilled = train(settings("name=distilled", "stages.multitask.steps=0", *FIRST[:4]))
    before = checkpoint.load(checkpoint.newest(distilled.checkpoints))["standardise"]["phi_s"]
    later = train(settings("name=later", "stages.distill.steps=0", f"student.weights={distilled.path}", *FIRST[:5]))
    after = checkpoint.load(checkpoint.newest(later.checkpoints))["standardise"]["phi_s"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, tiny_text):
    """{kind: a run of the first stage with it}."""
    folder = tmp_path_factory.mktemp("distilled")
    root = Path(__file__).parents[1] / "fixtures/pascal_format/PASCALContext"
    (folder / "tiny.yaml").write_text(tiny_text.format(output=folder, root=root))
    short = ["stages.distill.steps=1", "stages.multitask.steps=0", "stages.distill.standardise_images=2"]
    kinds = ("none", "phi_s", "ema")
    return {
        kind: train(
            config.load(folder / "tiny.yaml", [*short, f"stages.distill.standardise={kind}", f"name={kind}"])
        ).path
        for kind in kinds
    }


def second_stage(kind, weights, *more):
    """The overrides of a run of the second stage alone."""
    return [
        "name=later",
        "stages.distill.steps=0",
        "stages.multitask.steps=1",
        f"stages.multitask.standardise={kind}",
        f"student.weights={weights}",
        *more,
    ]


@pytest.mark.parametrize("kind", ["phi_s", "ema"])
@pytest.mark.parametrize("place", ["", "student", "link"])
def test_the_bundle_in_a_run_has_its_statistics(settings, distilled, tmp_path, kind, place):
    """However it is named. Those of another image would differ."""
    (tmp_path / "link").symlink_to(distilled[kind] / "student")
    weights = tmp_path / "link" if place == "link" else distilled[kind] / place
    later = train(settings(*second_stage(kind, weights)))
    before, after = (
        checkpoint.load(checkpoint.newest(run / "checkpoints"))["standardise"][kind]
        for run in (distilled[kind], later.path)
    )
    if kind == "phi_s":
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    else:
        assert (before["teachers.dinov2.0.count"], after["teachers.dinov2.0.count"]) == (1, 2)


def test_a_run_of_the_second_stage_hands_on_what_the_first_learned(settings, distilled):
    """A run that did not distil is asked for the one before it."""
    middle = train(settings(*second_stage("none", distilled["phi_s"], "stages.multitask.alpha=0", "name=middle")))
    assert learned(middle.path) == {"dinov2": ("phi_s", distilled["phi_s"])}


@pytest.mark.parametrize(
    ("had", "kind", "message"),
    [
        (
            "phi_s",
            "none",
            "the path of dinov2 at .* has learned features with standardise=phi_s, but stages.* is none: set",
        ),
        (
            "none",
            "ema",
            "the path of dinov2 at .* has learned features with standardise=none, but stages.* is ema: set",
        ),
        (
            "ema",
            "phi_s",
            "the path of dinov2 at .* has learned features with standardise=ema, but stages.* is phi_s: set",
        ),
    ],
)
def test_paths_are_not_asked_for_other_features_than_they_have_learned(settings, distilled, had, kind, message):
    own = settings(*second_stage(kind, distilled[had]))
    with pytest.raises(UserError, match=message):
        train(own)
    assert not RunDirectory(own).path.exists()


def test_nothing_tells_what_the_paths_of_a_bundle_out_of_its_run_have_learned(settings, distilled, tmp_path):
    bundle = shutil.copytree(distilled["phi_s"] / "student", tmp_path / "bundle")
    with pytest.raises(
        UserError, match=r"nothing tells by which statistics the path of dinov2 at .*bundle was standard"
    ):
        train(settings(*second_stage("phi_s", bundle)))
    assert train(settings(*second_stage("none", bundle))).finished
    run = shutil.copytree(distilled["phi_s"], tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="standardised by phi_s, but the statistics are not there"):
        train(settings(*second_stage("phi_s", run), "name=lost"))


def test_the_stages_agree_about_what_the_paths_learn(settings):
    for one, other in (("phi_s", "none"), ("none", "ema"), ("ema", "phi_s")):
        kinds = [f"stages.distill.standardise={one}", f"stages.multitask.standardise={other}"]
        message = f"stages.distill.standardise is {one} and stages.multitask.standardise is {other}: the second"
        own = settings(*kinds)
        with pytest.raises(UserError, match=message):
            train(own)
        assert not RunDirectory(own).path.exists()
    # A stage that does not distil asks for nothing.
    assert train(settings("stages.distill.standardise=ema", "stages.multitask.alpha=0")).finished


def test_a_new_path_has_learned_nothing_and_an_updated_one_goes_on(settings, distilled):
    second = SECOND[-1]
    changed = ["stages.multitask.steps=0", "stages.distill.steps=1", f"student.weights={distilled['phi_s']}", second]
    added = train(settings(*changed, "student.add_teacher=second", "stages.distill.standardise=ema", "name=added"))
    assert learned(added.path) == {"dinov2": ("phi_s", distilled["phi_s"]), "second": ("ema", added.path)}
    with pytest.raises(UserError, match="has learned features with standardise=phi_s"):
        train(settings(*changed, "student.update_teacher=dinov2", "stages.distill.standardise=ema"))
    updated = train(settings(*changed, "student.update_teacher=dinov2", "stages.distill.standardise=phi_s"))
    before, after = (
        checkpoint.load(checkpoint.newest(run / "checkpoints"))["standardise"]["phi_s"]
        for run in (distilled["phi_s"], updated.path)
    )
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_run_from_before_these_options_goes_on_with_their_defaults(settings):
    own = settings()
    run = RunDirectory(own)
    run.path.mkdir(parents=True)
    before = OmegaConf.to_container(own)
    for key in ("balance", "task_balance", "standardise", "teacher_dropping"):
        del before["stages"]["multitask"][key]
    OmegaConf.save(OmegaConf.create(before), run.config_file)
    run.check(own)
    with pytest.raises(UserError, match=r"different experiment: stages.multitask.balance is 0.0 there and 0.5 here"):
        run.check(settings("stages.multitask.balance=0.5"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stages.distill.standardise=pca"],
            "stages.distill.standardise is 'pca', but must be one of none, phi_s, ema",
        ),
        (["stages.distill.standardise_images=0"], "standardise_images is 0, but must be positive"),
        (["stages.multitask.teacher_dropping=1.5"], "teacher_dropping is 1.5, but must be a probability"),
        (["stages.multitask.balance=-1"], "balance is -1.0, but must be at least 0"),
        (
            ["stages.multitask.task_balance=dwa"],
            "task_balance is 'dwa', but must be one of none, uncertainty, gradnorm",
        ),
        (["stages.multitask.task_balance_lr=0"], "task_balance_lr is 0.0, but must be positive"),
        (["stages.multitask.gradnorm_alpha=-1"], "gradnorm_alpha is -1.0, but must be at least 0"),
        (["stages.multitask.task_balance=gradnorm", "distributed=fsdp"], "distributed is 'fsdp', but must be ddp, as"),
        (["stages.multitask.task_balance=gradnorm", "compile=true"], "compile is True, but must be false, as"),
        (["stages.multitask.task_balance=gradnorm", "precision=fp16"], "precision is 'fp16', but must be bf16 or fp32"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(tiny, overrides, message):
    with pytest.raises(UserError, match=message):
        config.load(tiny, overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["student.router=equal"], r"balance is 0.1, but there are no weights to balance \(student.router is equal"),
        (["student.paths=none"], r"balance is 0.1, but there are no weights to balance .* sources are stem\)"),
        (
            ["student.router=token_topk", "student.router_top_k=3"],
            "student: router_top_k is 3, .* number of sources, 2",
        ),
        (["student.router=gate"], "student: unknown router 'gate'; known: mor, token, token_topk, equal, sum"),
    ],
)
def test_a_student_that_cannot_be_is_one_sentence(tiny, overrides, message):
    own = config.load(tiny, ["stages.multitask.balance=0.1", *overrides])
    with pytest.raises(UserError, match=message):
        build_student(own, build_tasks(own.data), {"dinov2": [24] * 4})


def test_a_teacher_without_a_hadamard_matrix_is_one_sentence(settings):
    odd = "teachers.dinov2.options={img_size: 96, patch_size: 16, embed_dim: 22, depth: 4, num_heads: 2}"
    own = settings("stages.distill.standardise=phi_s", "stages.multitask.standardise=phi_s", odd)
    with pytest.raises(
        UserError, match=r"standardise is phi_s, but the features of dinov2 at its level 0: no Hadamard"
    ):
        train(own)
    assert checkpoint.newest(RunDirectory(own).checkpoints) is None
