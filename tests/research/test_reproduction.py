"""The paper's claims: who is compared with whom, at which cost, and what is made of the metrics."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from sak import config
from sak.bundles.build import build_labelled, build_tasks
from sak.errors import UserError
from sak.preflight.operations import operations
from sak.research.ablation import jobs
from sak.research.ablation.cost import steps_of
from sak.research.reproduction import study
from sak.research.reproduction.figures import bias_figure, efficiency_figure
from sak.research.reproduction.report import by_task, claims, leading, markdown, students
from sak.research.reproduction.reproduce import Reproduction, reproduction
from sak.research.reproduction.results import Results
from sak.research.reproduction.study import CLAIMS, EQUAL_STEPS, NO_TEACHERS, SAK, SINGLE_TASK, cost, matched_steps
from sak.tasks import Depth
from sak.training.run_directory import RunDirectory
from tests.research.test_ablation import Forked

MANY = ["stages.distill.steps=20", "stages.multitask.steps=20"]  # enough for equal steps and equal cost to differ
TOOL = Path(__file__).parents[2] / "tools" / "reproduce_mini.py"


@pytest.fixture
def committee(tiny, archive):
    """The tiny experiment with two teachers and two tasks, on an archive."""
    text = tiny.read_text().replace("human_parts, saliency, normals, edge", "normals")
    start, end = text.index("  dinov2:\n"), text.index("stages:")
    other = text[start:end].replace("  dinov2:", "  clip:").replace("embed_dim: 24", "embed_dim: 16")
    tiny.write_text(text[:end] + other + text[end:])
    return tiny, [f"data.root={archive}", "stages.distill.steps=2", "stages.multitask.steps=2"]


# --- who is compared ------------------------------------------------------------------------------------------------


def test_all_students_of_the_study_are_valid_runs_of_as_many_steps(committee, tmp_path):
    path, overrides = committee
    ablation = reproduction(str(path), [*overrides, *MANY], [0, 1, 2, 3], str(tmp_path / "out"))
    counts = {variant.name: len(ablation.of(variant.name)) for variant in ablation.variants}
    assert {name for name, count in counts.items() if count == 4} == {SAK, "many-to-one", NO_TEACHERS}
    assert set(counts.values()) == {3, 4}
    known = {*counts, "best single teacher", SINGLE_TASK}
    assert {name for claim in CLAIMS for name in (claim.better, claim.worse)} <= known
    assert {f"single-{task}" for task in ("semseg", "normals")} < set(counts)
    for variant in ablation.variants:
        steps = steps_of(ablation.of(variant.name)[0].config)
        if not variant.name.startswith(NO_TEACHERS) or variant.name == EQUAL_STEPS:
            assert sum(steps.values()) == 40, variant.name
    settings = {variant.name: ablation.of(variant.name)[0].config for variant in ablation.variants}
    assert all(each.data.crop_by_semseg for each in settings.values())
    assert settings["labels-25"].stages.multitask.labelled == 0.25
    assert not settings[NO_TEACHERS].teachers
    assert list(settings["only-clip"].teachers) == ["clip"]
    assert settings["frozen-dinov2"].adaptation.backbone == "dinov2"


def test_factors_choose_students_and_seeds_come_in_turn(committee, tmp_path, monkeypatch):
    path, overrides = committee
    monkeypatch.setattr(study, "matched_steps", lambda *_: 5)
    ablation = reproduction(
        str(path), [*overrides, *MANY], [4, 1], str(tmp_path / "out"), factors=["paths", "teachers"]
    )
    names = [variant.name for variant in ablation.variants]
    assert names == [SAK, "many-to-one", NO_TEACHERS, EQUAL_STEPS, "only-dinov2", "only-clip"]
    runner = Reproduction(ablation, 1, [], [], "")
    assert [job.name for job in runner._train_jobs()] == [f"{name}-seed{seed}" for seed in (4, 1) for name in names]
    assert "without teachers gets" in runner._facts()
    few = reproduction(str(path), overrides, [0], str(tmp_path / "few"), factors=["paths"])
    assert "without teachers" not in Reproduction(few, 1, [], [], "")._facts()
    with pytest.raises(UserError, match="no student differs from SAK in 'sizes'; choose of paths, teachers, tasks"):
        reproduction(str(path), overrides, [0], str(tmp_path / "out"), factors=["sizes"])


def test_students_without_teachers_may_have_settings_of_their_own(committee, tmp_path, monkeypatch):
    path, overrides = committee
    monkeypatch.setattr(study, "matched_steps", lambda *_: 5)
    given = (str(path), overrides, [0], str(tmp_path / "out"))
    ablation = reproduction(*given, own=["stages.multitask.optim.lr=7e-4"])
    rates = {each.name: ablation.of(each.name)[0].config.stages.multitask.optim.lr for each in ablation.variants}
    theirs = {name for name, rate in rates.items() if rate == 7e-4}
    assert theirs == {name for name in rates if name.startswith((NO_TEACHERS, "single-"))}
    assert rates[SAK] == config.load(path, overrides).stages.multitask.optim.lr != 7e-4
    with pytest.raises(UserError, match=r"unknown key stages\.multitask\.optim\.lt"):
        reproduction(*given, own=["stages.multitask.optim.lt=7e-4"])


class Shade(Depth):
    name = "shade"


def test_tasks_of_one_s_own_go_by_their_names(committee, monkeypatch):
    """As their metrics do; not by where their classes lie."""
    path, overrides = committee
    monkeypatch.setattr(study, "matched_steps", lambda *_: 5)
    own = f"{__name__}:Shade"
    found = {
        variant.name: variant for variant in study.variants(str(path), [*overrides, f"data.tasks=[semseg,'{own}']"])
    }
    assert {"single-semseg", f"single-{Shade.name}"} < set(found)
    assert config.load(str(path), [*overrides, *found[f"single-{Shade.name}"].overrides]).data.tasks == [own]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("teachers.clip=null", "too little to compare"),
        ("data.tasks=[semseg]", "too little to compare"),
        ("stages.distill.epochs=1 stages.distill.steps=null", "stages.distill has epochs"),
    ],
)
def test_what_cannot_be_compared_is_refused(committee, tmp_path, change, says):
    path, overrides = committee
    with pytest.raises(UserError, match=says):
        reproduction(str(path), [*overrides, *change.split()], [0], str(tmp_path / "out"), quick=True)


# --- at which cost --------------------------------------------------------------------------------------------------


def test_operations_are_those_of_the_matrices(committee):
    """Twice the images, twice the operations; a stage without a teacher's forward pass takes fewer."""
    path, overrides = committee
    one = operations(config.load(path, overrides))
    two = operations(config.load(path, [*overrides, "stages.multitask.batch_size=4", "stages.distill.batch_size=4"]))
    assert set(one) == {"distill", "multitask"}
    before = config.load(path, overrides).stages
    for stage in one:
        assert np.divide(two[stage], one[stage]) == pytest.approx(4 / before[stage].batch_size)
    alone = operations(config.load(path, [*overrides, "stages.multitask.alpha=0"]))
    assert alone["multitask"][1] == 0 < one["multitask"][1]
    # More than the teachers' own is saved: the aligners and the last levels of the paths serve distillation alone.
    assert 0 < alone["multitask"][0] < one["multitask"][0] - one["multitask"][1]


@pytest.mark.slow
def test_accumulated_parts_count(committee):
    path, overrides = committee
    whole = operations(config.load(path, [*overrides, "stages.distill.batch_size=4"]))
    parts = operations(config.load(path, [*overrides, "stages.distill.batch_size=4", "stages.distill.accumulate=2"]))
    assert parts["distill"] == pytest.approx(whole["distill"])


def test_matched_steps_cost_as_much(committee, monkeypatch):
    path, overrides = committee
    sak = config.load(path, overrides)
    none = ["teachers.dinov2=null", "teachers.clip=null", "stages.distill.steps=0", "probe.reference=null"]
    plain = config.load(path, [*overrides, *none])
    steps = {"distill": 300, "multitask": 500}
    with_teachers, without = operations(sak), operations(plain)
    monkeypatch.setattr(study, "operations", lambda config: with_teachers if config.teachers else without)
    found = matched_steps(sak, plain, steps)
    ours = sum(with_teachers[stage][0] * count for stage, count in steps.items())
    assert found * without["multitask"][0] == pytest.approx(ours, rel=0.01)
    assert found > 800


@pytest.mark.parametrize("labelled", [1.0, 0.5])
def test_kept_features_are_computed_once(committee, tmp_path, labelled, monkeypatch):
    """What a step costs without its teachers, and as many of their images as there are views."""
    path, overrides = committee
    monkeypatch.setattr(study, "operations", lambda _: {"distill": (70, 30), "multitask": (110, 50)})
    kept = [f"cache.path={tmp_path}", "cache.views=2", "cache.stages=[multitask]"]
    sak = config.load(
        path, [*overrides, *kept, "stages.multitask.batch_size=2", f"stages.multitask.labelled={labelled}"]
    )
    images = round(len(build_labelled(sak)) * labelled)
    assert cost(sak, {"distill": 10, "multitask": 1}) == 10 * 70 + 110  # no image is seen twice yet
    assert cost(sak, {"distill": 10, "multitask": 300}) == 10 * 70 + 300 * (110 - 50) + 2 * images * 50 / 2


# --- what is made of the metrics ------------------------------------------------------------------------------------


def found(semseg, normals):
    return {"semseg": {"miou": semseg}, "normals": {"mean_error": normals}}


def measured(**students):
    """{student: (semseg, normals)} with three seeds that differ alike, and single-task students at 40 and 20."""
    noise = (-1.0, 0.0, 1.0)
    rows = {name: {seed: found(s + n, a) for seed, n in enumerate(noise)} for name, (s, a) in students.items()}
    rows["single-semseg"] = {seed: {"semseg": {"miou": 40.0 + n}} for seed, n in enumerate(noise)}
    rows["single-normals"] = {seed: {"normals": {"mean_error": 20.0}} for seed in range(3)}
    return rows


@pytest.fixture
def tasks(committee):
    path, overrides = committee
    return build_tasks(config.load(path, overrides).data)


def test_gains_are_against_the_students_of_one_task(tasks):
    results = Results(tasks, measured(config=(44, 18)))
    assert set(results.students) == {SAK, SINGLE_TASK}
    assert results.gains(SINGLE_TASK)[1] == pytest.approx(0)
    assert results.gains(SAK)[1] == pytest.approx((10 + 10) / 2)
    assert results.gains_of_tasks(SAK) == pytest.approx({"semseg": 10, "normals": 10})


def test_a_task_that_its_single_students_do_not_learn_at_all_is_left_out(tasks):
    rows = measured(config=(44, 18))
    rows["single-semseg"] = {seed: {"semseg": {"miou": 0.0}} for seed in range(3)}
    results = Results(tasks, rows)
    assert results.gains(SAK)[0] == pytest.approx(10)
    assert results.gains_of_tasks(SAK) == pytest.approx({"normals": 10})
    assert [label.get_text() for label in bias_figure(results).axes[0].get_xticklabels()] == ["normals ↓"]
    page = markdown(results, {}, {}, {}, "facts", {})
    assert "semseg is not in Δm" in page
    assert "normals is not in Δm" not in page
    rows["single-normals"] = {seed: {"normals": {"mean_error": 0.0}} for seed in range(3)}
    nothing = Results(tasks, {**rows})
    assert nothing.reference is None
    assert bias_figure(nothing) is None


def test_claims_are_told_by_pairs_of_one_seed(tasks):
    """The seeds differ by far more than the students, but alike."""
    students = {"config": (44, 18), "many-to-one": (43.8, 18), "only-clip": (43.8, 18), "only-dinov2": (30, 19)}
    results = Results(tasks, measured(**students, **{NO_TEACHERS: (45, 17)}))
    rows = {row[0]: row for row in claims(results)}
    told = {claim: next(row for text, row in rows.items() if text.startswith(claim.sentence[:-1])) for claim in CLAIMS}
    by_pair = {(claim.better, claim.worse): row for claim, row in told.items()}
    assert by_pair[SAK, "many-to-one"][1:] == ["holds", "+0.25 (+0.25 to +0.25)", "3"]
    assert by_pair[SAK, NO_TEACHERS][1] == "does not hold"
    assert by_pair["many-to-one", "best single teacher"][1] == "not decided"
    assert "(here: only clip)" in by_pair["many-to-one", "best single teacher"][0]
    assert by_pair[SAK, "router-sum"][1:] == ["not measured yet", "", "0"]


def test_what_lies_behind_a_claim_is_told_task_by_task(tasks):
    results = Results(tasks, measured(**{"config": (44, 18), "many-to-one": (43.5, 17), "only-clip": (40, 18)}))
    told = {(claim.better, claim.worse): results.task_differences(claim) for claim in CLAIMS}
    assert told[SAK, "many-to-one"] == {"semseg": pytest.approx([0.5] * 3), "normals": [-1] * 3}  # fewer degrees
    assert told["many-to-one", "best single teacher"]["semseg"] == pytest.approx([3.5] * 3)
    assert told[SAK, SINGLE_TASK] == {"semseg": pytest.approx([4] * 3), "normals": [2] * 3}
    assert told[SAK, NO_TEACHERS] == {}
    table = by_task(results)
    assert re.search(r"\| many to one − only clip +\| \+3\.50 \(\+3\.50 to \+3\.50\) +\| \+1\.00 ", table)
    assert by_task(Results(tasks, {})) == ""


def test_one_seed_decides_nothing(tasks):
    rows = {name: {0: seeds[0]} for name, seeds in measured(config=(50, 10), **{"many-to-one": (30, 30)}).items()}
    row = next(row for row in claims(Results(tasks, rows)) if row[0].startswith("A path"))
    assert row[1] == "one seed: not decided"


def test_who_leads_among_the_frozen_teachers(tasks):
    results = Results(tasks, measured(**{"frozen-dinov2": (50, 15), "frozen-clip": (45, 14), "config": (44, 18)}))
    assert results.leaders() == {"semseg": ("dinov2", "holds"), "normals": ("clip", "holds")}
    assert leading(results).startswith("2 teachers are ahead")
    alone = Results(tasks, measured(**{"frozen-dinov2": (50, 15)}))
    assert alone.leaders() == {}


def test_nothing_finished_is_no_failure(tasks):
    results = Results(tasks, {})
    assert all(row[1] == "not measured yet" for row in claims(results)[1:])
    assert bias_figure(results) is None
    assert efficiency_figure(results) is None
    assert "student" in students(results, {}, {})


def test_figures_show_what_was_found(tasks):
    rows = measured(**{"config": (44, 18), "labels-50": (42, 19), "frozen-clip": (45, 14), NO_TEACHERS: (40, 20)})
    results = Results(tasks, rows)
    axis = bias_figure(results).axes[0]
    assert axis.get_yticklabels()[0].get_text() == "frozen clip"
    shown = [text.get_text() for text in axis.texts]
    assert "+12.5" in shown  # of semseg under the frozen teacher: 45 over 40
    assert "labels 50" not in {label.get_text() for label in axis.get_yticklabels()}
    (line,) = [
        line
        for line in efficiency_figure(results).axes[0].lines
        if len(line.get_xdata()) == 2 and line.get_marker() == "o"
    ]
    assert list(line.get_xdata()) == [50, 100]
    assert list(line.get_ydata()) == pytest.approx([5, 10], abs=0.1)


# --- a whole one ----------------------------------------------------------------------------------------------------


@pytest.fixture
def forked(monkeypatch, processes):
    monkeypatch.setattr(jobs, "_start", lambda job, environment: Forked(processes.start_tool, job))


def test_what_is_finished_is_kept_when_the_user_stops(committee, tmp_path, capsys, monkeypatch):
    path, overrides = committee
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\n<!-- measured: results -->\noutdated\n<!-- end: results -->\n")

    def stopped(runner, jobs):
        raise KeyboardInterrupt("stopped")

    monkeypatch.setattr(sys, "path", [str(TOOL.parent), *sys.path])
    monkeypatch.setattr(study, "matched_steps", lambda *_: 5)
    monkeypatch.setattr(Reproduction, "_plan", lambda runner: "a plan")
    monkeypatch.setattr(Reproduction, "_run", stopped)
    monkeypatch.setattr(
        Reproduction, "measured", lambda runner, name, _: ({0: found(44, 18)}, {0: 60.0}) if name == SAK else ({}, {})
    )
    call = [str(path), *overrides, "--seeds", "0", "--factors", "paths", "--output", str(tmp_path / "out")]
    call += ["--page", str(page)]
    for finished in (False, True):
        monkeypatch.setattr(RunDirectory, "finished", finished)
        with pytest.raises(KeyboardInterrupt, match="stopped"):
            runpy.run_path(str(TOOL))["main"](call)
        assert ("outdated" in page.read_text()) is not finished
    student = r"\| SAK +\| +1 \| +44\.00 \| +18\.00 \|"
    assert re.search(student, page.read_text())

    # To a page that does not exist yet, under a name of one's own.
    beside = tmp_path / "beside.md"
    call = [*call[:-3], str(tmp_path / "short"), "--page", str(beside), "--section", "short_runs"]
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        runpy.run_path(str(TOOL))["main"](call)
    assert beside.read_text().startswith("# beside\n\n## short_runs\n\n<!-- measured: short_runs -->\n")
    assert re.search(student, beside.read_text())


@pytest.mark.slow
def test_a_whole_reproduction_goes_on_and_keeps_its_page(committee, tmp_path, forked, capsys, monkeypatch):
    path, overrides = committee
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\nBy hand.\n\n<!-- measured: results -->\noutdated\n<!-- end: results -->\n\nBelow.\n")
    monkeypatch.setattr(sys, "path", [str(TOOL.parent), *sys.path])
    overrides = [*overrides, "stages.multitask.batch_size=1"]
    call = [str(path), *overrides, "--seeds", "0", "--output", str(tmp_path / "out"), "--page", str(page)]
    runpy.run_path(str(TOOL))["main"](call)
    assert "0 finished" in capsys.readouterr().out
    text = page.read_text()
    assert "outdated" not in text
    assert text.startswith("# Results\n\nBy hand.")
    assert text.endswith("Below.\n")
    assert "one seed: not decided" in text
    for picture in re.findall(r"\((figures/\w+\.png)\)", text):
        assert (tmp_path / picture).is_file()
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"config", SINGLE_TASK, NO_TEACHERS, "frozen-clip", "labels-25"} < set(kept)
    before = (tmp_path / "out" / "results.md").read_text()
    runpy.run_path(str(TOOL))["main"](call)
    assert " 0 to do" in capsys.readouterr().out
    assert (tmp_path / "out" / "results.md").read_text() == before
