"""The comparison of scales as tables and as a figure; `content` is what scales.json holds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sak import tables
from sak.metrics.delta_m import delta_m
from sak.metrics.interval import UNKNOWN, finding, half_width, plus_minus
from sak.tasks import Task, arrow, headlines

Tasks = Mapping[str, Task]


def gains(tasks: Tasks, content: Mapping) -> dict[str, list[float]]:
    """{view: Δm in percent against the small model at one scale, of each seed, paired}.

    A task that the small model fails at, with a metric of 0, is left out: there is no ratio to nothing.
    """
    base, known = content["metrics"][content["small"]], headlines(tasks)
    compared = {task: h for task, h in known.items() if all(found[task][h[0]] for found in base.values())}
    if not compared:
        return {view: [] for view in content["metrics"]}
    return {
        view: [
            delta_m({task: found[task] for task in compared}, base[seed], compared) for seed, found in by_seed.items()
        ]
        for view, by_seed in content["metrics"].items()
    }


def headline_values(tasks: Tasks, content: Mapping, view: str, task: str) -> list[float]:
    """Of each seed."""
    metric = tasks[task].headline()[0]
    return [found[task][metric] for found in content["metrics"][view].values()]


def metric_rows(tasks: Tasks, content: Mapping) -> list[list[str]]:
    large, base, gained = content["gflop"][content["large"]], content["gflop"][content["small"]], gains(tasks, content)
    header = ["view", "GFLOP", "of the large"]
    header += [f"{name} {task.headline()[0]} {arrow(task)}" for name, task in tasks.items()]
    rows = [[*header, "Δm", "Δm per GFLOP more", "finding"]]
    for view, operations in content["gflop"].items():
        own = view == content["small"]
        values = [plus_minus(headline_values(tasks, content, view, task), ".2f") for task in tasks]
        per = [gain / (operations - base) for gain in gained[view]] if operations > base else []
        tail = (
            ["–", "–", "–"]
            if own
            else [plus_minus(gained[view], "+.1f"), plus_minus(per, "+.1f"), finding(gained[view])]
        )
        rows.append([view, f"{operations:.3g}", f"{operations / large:.2f} ×", *values, *tail])
    return rows


def reconstruction_rows(content: Mapping) -> list[list[str]]:
    explained, ceiling = content["reconstruction"]["explained"], content["ceiling"]
    levels = len(next(iter(explained.values())))
    header = ["view", *(f"level {level + 1}, R² %" for level in range(levels))]
    rows = [header + ["last level, of the reachable %"] * bool(ceiling)]
    for view, values in explained.items():
        row = [view, *(f"{100 * value:.1f}" for value in values)]
        if ceiling:
            reachable = explained[ceiling][-1]
            row.append(f"{100 * values[-1] / reachable:.1f}" if reachable > 0 else UNKNOWN)
        rows.append(row)
    return rows


def halves(classes: Mapping) -> dict[str, list[int]]:
    """{what: places of the classes} of the rarer and the more frequent half, and the more and the less ambiguous."""
    order = np.argsort(classes["images"], kind="stable").tolist()
    middle = len(order) // 2
    found = {"rare": order[:middle], "frequent": order[middle:]}
    if classes["ambiguity"]:
        order = np.argsort(classes["ambiguity"], kind="stable").tolist()
        found |= {"ambiguous": order[middle:], "clear": order[:middle]}
    return found


def class_gains(content: Mapping, classes: Mapping, view: str) -> np.ndarray:
    """(seeds, classes): points of IoU above the small model at one scale, of the same seed."""
    ours, base = classes["iou"][view], classes["iou"][content["small"]]
    return np.array([np.subtract(ours[seed], base[seed]) for seed in ours])


def class_rows(content: Mapping, classes: Mapping) -> list[list[str]]:
    parts = {what: places for what, places in halves(classes).items() if places}
    rows = [["view", *(f"{what} ({len(places)})" for what, places in parts.items())]]
    base = np.array(list(classes["iou"][content["small"]].values()))
    rows.append([f"{content['small']}: IoU", *(f"{base[:, places].mean():.2f}" for places in parts.values())])
    for view in classes["iou"]:
        if view != content["small"]:
            gained = class_gains(content, classes, view)
            rows.append([view, *(plus_minus(gained[:, p].mean(1).tolist(), "+.2f") for p in parts.values())])
    return rows


def tables_of(tasks: Tasks, content: Mapping) -> str:
    small, large, ceiling = content["small"], content["large"], content["ceiling"]
    seeds = len(content["seeds"])
    reached = f" *Of the reachable*: divided by what {ceiling} explains." if ceiling else ""
    text = f"""{tables.markdown(metric_rows(tasks, content))}

Δm: against {small} with the same seed, in percent; ±: half of the 95 % interval over {seeds} seeds of the heads.
GFLOP: of one image.

How much of the features of {large} a linear map of each view's explains, on held-out images:

{tables.markdown(reconstruction_rows(content))}

R² on val of maps fitted on train, {content["reconstruction"]["images"]} images of each at most.{reached}"""
    for classes in content["classes"]:
        halved = f"; ambiguous: the half of whose pixels {ceiling} takes most for others" if ceiling else ""
        text += f"""

Classes of {classes["task"]}: points of IoU gained over {small}, mean of a half of the classes:

{tables.markdown(class_rows(content, classes))}

Rare: the half that the fewest training images show{halved}."""
    return text


def markdown(name: str, tasks: Tasks, content: Mapping) -> str:
    return f"""# Scales of {name}

{content["small"]} at several scales, and {content["large"]}, under the same heads. *whole*: the larger image is seen at
once, not in tiles; *sum*: of the scales' maps, in place of their concatenation.

{tables_of(tasks, content)}

![scales](scales.png)
"""


def figure(tasks: Tasks, content: Mapping) -> Figure:
    """A panel for each task (metric against operations), one for the reconstruction, one for each segmentation's
    classes."""
    count = len(tasks) + 1 + len(content["classes"])
    columns = 3 if count > 2 else count
    rows = -(-count // columns)
    drawing = Figure(figsize=(9.6, 3.4 * rows), dpi=100, layout="constrained")
    axes = list(drawing.subplots(rows, columns, squeeze=False).flat)
    for axis, task in zip(axes, tasks, strict=False):
        _against_operations(axis, tasks, content, task)
    _reconstruction(axes[len(tasks)], content)
    for axis, classes in zip(axes[len(tasks) + 1 :], content["classes"], strict=False):
        _classes(axis, content, classes)
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes[:count]:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return drawing


def _scaled(content: Mapping) -> list[str]:
    """The views of the small model as S2 is meant to be used: one scale, two, ...; in tiles, concatenated."""
    small = content["small"]
    return [
        view for view in content["gflop"] if view == small or view.removeprefix(f"{small} ").replace("+", "").isdigit()
    ]


def _against_operations(axis: Axes, tasks: Tasks, content: Mapping, task: str) -> None:
    line = _scaled(content)
    for number, view in enumerate([line, *([v] for v in content["gflop"] if v not in line)]):
        values = [headline_values(tasks, content, name, task) for name in view]
        means, halves = [np.mean(v) for v in values], [half_width(v) or 0 for v in values]
        label = (
            f"{content['small']} at {', '.join(str(n + 1) for n in range(len(line)))} scales"
            if view is line
            else view[0]
        )
        marker = "o" if view is line else "s"
        operations = [content["gflop"][name] for name in view]
        axis.errorbar(operations, means, halves, label=label, marker=marker, color=f"C{number}", ms=4, capsize=2)
    _logarithmic(axis, list(content["gflop"].values()))
    axis.set_xlabel("GFLOP of an image", fontsize=8)
    axis.set_title(f"{task}, {tasks[task].headline()[0]} ({tasks[task].units}) {arrow(tasks[task])}", fontsize=9)
    axis.legend(fontsize=6, frameon=False)


def _reconstruction(axis: Axes, content: Mapping) -> None:
    explained = content["reconstruction"]["explained"]
    names = list(explained)
    values = [100 * explained[name][-1] for name in names]
    axis.barh(range(len(names)), values, color=["C7" if name == content["ceiling"] else "C0" for name in names])
    for place, value in enumerate(values):
        axis.text(value, place, f" {value:.1f}", va="center", fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(min(0, *values), 1.15 * max(values))
    axis.set_xlabel("R², %", fontsize=8)
    axis.set_title(f"{content['large']}, last level, explained by", fontsize=9)


def _classes(axis: Axes, content: Mapping, classes: Mapping) -> None:
    for number, view in enumerate([*_scaled(content)[1:], content["large"]]):
        gained = class_gains(content, classes, view).mean(0)
        axis.plot(classes["images"], gained, "o", ms=3.5, alpha=0.8, color=f"C{number}", label=view)
    axis.axhline(0, color="black", lw=0.6)
    _logarithmic(axis, classes["images"])
    axis.set_xlabel("training images that show the class", fontsize=8)
    axis.set_ylabel(f"points of IoU above {content['small']}", fontsize=8)
    axis.set_title(f"{classes['task']}, class by class", fontsize=9)
    axis.legend(fontsize=6, frameon=False)


def _logarithmic(axis: Axes, values: Sequence[float]) -> None:
    """The axis of these numbers, marked at a few round ones: marks of its own would lie on each other."""
    axis.set_xscale("log")
    axis.minorticks_off()
    places = np.geomspace(min(values), max(values), 4)
    marks = sorted({float(f"{place:.1g}") for place in places})
    axis.set_xticks(marks, [f"{mark:g}" for mark in marks])
