"""The comparison of ways to use a frozen backbone."""

import json
import math

import pytest

from sak import config
from sak.metrics.interval import half_width
from sak.research.ablation.report import RETRAINED, Row, Table
from sak.research.adaptation import report
from sak.research.adaptation.compare import ALL, Comparison, variants
from sak.research.adaptation.cost import Cost, Step, _measured
from sak.research.adaptation.figure import PANELS, figure, pareto
from sak.tasks import TaskDescription, build

OVERRIDES = [
    "stages.distill.steps=0",
    "stages.multitask.steps=1",
    "stages.multitask.evaluate_every=null",
    "stages.multitask.method=linear",
    "data.tasks=[semseg]",
    "adaptation.backbone=dinov2",
    "adaptation.rank=4",
]


@pytest.mark.slow
def test_one_command_and_the_same_again(tiny, call_tool, tmp_path, monkeypatch, trained):
    output = tmp_path / "comparison"
    command = ["compare_adaptation", tiny, *OVERRIDES, "--methods", "linear,losa", "--seeds", "0,1", "--steps", "1"]
    command += ["--student", trained, "--set", "losa:stages.multitask.optim.lr=5e-4", "--output", output]
    code, out, errors = call_tool(*command)
    assert (code, errors) == (0, [])
    found = json.loads((output / "comparison.json").read_text())
    rows = {row["variant"]: row for row in found["rows"]}
    assert list(rows) == ["linear", "losa", "student"]
    metrics = [json.loads((output / "runs" / f"losa-seed{seed}" / "metrics.json").read_text()) for seed in (0, 1)]
    assert rows["losa"]["metrics"]["semseg"]["miou"]["values"] == [each["semseg"]["miou"] for each in metrics]
    assert rows["student"]["seeds"] == [0]
    assert "lr: 0.0005" in (output / "runs" / "losa-seed0" / "config.yaml").read_text()
    costs = {name: Cost.of(cost) for name, cost in found["costs"].items()}
    assert costs["student"].alone is None
    for cost in costs.values():
        assert cost.step.seconds > 0
        assert cost.step.peak > 1e8  # the libraries alone have more
    table = (output / "comparison.md").read_text()
    assert "| losa " in table
    assert table in out
    stamps = {file: file.stat().st_mtime_ns for file in output.rglob("metrics.json")}
    monkeypatch.setattr("sak.research.adaptation.compare.measured", None)  # nor is anything measured again
    code, _, errors = call_tool(*command)
    assert (code, errors) == (0, [])
    assert {file: file.stat().st_mtime_ns for file in output.rglob("metrics.json")} == stamps


@pytest.mark.slow
def test_the_weights_that_learn(tiny, tmp_path):
    """Beside the heads; and what of them learns with the features at hand."""

    def cost(method, *more):
        file = tmp_path / "cost.yaml"
        config.save(config.load(tiny, [*OVERRIDES, f"stages.multitask.method={method}", *more]), file)
        return _measured(file, 1, student=False)

    width, rank, side = 24, 4, 6
    losa, wide, lora = cost("losa"), cost("losa", "teachers.dinov2.scales=[1,2]"), cost("lora")
    assert cost("linear").trained == 0
    assert losa.trained == 4 * (2 * width + 2 * rank * width + 2 * 2 * rank * side)
    assert wide.trained == 4 * (2 * 2 * width + 2 * rank * 2 * width + 2 * 2 * rank * side)
    assert lora.trained == 4 * rank * 4 * width
    assert losa.backbone == lora.backbone == cost("full").backbone
    assert losa.cached is not None
    assert lora.cached is None
    assert lora.cached_alone is None


def test_all_methods_are_variants_of_the_config():
    found = variants(ALL, "dinov2", "1,2,3", ["full:seed=3"])
    assert [variant.name for variant in found] == list(ALL)
    assert found[3].overrides == ("stages.multitask.method=losa", "teachers.dinov2.scales=[1,2,3]")
    assert found[-1].overrides[-1] == "seed=3"


def step(seconds, megabytes):
    return Step(seconds, megabytes * 10**6)


def a_table():
    tasks = {"semseg": build("semseg", TaskDescription(channels=3, classes=["a", "b", "c"]))}
    values = {"linear": (20.0, 22.0), "losa": (24.0, 27.0), "lora": (23.0, 23.0)}
    rows = [
        Row(RETRAINED, name, "method", None, {s: {"semseg": {"miou": v}} for s, v in enumerate(each)}, 0)
        for name, each in values.items()
    ]
    costs = {
        "linear": Cost(10, 0, 1000, step(1, 100), step(0.5, 50), step(0.5, 60), step(0, 40)),
        "losa": Cost(10, 20, 1000, step(1.2, 120), step(0.7, 60), step(0.6, 70), step(0.1, 45)),
        "lora": Cost(10, 40, 1000, step(2, 300), step(1.5, 200)),
    }
    return Table("test", tasks, "linear", rows), costs


def test_the_table_worked_out_by_hand():
    table, costs = a_table()
    text = report.as_markdown(table, costs, 5)
    losa = next(line for line in text.splitlines() if line.startswith("| losa"))
    gains = [100 * (24 - 21) / 21, 100 * (27 - 21) / 21]
    assert f"{sum(gains) / 2:+.2f} ± {half_width(gains):.2f}" in losa
    cost = [line for line in text.splitlines() if line.startswith("| losa")][1]
    cells = [cell.strip() for cell in cost.split("|")[2:-1]]
    assert cells == ["20", "2.00", "1.200", "0.600", "120", "0.700", "0.100", "60"]
    assert [line for line in text.splitlines() if line.startswith("| lora")][1].count("–") == 2


def test_the_pareto_front():
    points = [(3, 5), (1, 1), (2, 4), (2, 3), (4, 5), (5, 4.9)]
    assert pareto(points) == [(1, 1), (2, 4), (3, 5)]
    assert pareto([(1, 1)]) == [(1, 1)]


def test_the_figure_shows_every_method_against_every_cost():
    table, costs = a_table()
    drawn = figure(table, costs)
    for axis, (_, cost_of) in zip(drawn.axes, PANELS, strict=True):
        handles, labels = axis.get_legend_handles_labels()
        places = {name: handle.lines[0].get_xdata()[0] for name, handle in zip(labels, handles, strict=True)}
        assert places.keys() == costs.keys()
        assert all(math.isclose(places[name], cost_of(cost)) for name, cost in costs.items())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "linear,prefix"], "--methods has 'prefix', but knows linear, linear_s2, losa"),
        (["--methods", "losa"], "--baseline is 'linear', which is none of the methods losa"),
        (["--set", "losa"], "--set losa is not of the form METHOD:KEY=VALUE"),
        (["--set", "prefix:seed=1"], "--set prefix:seed=1 is not of the form"),
        (["--seeds", "a"], "--seeds has 'a'"),
        (["--scales", "2,2"], "scales is [2, 2]"),
        (["--student", "nowhere"], "--student nowhere is no finished run"),
        (["stages.multitask.method=null"], "stages.multitask.method is null, but must be one of linear, losa"),
        (["adaptation.backbone=sam"], "adaptation.backbone is 'sam'"),
        (["--steps", "0"], "'0' is no whole number"),
    ],
)
def test_bad_input(tiny, call_tool, arguments, sentence, tmp_path):
    code, _, errors = call_tool("compare_adaptation", tiny, *OVERRIDES, *arguments)
    assert code == 2
    assert len(errors) == 1
    assert sentence in errors[0]
    assert not (tmp_path / "runs").exists()


def test_a_student_of_other_data(tiny, trained):
    with pytest.raises(Exception, match=r"has data.image_size=\[96, 96\], but the comparison \[64, 64\]"):
        Comparison(str(tiny), [*OVERRIDES, "data.image_size=[64,64]"], ["linear"], [0], students=[str(trained)])
    with pytest.raises(Exception, match="has no task depth"):
        Comparison(
            str(tiny), [*OVERRIDES, "data.tasks=[depth]", "data.dataset=nyud"], ["linear"], [0], students=[str(trained)]
        )
