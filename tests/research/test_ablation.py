"""Ablations: which runs they are, that they go on after any end, and what their tables hold."""

import csv
import json
import os
import re
import runpy
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

import pytest
from accelerate import Accelerator

from sak import cli, config, data
from sak.bundles.build import build_tasks
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.evaluation.masking import MaskedStudents
from sak.evaluation.subject import open_subject
from sak.metrics.delta_m import delta_m
from sak.research.ablation import jobs, report
from sak.research.ablation.ablate import AblationRunner
from sak.research.ablation.cost import Timing, duration, evaluations_of, mean_timing, steps_of, timing, trial_of
from sak.research.ablation.figure import figure
from sak.research.ablation.jobs import Job, last_line, run_jobs
from sak.research.ablation.report import Row, Table
from sak.research.ablation.variants import CONFIG, Ablation, all_variants, parse_seeds, parse_subsets
from sak.research.selection.game import MaskedGame
from sak.tasks import TASKS, headlines
from sak.training.tracking import read_scalars

SHORT = [f"stages.{stage}.steps=1" for stage in ("distill", "multitask")]
TOOL = Path(__file__).parents[2] / "tools" / "ablate_teachers.py"
COMMITTEE = ["dinov2", "clip", "sam"]


class Forked:
    """A forked command: to `run_jobs` what a Popen is, but quicker."""

    def __init__(self, start_tool, job):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self.returncode = None
        self.pid = start_tool(job.command[1:], job.log)
        (job.log.parent / f"{job.name}.pid").write_text(str(self.pid))

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@pytest.fixture
def committee(tiny):
    """The tiny experiment with two teachers and two tasks."""
    text = tiny.read_text().replace("human_parts, saliency, normals, edge", "normals")
    start, end = text.index("  dinov2:\n"), text.index("stages:")
    other = text[start:end].replace("  dinov2:", "  clip:").replace("embed_dim: 24", "embed_dim: 16")
    tiny.write_text(text[:end] + other + text[end:].replace("    evaluate_every: 2\n", ""))
    return tiny


@pytest.fixture
def forked(monkeypatch, processes):
    monkeypatch.setattr(jobs, "_start", lambda job, environment: Forked(processes.start_tool, job))


def ablate(*arguments):
    """The tool itself; 0, or its exit code."""
    try:
        cli.run(lambda _: runpy.run_path(str(TOOL))["main"](list(map(str, arguments))))
    except SystemExit as end:
        return end.code
    return 0


def wait_for(file):
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline, file
        time.sleep(0.005)


def content(output):
    """The table without what depends on the machine's speed."""
    found = json.loads((output / "ablation.json").read_text())
    for row in found["rows"]:
        row.pop("training_seconds")
    with open(output / "ablation.csv") as file:
        return found, [row[:-3] for row in csv.reader(file)]


# --- which runs they are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("single", ["dinov2", "clip", "sam"]),
        ("leave-one-out", ["dinov2+clip", "dinov2+sam", "clip+sam"]),
        ("all", ["dinov2", "clip", "sam", "dinov2+clip", "dinov2+sam", "clip+sam", "dinov2+clip+sam"]),
        ("sam+dinov2,clip", ["dinov2+sam", "clip"]),
        ("clip,single,none,none", ["clip", "dinov2", "sam", ""]),
    ],
)
def test_subsets(text, expected):
    assert ["+".join(subset) for subset in parse_subsets(text, COMMITTEE)] == expected


def test_an_unknown_subset_names_the_nearest():
    with pytest.raises(UserError, match=r"'dinov3' is no teacher.*the nearest is dinov2"):
        parse_subsets("clip+dinov3", COMMITTEE)
    with pytest.raises(UserError, match=r"'leave-one' is no teacher.*the nearest is leave-one-out"):
        parse_subsets("leave-one", COMMITTEE)
    with pytest.raises(UserError, match="no teachers to take subsets of"):
        parse_subsets("all", [])


def test_factors_vary_one_at_a_time_or_as_a_grid(committee):
    names = ["dinov2", "clip"]
    factors = {"router": "mor,sum", "loss": "l2", "student.noisy_gating": "false"}
    ablation = Ablation(committee, ["seed=5"], all_variants(names, "all", factors), [0, 3])
    assert [variant.name for variant in ablation.variants] == [
        CONFIG, "dinov2", "clip", "router=sum", "loss=l2", "student.noisy_gating=false",
    ]  # fmt: skip
    assert len(ablation.runs) == 12
    run = ablation.of("loss=l2")[1]
    assert (run.name, run.config.seed, run.directory.path.name) == ("loss=l2-seed3", 3, "loss=l2-seed3")
    assert {run.config.stages[stage].loss for stage in STAGES} == {"l2"}
    assert list(ablation.of("clip")[0].config.teachers) == ["clip"]

    grid = Ablation(committee, [], all_variants(names, "all,none", {"router": "mor,sum"}, grid=True), [0])
    assert len(grid.variants) == 4 * 2  # the config itself among them
    both = grid.of("clip,router=sum")[0].config
    assert (list(both.teachers), both.student.router) == (["clip"], "sum")
    stem = grid.of("none,router=mor")[0].config
    assert (len(stem.teachers), stem.stages.distill.steps) == (0, 0)


def test_scales_are_those_of_all_teachers(committee):
    ablation = Ablation(committee, [], all_variants(["dinov2", "clip"], None, {"scales": "[1],[1,2]"}), [0])
    assert [variant.name for variant in ablation.variants] == [CONFIG, "scales=[1,2]"]
    assert {tuple(teacher.scales) for teacher in ablation.runs[1].config.teachers.values()} == {(1, 2)}
    with pytest.raises(UserError, match="there are no teachers"):
        all_variants([], None, {"scales": "[1,2]"})


def test_a_variant_or_baseline_that_makes_no_sense_is_refused(committee):
    with pytest.raises(UserError, match=r"'router=some'.*none of the variants config, router=sum; the nearest is rou"):
        Ablation(committee, [], all_variants([], None, {"router": "sum"}), [0], baseline="router=some")
    with pytest.raises(UserError, match=r"unknown key student.rooter; the nearest known key is student.router"):
        Ablation(committee, [], all_variants([], None, {"student.rooter": "sum"}), [0])
    with pytest.raises(UserError, match="seeds are 1, 1"):
        Ablation(committee, [], [], [1, 1])
    with pytest.raises(UserError, match="no metrics to compare"):
        Ablation(committee, ["stages.multitask.steps=0"], [], [0])
    assert Ablation(committee, [], [], [0], baseline="dinov2+clip").baseline == CONFIG


def test_a_run_of_another_experiment_is_not_taken_for_this_one(committee, tmp_path):
    ablation = Ablation(committee, [], [], [0], output=tmp_path / "out")
    directory = ablation.runs[0].directory
    directory.path.mkdir(parents=True)
    config.save(ablation.runs[0].config, directory.config_file)
    Ablation(committee, [], [], [0], output=tmp_path / "out")
    with pytest.raises(UserError, match=r"different experiment: student.adapter_ratio is 4 there and 2 here"):
        Ablation(committee, ["student.adapter_ratio=2"], [], [0], output=tmp_path / "out")


def test_bad_command_lines(committee, capsys, tmp_path):
    for arguments, sentence in {
        (committee, "--subsets", "dinov"): "'dinov' is no teacher",
        (committee, "--kinds", "mask"): "knows only retrained and masked",
        (committee, "--kinds", "masked"): "needs --subsets",
        (committee, "--seeds", "one"): "must be numbers",
        (committee, "--vary", "student.router"): "is not of the form KEY=VALUE,VALUE",
        (committee, "--routers", "sum", "--baseline", "best"): "none of the variants",
        (tmp_path / "nothing.yaml",): "no config file",
        (tmp_path,): "is no config: give one, or a run or bundle and --select",
        (tmp_path / "run", "--select"): "is no run directory",
    }.items():
        assert ablate(*arguments) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert sentence in error
        assert "\n" not in error


def names_of(committee, *variants, **more):
    ablation = Ablation(committee, [], all_variants(["dinov2", "clip"], *variants), [0], **more)
    return [variant.name for variant in ablation.variants]


def test_variants_that_come_to_the_same_are_trained_once(committee):
    twice = {"router": "sum,mor", "student.router": "sum,equal", "student.adapter_ratio": "4,2"}
    assert names_of(committee, None, twice) == [CONFIG, "router=sum", "student.router=equal", "student.adapter_ratio=2"]
    assert names_of(committee, "all,dinov2+clip,clip+dinov2", {}) == [CONFIG, "dinov2", "clip"]
    assert names_of(committee, None, {"router": "sum,sum"}) == [CONFIG, "router=sum"]
    same = all_variants(["dinov2", "clip"], None, {"router": "sum", "student.router": "sum"})
    assert Ablation(committee, [], same, [0], baseline="student.router=sum").baseline == "router=sum"


def test_values_may_be_lists(committee):
    factors = {
        "data.tasks": "[semseg],[semseg,normals],[normals]",
        "student.stem_options": "{depth: 6,embed_dim: 32}",
    }
    ablation = Ablation(committee, [], all_variants([], None, factors), [0])
    tasks = [list(run.config.data.tasks) for run in ablation.runs]
    assert tasks[:3] == [["semseg", "normals"], ["semseg"], ["normals"]]  # the middle one is the config itself
    assert ablation.runs[3].config.student.stem_options.depth == 6


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        ({"stages.multitask.steps": "0,4"}, "stages.multitask.steps=0 leaves out the second stage"),
        ({"seed": "1,2"}, "give the seeds with --seeds"),
        ({"name": "a,b"}, "each run is named by its variant and seed"),
        ({"output": "a,b"}, "give the ablation's directory with --output"),
        ({"router": ""}, "the list of values of router is ''"),
        ({"router": "sum, ,mor"}, "must be values with commas between them"),
        ({"student.weights": "a/b,a_b"}, "which no other run has"),
        ({"student.stem": "x" * 220}, "at most 200 bytes"),
    ],
)
def test_variants_that_cannot_be(committee, factors, sentence):
    with pytest.raises(UserError) as error:
        Ablation(committee, [], all_variants(["dinov2", "clip"], None, factors), [0])
    assert sentence in str(error.value)


def test_seeds_are_numbers():
    assert parse_seeds("0, 7,12") == [0, 7, 12]
    for text in ("", "0,", "x", "-1", "1.5", "9" * 30, "0,,1"):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(text)


# --- what it writes to ------------------------------------------------------------------------------------------------


def test_nothing_of_somebody_else_is_touched(committee, tmp_path, capsys):
    """Neither a directory that is no ablation's, nor a `trial` in one, be it a file, a folder or a run."""
    thesis, own = tmp_path / "thesis", tmp_path / "own"
    (thesis / "trial").mkdir(parents=True)
    (thesis / "trial" / "notes.txt").write_text("years of work")
    settings = config.load(committee, ["name=trial", f"output={own}"])
    config.save(settings, own / "configs" / "config-seed0.yaml")
    for make in (
        lambda: (own / "trial").write_text("a file"),
        lambda: ((own / "trial").mkdir(), (own / "trial" / "notes.txt").write_text("years of work")),
        lambda: config.save(settings, own / "trial" / "config.yaml"),
    ):
        make()
        for output, sentence in ((thesis, "is not empty and holds no ablation"), (own, "own/trial is in the way")):
            before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            assert ablate(committee, "--dry-run", "--output", output) == 2
            assert sentence in capsys.readouterr().err
            assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        (own / "trial").unlink() if (own / "trial").is_file() else shutil.rmtree(own / "trial")


@pytest.mark.slow
def test_its_own_trial_of_another_config_is_replaced(committee, forked, tmp_path):
    out = tmp_path / "out"
    assert ablate(committee, *SHORT, "--dry-run", "--output", out) == 0
    assert ablate(committee, *SHORT, "student.adapter_ratio=2", "--dry-run", "--output", out) == 0
    assert config.load(out / "trial" / "config.yaml").student.adapter_ratio == 2


@pytest.mark.slow
def test_a_precision_that_the_machine_chose_is_no_other_experiment(committee, forked, tmp_path, capsys):
    """The runs keep bf16 or fp32, where the config asks for the faster one."""
    arguments = [committee, *SHORT, "precision=auto", "--subsets", "clip", "--output", tmp_path / "out"]
    assert ablate(*arguments, "--dry-run") == 0
    assert ablate(*arguments) == 0
    assert config.load(tmp_path / "out" / "runs" / "config-seed0" / "config.yaml").precision in ("fp32", "bf16")
    capsys.readouterr()
    assert ablate(*arguments) == 0
    assert "and 0 to do" in capsys.readouterr().out
    assert ablate(*arguments, "precision=fp16") == 2
    assert "precision is " in capsys.readouterr().err


def test_a_night_between_two_starts_is_no_part_of_what_a_run_costs(trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "runs" / "tiny"))
    settings = config.load(trained / "config.yaml", [f"output={tmp_path / 'runs'}"])
    last = read_scalars(run / "events")["multitask/learning_rate"][-1].time
    os.utime(run / "environment.json", (last - 30, last - 30))
    os.utime(run / "metrics.json", (last + 7, last + 7))
    assert timing(settings).rest == pytest.approx(7, abs=0.01)
    night = last + 30_000  # killed while it evaluated, and started again in the morning
    os.utime(run / "environment.json", (night, night))
    os.utime(run / "metrics.json", (night + 9, night + 9))
    assert timing(settings).rest == pytest.approx(9, abs=0.01)
    shutil.rmtree(run / "events")
    with pytest.raises(UserError, match="events is gone, so that the run's cost is unknown"):
        timing(settings)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_time_of_a_run_is_that_of_its_steps_and_evaluations(committee, trained):
    settings = config.load(committee, ["stages.multitask.evaluate_every=2"])
    assert steps_of(settings) == {"distill": 3, "multitask": 4}
    assert evaluations_of(settings, {"multitask": 4}) == 2  # after steps 2 and 4
    assert evaluations_of(settings, {"multitask": 5}) == 3
    epochs = config.load(committee, ["stages.multitask.steps=null", "stages.multitask.epochs=3"])
    images = len(data.build(settings.data, "train"))
    assert steps_of(epochs)["multitask"] == 3 * (images // 2)

    measured = Timing({"distill": 2.0, "multitask": 3.0}, rest=10.0)
    assert measured.training({"distill": 3, "multitask": 4}) == 18
    assert measured.whole({"multitask": 4}, evaluations=2) == 32
    assert mean_timing([measured, Timing({"distill": 4.0}, 20.0)]) == Timing({"distill": 3.0, "multitask": 3.0}, 15.0)
    found = timing(config.load(trained / "config.yaml"))
    assert set(found.step) == {"distill", "multitask"}
    assert all(0 < seconds < 60 for seconds in [*found.step.values(), found.rest])
    assert (duration(7), duration(90), duration(7500)) == ("7.0 s", "1.5 min", "2 h 05 min")


def test_a_trial_is_short_and_leaves_the_cache_alone(committee, tmp_path):
    overrides = ["cache.path=cache", "cache.views=2", "stages.multitask.steps=null", "stages.multitask.epochs=30"]
    trial = trial_of(config.load(committee, overrides), tmp_path)
    assert (trial.stages.distill.steps, trial.stages.multitask.steps) == (3, 10)
    assert (trial.stages.multitask.epochs, trial.cache.path) == (None, None)


def test_a_variant_takes_as_long_as_its_own_finished_runs(committee, tmp_path, monkeypatch):
    variants = all_variants(["dinov2", "clip"], "single", {})
    ablation = Ablation(committee, [], variants, [0, 1], output=tmp_path / "out")
    took = {"config-seed0": 9.0, "config-seed1": 11.0, "clip-seed1": 2.0}
    per_step = "sak.research.ablation.ablate.timing"
    monkeypatch.setattr(per_step, lambda config: Timing({"multitask": took[config.name]}, rest=0.0))
    for name in took:
        (tmp_path / "out" / "runs" / name).mkdir(parents=True)
        (tmp_path / "out" / "runs" / name / "metrics.json").write_text("{}")
    (tmp_path / "out" / "configs").mkdir()
    (tmp_path / "out" / "configs" / "config-seed0.yaml").write_text("")
    speeds, source = AblationRunner(ablation, (), 1, (), ())._speeds()
    assert {name: speed.step["multitask"] for name, speed in speeds.items()} == {CONFIG: 10, "clip": 2, "dinov2": 9}
    assert source == "3 finished runs, variants without any as the median of all"


def test_a_dry_run_plans_and_trains_nothing(committee, forked, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [committee, "--subsets", "all", "--kinds", "retrained,masked", "--seeds", "0,1", "--output", out]
    assert ablate(*arguments, "--jobs", 2, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "3 variants x 2 seeds = 6 runs, 0 finished and 6 to do, 2 at a time" in said
    assert "for 42 steps" in said
    assert "by a trial of 10 steps" in said
    assert re.search(r"\| clip +\| teachers \| +0\.\d\d \| 3 \+ 4 \| +0 of 2 \|", said)
    assert not (out / "runs").exists()
    assert (out / "trial" / "metrics.json").exists()


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_or_stopped_and_started_again_the_table_is_the_same(committee, forked, processes, tmp_path, capsys):
    arguments = [committee, "--subsets", "single,none", "--kinds", "retrained,masked", "--jobs", 2]
    arguments += [f"stages.distill.{each}" for each in ("steps=6", "checkpoint_every=1", "keep_last=6")] + ["--output"]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert ablate(*arguments, straight) == 0

    # Killed with one of its runs, while the other goes on alone.
    parent = processes.start_tool([TOOL, *arguments, broken], tmp_path / "parent.log")
    for name in ("config-seed0", "dinov2-seed0"):
        wait_for(broken / "runs" / name / "checkpoints" / "distill-0000001.pt")
    os.kill(parent, signal.SIGKILL)
    os.kill(int((broken / "logs" / "config-seed0.pid").read_text()), signal.SIGKILL)
    assert processes.end_of(parent) == -signal.SIGKILL
    assert not (broken / "runs" / "config-seed0" / "metrics.json").exists()
    assert not (broken / "ablation.json").exists()

    # Stopped: what it had started has written a checkpoint and ended before it does.
    parent = processes.start_tool([TOOL, *arguments, broken], tmp_path / "parent.log")
    wait_for(broken / "runs" / "clip-seed0" / "checkpoints" / "distill-0000001.pt")
    os.kill(parent, signal.SIGINT)
    assert processes.end_of(parent) == 130
    assert "the same command goes on from there" in last_line(tmp_path / "parent.log")
    logs = {file.stem: file.read_text() for file in (broken / "logs").glob("*.log")}
    assert "the same command goes on from there" in logs["clip-seed0"]
    # What has been finished by then is told, without the masked students, which would take long.
    told = json.loads((broken / "ablation.json").read_text())["rows"]
    assert {row["kind"] for row in told} == {"retrained"}
    assert any(row["metrics"] for row in told)

    assert ablate(*arguments, broken) == 0
    assert content(broken) == content(straight)
    assert "going on from" in (broken / "logs" / "config-seed0.log").read_text()
    assert "going on from" in (broken / "logs" / "clip-seed0.log").read_text()

    # What is finished is not done again, and says the same.
    before = (straight / "ablation.md").read_text()
    logs = {file: file.stat().st_mtime_ns for file in straight.glob("logs/*.log")}
    assert ablate(*arguments, straight) == 0
    assert "4 finished and 0 to do" in capsys.readouterr().out
    assert (straight / "ablation.md").read_text() == before
    assert {file: file.stat().st_mtime_ns for file in straight.glob("logs/*.log")} == logs
    check_table(straight, tmp_path)


def check_table(output, scratch):
    """Against the runs themselves, and a masked student that is evaluated by itself."""
    found, _ = content(output)
    rows = {(row["kind"], row["variant"]): row for row in found["rows"]}
    assert list(rows) == [
        *(("retrained", name) for name in (CONFIG, "dinov2", "clip", "none")),
        *(("masked", name) for name in ("dinov2", "clip", "none")),
    ]
    runs = {file.parent.name: json.loads(file.read_text()) for file in output.glob("runs/*/metrics.json")}
    base = {task: values for task, values in runs["config-seed0"].items() if next(iter(values.values()))}
    assert found["delta_m_tasks"] == list(base)
    for name in (CONFIG, "dinov2", "clip", "none"):
        metrics, row = runs[f"{name}-seed0"], rows["retrained", name]
        assert row["metrics"]["normals"]["mean_error"] == {
            "mean": metrics["normals"]["mean_error"], "std": None, "ci95": None,
            "values": [metrics["normals"]["mean_error"]],
        }  # fmt: skip
        assert row["delta_m"]["mean"] == pytest.approx(
            delta_m({task: metrics[task] for task in base}, base, headlines(TASKS))
        )
    subject = open_subject(str(output / "runs" / "config-seed0"))
    assert rows["retrained", CONFIG]["parameters"] == sum(p.numel() for p in subject.student.parameters())
    assert rows["retrained", "clip"]["parameters"] < rows["retrained", CONFIG]["parameters"]

    settings = config.load(output / "runs" / "config-seed0" / "config.yaml")
    tasks, images = build_tasks(settings.data), data.build(settings.data, "val")
    students = MaskedStudents(subject, tasks, images, Accelerator(), scratch / "masked.json")
    (alone,) = students.metrics([["dinov2"]])
    masked = rows["masked", "clip"]["metrics"]
    assert {task: {m: found["mean"] for m, found in each.items()} for task, each in masked.items()} == alone
    text = (output / "ablation.md").read_text()
    assert text.index("## Retrained") < text.index("## Masked")
    assert (output / "ablation.png").stat().st_size > 5000


def test_one_that_fails_does_not_keep_the_others(committee, forked, tmp_path, capsys):
    """At a learning rate that is no number, the second stage diverges."""
    out = tmp_path / "out"
    assert ablate(committee, "--vary", "stages.multitask.optim.lr=1e30", "stages.multitask.optim.clip=null",
                  "--output", out) == 2  # fmt: skip
    captured = capsys.readouterr()
    assert "1 of 2 runs failed, as stages.multitask.optim.lr=1e30-seed0" in captured.err
    found, _ = content(out)
    assert [row["variant"] for row in found["rows"]] == [CONFIG]
    assert list(found["failed"]) == ["stages.multitask.optim.lr=1e30-seed0"]


def test_a_trial_that_fails_ends_it_with_its_sentence(committee, forked, tmp_path, capsys):
    assert ablate(committee, "data.root=/nowhere", "--output", tmp_path / "out") == 2
    assert "the trial run failed: error: " in capsys.readouterr().err


def test_the_features_are_computed_once_for_all_runs_of_a_seed(committee, forked, tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "out"
    arguments = [committee, f"cache.path={cache}", "cache.views=1", *SHORT, "--subsets", "dinov2", "--output", out]
    assert ablate(*arguments) == 0
    assert sum(path.is_dir() for path in (cache / "distill").iterdir()) == 2  # one for each teacher
    assert "features" in (out / "logs" / "features-seed0.log").read_text()
    for name in ("config", "dinov2"):
        assert "features computed: dinov2 0" in (out / "logs" / f"{name}-seed0.log").read_text()


def test_jobs_run_side_by_side_each_with_its_own_variables(tmp_path):
    """Two that wait for each other, and one after them."""
    from tqdm import tqdm

    script = tmp_path / "job.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "own, other = map(pathlib.Path, sys.argv[1:3])\n"
        "own.write_text(os.environ['SLOT'])\n"
        "while not other.exists(): time.sleep(0.01)\n"
        "print('at work: 40%\\r\\nlast words')\n"
        "sys.exit(int(sys.argv[3]))\n"
    )
    files = [tmp_path / name for name in "abc"]
    jobs = [
        Job(own.name, [sys.executable, str(script), str(own), str(other), code], tmp_path / f"{own.name}.log")
        for own, other, code in zip(files, [files[1], files[0], files[0]], "003", strict=True)
    ]
    with tqdm(total=3, disable=True) as progress:
        assert run_jobs(jobs, [{"SLOT": "0"}, {"SLOT": "1"}], progress) == {"c": "last words"}
    assert [file.read_text() for file in files[:2]] == ["0", "1"]


# --- tables -----------------------------------------------------------------------------------------------------------


def row_of(kind, variant, values, **more):
    metrics = {seed: {"semseg": {"miou": a}, "normals": {"mean_error": b}} for seed, (a, b) in enumerate(values)}
    return Row(kind, variant, "teachers", None, metrics, 2_500_000, **more)


@pytest.fixture
def table(committee):
    tasks = build_tasks(config.load(committee).data)
    rows = [
        row_of("retrained", CONFIG, [(20, 30), (22, 32)], seconds={0: 60.0, 1: 120.0}),
        row_of("retrained", "clip", [(10.5, 31), (10.5, 31)], seconds={0: 30.0, 1: 30.0}),
        row_of("masked", "clip", [(0, 62), (0, 31)]),
        row_of("retrained", "unfinished", []),
    ]
    return Table("tiny", tasks, CONFIG, rows)


def test_delta_m_is_against_the_mean_of_the_baseline(table):
    rows = {(row["kind"], row["variant"]): row for row in report.as_json(table)["rows"]}
    assert ("retrained", "unfinished") not in rows
    assert rows["retrained", CONFIG]["delta_m"]["mean"] == pytest.approx(0, abs=1e-12)
    assert rows["retrained", CONFIG]["delta_m"]["std"] > 0
    assert rows["retrained", "clip"]["delta_m"] == {"mean": -25, "std": 0, "ci95": 0, "values": [-25, -25]}
    masked = rows["masked", "clip"]["delta_m"]
    assert masked["values"] == pytest.approx([-100, -50])
    assert masked["std"] == pytest.approx(statistics.stdev([-100, -50]))
    assert masked["ci95"] == pytest.approx(12.706 * masked["std"] / 2**0.5, rel=1e-4)


def test_paired_gains_compare_runs_of_one_seed(table):
    """The baseline's means are 21 and 31: its runs have -1/21 and +1/31 of these, and the opposite."""
    half = (1 / 21 - 1 / 31) / 2 * 100
    assert table.paired_gains(table.rows[0]) == [0, 0]
    assert table.paired_gains(table.rows[1]) == pytest.approx([-25 + half, -25 - half])
    del table.rows[0].metrics[1]  # of which there is no partner then; the mean is now that of seed 0
    assert table.paired_gains(table.rows[1]) == pytest.approx(table.gains(table.rows[1])[:1])
    row = report.as_json(table)["rows"][1]
    assert row["delta_m_paired"]["values"] == table.paired_gains(table.rows[1])


def test_one_seed_needs_no_pairs(table):
    for row in table.rows:
        row.metrics.pop(1, None), row.seconds.pop(1, None)
    text = report.console(table)
    assert "paired" not in text.lower()
    assert "±" not in text
    assert "no difference is a finding" in text


def test_the_tables_keep_the_kinds_apart(table):
    text = report.as_markdown(table)
    retrained, masked = text.split("## Masked")
    assert re.search(
        r"\| clip +\| retrained \| +2 \| +10\.50 ± 0\.00 \| +31\.00 ± 0\.00 \| +-25\.00 ± 0\.00 ", retrained
    )
    assert "masked" not in retrained.split("| variant")[1]
    cells = [cell.strip() for cell in next(line for line in masked.splitlines() if "clip" in line).split("|")[1:-1]]
    assert cells == [
        *("clip", "masked", "2", "0.00 ± 0.00", "46.50 ± 196.95"),  # 12.706 · 21.92 / √2
        *("-75.00 ± 317.66", "-75.00 ± 307.90", "none", "2.50", "–"),
    ]
    assert "half of the 95 % confidence interval of the mean over seeds" in text
    lines = list(csv.reader(report.as_csv(table).splitlines()))
    assert [line[:2] for line in lines[1:]] == [["retrained", CONFIG], ["retrained", "clip"], ["masked", "clip"]]
    found = dict(zip(lines[0], lines[2], strict=True))
    assert (found["delta_m mean"], found["finding"]) == ("-25.0", "worse")
    assert {"delta_m_paired std", "delta_m_paired ci95"} <= found.keys()


def test_a_task_at_which_the_baseline_fails_is_left_out_of_delta_m(table):
    for metrics in table.rows[0].metrics.values():
        metrics["semseg"]["miou"] = 0.0
    assert list(table.reference) == ["normals"]
    assert table.gains(table.rows[1]) == pytest.approx([0, 0])
    assert "semseg are not in Δm" in report.as_markdown(table)
    table.rows[0].metrics.clear()
    assert table.reference is None
    assert "No Δm" in report.as_markdown(table)
    figure(table)


def test_a_difference_is_a_finding_where_pairs_leave_out_0(table):
    found = {(row["kind"], row["variant"]): row["finding"] for row in report.as_json(table)["rows"]}
    # clip loses 25 + (±0.77); masked, 75 ± 308.
    assert found == {("retrained", CONFIG): None, ("retrained", "clip"): "worse", ("masked", "clip"): "none"}
    drawn = figure(table)
    gains = {axis.get_title(): axis for axis in drawn.axes}["Δm, %\nin pairs of one seed"]
    points = [bars.lines[0] for bars in gains.containers]
    assert [(line.get_ydata()[0], line.get_alpha()) for line in points] == [(0, 1), (1, 1), (2.6, 0.35)]
    bars = [bars.lines[2][0].get_segments()[0] for bars in gains.containers]
    half = statistics.stdev(table.paired_gains(table.rows[1])) * 12.706 / 2**0.5
    assert bars[1][:, 0] == pytest.approx([-25 - half, -25 + half], rel=1e-3)
    assert [axis.get_title() for axis in drawn.axes[1:]] == ["semseg ↑\nmiou, %", "normals ↓\nmean_error, degrees"]


def test_names_are_as_short_as_they_can_be_told_apart(table):
    names = {
        "config": "config",
        "dinov2+clip": "dinov2+clip",
        "stages.multitask.balance=0.01": "balance=0.01",
        "stages.distill.optim.lr=1e-3": "distill.optim.lr=1e-3",
        "stages.multitask.optim.lr=1e-3": "multitask.optim.lr=1e-3",
        "student.router_temperature=0.5": "router_temperature=0.5",
        "clip,stages.distill.crop_scale=[0.1,0.9]": "clip,crop_scale=[0.1,0.9]",
    }
    table.rows = [row_of("retrained", name, [(20, 30), (22, 32)]) for name in names]
    assert report.short_names(table) == names
    text = report.as_markdown(table)
    assert "| balance=0.01 " in text
    assert "`balance=0.01` is stages.multitask.balance=0.01" in text
    assert "balance=0.01" in [label.get_text() for label in figure(table).axes[0].get_yticklabels()]
    assert [row["variant"] for row in report.as_json(table)["rows"]] == list(names)


# --- masked students and the selection --------------------------------------------------------------------------------


def test_a_coalition_is_worth_what_the_student_masked_to_it_is(committee, trained, tmp_path):
    subject = open_subject(str(trained))
    tasks, images = build_tasks(config.load(committee).data), data.build(subject.data, "val")
    students = MaskedStudents(subject, tasks, images, Accelerator(), tmp_path / "kept.json")
    none, everyone = students.metrics([["dinov2"], []])
    both = [frozenset(), frozenset({"dinov2"})]
    game = MaskedGame(students, "normals.mean_error")
    assert game(both) == [-none["normals"]["mean_error"], -everyone["normals"]["mean_error"]]  # less is better
    assert MaskedGame(students, "semseg.miou")(both) == [none["semseg"]["miou"], everyone["semseg"]["miou"]]


def faulty(archive):
    (image,) = archive.glob(f"JPEGImages/{(archive / 'ImageSets/Context/val.txt').read_text().split()[0]}.jpg")
    image.write_bytes(b"no picture")


@pytest.mark.slow
def test_a_faulty_image_costs_no_table(committee, archive, forked, tmp_path, capsys):
    """What was retrained is written before masking begins; and a run that may skip is masked with the same licence."""
    out = tmp_path / "out"
    arguments = [committee, f"data.root={archive}", *SHORT, "--subsets", "dinov2", "--output", out]
    assert ablate(*arguments) == 0
    before, _ = content(out)
    faulty(archive)
    assert ablate(*arguments, "--kinds", "retrained,masked") == 2
    assert "corrupt" in capsys.readouterr().err
    after, _ = content(out)
    assert after == before
    skipping = ["data.on_error=skip", "data.max_skipped=0.5"]
    for directory in (out / "runs").glob("config-*"):
        config.save(config.load(directory / "config.yaml", skipping), directory / "config.yaml")
    assert ablate(*arguments, *skipping, "--kinds", "retrained,masked") == 0
    found, _ = content(out)
    assert [row["kind"] for row in found["rows"]] == ["retrained", "retrained", "masked"]
    assert "val\t0\t" in (out / "masked" / "config-seed0.skipped.txt").read_text()


def test_that_there_is_no_relative_gain_is_told_before_the_long_part(trained, tmp_path, monkeypatch):
    subject = open_subject(str(trained))
    images = data.build(subject.data, "val")
    students = MaskedStudents(subject, build_tasks(subject.data), images, Accelerator(), tmp_path / "kept.json")
    asked = []

    def measured(group):
        asked.extend(group)
        zero = {task: dict.fromkeys(found.measures, 0.0) for task, found in students.tasks.items()}
        return dict.fromkeys(group, zero)

    monkeypatch.setattr(students, "_evaluate", measured)
    with pytest.raises(UserError, match="is 0, so no relative gain exists"):
        MaskedGame(students, "delta_m")
    assert asked == ["nothing"]


@pytest.mark.slow
def test_selection_by_the_tool_and_against_retrained_students(committee, forked, tmp_path, capsys):
    out = tmp_path / "out"
    assert ablate(committee, "--subsets", "all,none", "--select", "--value", "normals.mean_error", "--seeds", "0,1",
                  "stages.multitask.evaluate_every=null", *SHORT, "--output", out) == 0  # fmt: skip
    found = json.loads((out / "selection" / "selection.json").read_text())
    values = found["shapley"]["values"]
    assert sum(values.values()) == pytest.approx(found["all"] - found["none"], abs=1e-9)
    assert all(len(each) == 2 for each in found["of_students"].values())
    assert all(statistics.fmean(found["of_students"][name]) == pytest.approx(values[name]) for name in values)
    for name, over in found["over_students"].items():
        one, other = found["of_students"][name]
        assert over["ci95"] == pytest.approx(12.706 * abs(one - other) / 2, rel=1e-4)
    assert [statistics.fmean(step) for step in found["greedy_of_students"]] == pytest.approx(
        [found["none"], *(value for _, value in found["greedy"])]
    )
    assert found["label"] == "-normals.mean_error, degrees"
    rows = {row["variant"]: row for row in json.loads((out / "ablation.json").read_text())["rows"]}
    assert set(found["pairs"]) == {"none", "dinov2", "clip", "dinov2+clip"}
    assert found["pairs"]["clip"][1] == -rows["clip"]["metrics"]["normals"]["mean_error"]["mean"]
    assert found["pairs"]["dinov2+clip"][0] == pytest.approx(found["all"])
    retrained = found["pairs"]["dinov2+clip"][1] - found["pairs"]["none"][1]
    assert sum(found["retrained"].values()) == pytest.approx(retrained, abs=1e-9)
    assert "over n = 4 subsets" in capsys.readouterr().out
    assert (out / "selection" / "selection.png").stat().st_size > 5000

    # Of one of the runs, with a part of the images; it finds the ablation that it belongs to.
    run = out / "runs" / "config-seed0"
    images = len(data.build(open_subject(str(run)).data, "val"))
    assert ablate(run, "--select", "--value", "normals.mean_error", "--images", images - 1) == 0
    single = json.loads((run / "selection" / "selection.json").read_text())
    assert (single["images"], len(single["pairs"])) == (images - 1, 4)
    assert single["of_students"] == {name: [value] for name, value in single["shapley"]["values"].items()}
    for value, sentence in {"best": "delta_m or one of semseg.miou", "edge.ods_f": "delta_m or one of"}.items():
        assert ablate(run, "--select", "--value", value) == 2
        assert sentence in capsys.readouterr().err
    assert ablate(run, "--select", "--images", 1000) == 2
    assert "validation images: choose 1 to that many" in capsys.readouterr().err
    assert ablate(run, "seed=1", "--select") == 2
    assert "seed=1 overrides nothing" in capsys.readouterr().err
    (run / "student" / "config.json").rename(run / "student" / "aside.json")
    assert ablate(run, "--select") == 2
    assert "is unfinished" in capsys.readouterr().err
    # The stem alone has nothing to choose among.
    assert ablate(out / "runs" / "none-seed0", "--select") == 2
    assert "no teacher can be knocked out" in capsys.readouterr().err
