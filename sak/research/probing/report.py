"""The probe's results as tables and as a figure."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sak import tables
from sak.evaluation.metrics_table import BASELINE
from sak.metrics import Metrics
from sak.metrics.delta_m import gains
from sak.tasks import Task, arrow, headlines


def relative(tasks: Mapping[str, Task], metrics: Mapping[str, Metrics], reference: str) -> dict[str, dict[str, float]]:
    """{model: {task: percent by which its headline metric is better than the reference's}}.

    A task that the reference fails at, with a metric of 0, is left out: there is no ratio to nothing.
    """
    base = metrics[reference]
    chosen = {task: h for task, h in headlines(tasks).items() if task in base and base[task][h[0]]}
    return {name: gains({task: values[task] for task in chosen}, base, chosen) for name, values in metrics.items()}


def absolute_rows(tasks: Mapping[str, Task], metrics: Mapping[str, Metrics], constants: Metrics) -> list[list[str]]:
    """A header, then a row of headline metrics for each model and one for the best constant prediction."""
    header = ["model"]
    for name, task in tasks.items():
        header.append(f"{name} {task.headline()[0]} {arrow(task)}")
    rows = {**metrics, BASELINE: constants}
    return [header] + [
        [name, *(f"{values[task][tasks[task].headline()[0]]:.2f}" for task in tasks)] for name, values in rows.items()
    ]


def relative_rows(tasks: Mapping[str, Task], gained: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """A header, then a row of gains in percent for each model, with their mean Δm."""
    compared = [task for task in tasks if task in next(iter(gained.values()))]
    return [["model", *compared, "Δm"]] + [
        [name, *(f"{values[task] + 0:+.1f}" for task in compared), f"{np.mean(list(values.values())):+.1f}"]
        for name, values in gained.items()
    ]


def console(
    tasks: Mapping[str, Task],
    metrics: Mapping[str, Metrics],
    constants: Metrics,
    gained: Mapping[str, Mapping[str, float]],
    reference: str | None,
) -> str:
    text = tables.markdown(absolute_rows(tasks, metrics, constants))
    if any(gained.values()):
        table = tables.markdown(relative_rows(tasks, gained))
        text += f"\n\nRelative to {reference}, in percent, positive where better:\n\n{table}"
    return text


def markdown(
    name: str,
    tasks: Mapping[str, Task],
    metrics: Mapping[str, Metrics],
    constants: Metrics,
    gained: Mapping[str, Mapping[str, float]],
    reference: str | None,
) -> str:
    """``probe.md``: the tables and what they mean."""
    boundaries = " Boundaries are evaluated under the protocol `sak`." if "edge" in tasks else ""
    return f"""# Probing of {name}

Frozen models with the same small heads, one for each task.

{console(tasks, metrics, constants, gained, reference)}

*{BASELINE}*: the best that one and the same prediction for every pixel of every image reaches on the validation set.
`NAME-s2` is NAME at several scales.{boundaries}

![probe](probe.png)
"""


def figure(
    tasks: Mapping[str, Task],
    metrics: Mapping[str, Metrics],
    gained: Mapping[str, Mapping[str, float]],
    reference: str | None,
    constants: Metrics,
) -> Figure:
    """Bars, a group for each task: gains over the reference in percent, or without one the headline metrics.

    An S2 variant has the colour of its model, hatched. Beside headline metrics a line marks the best constant
    prediction; a task without a gain, at which the reference fails, says so.
    """
    names = [name for name in metrics if name != reference]
    colours = {name: f"C{number}" for number, name in enumerate(n for n in metrics if not n.endswith("-s2"))}
    panels = 1 if gained else len(tasks)
    drawing = Figure(figsize=(1.8 + 1.5 * len(tasks), 3.4), dpi=100, layout="constrained")
    axes = drawing.subplots(1, panels, squeeze=False)[0]
    breadth = 0.84 / len(names)
    for place, name in enumerate(names):
        colour = colours.get(name, colours.get(name.removesuffix("-s2"), "C9"))
        style = {"color": colour, "hatch": "///" if name.endswith("-s2") else None, "edgecolor": "white", "lw": 0.5}
        if gained:
            values = [gained[name].get(task, 0) for task in tasks]
            axes[0].bar(np.arange(len(tasks)) + (place - (len(names) - 1) / 2) * breadth, values, breadth, label=name,
                        **style)  # fmt: skip
        else:
            for axis, (key, task) in zip(axes, tasks.items(), strict=True):
                axis.bar(place, metrics[name][key][task.headline()[0]], 0.84, label=name, **style)
    if gained:
        compared = next(iter(gained.values()))
        titles = [f"{name}\n{task.headline()[0]}" for name, task in tasks.items()]
        titles = [t if name in compared else f"{t}\n(0 by {reference})" for name, t in zip(tasks, titles, strict=True)]
        axes[0].set_xticks(range(len(tasks)), titles, fontsize=8)
        axes[0].axhline(0, color="black", lw=0.8)
        axes[0].set_ylabel(f"better than {reference}, in % of its metric", fontsize=8)
        axes[0].grid(axis="y", alpha=0.3)
        axes[0].set_axisbelow(True)
    else:
        for axis, (key, task) in zip(axes, tasks.items(), strict=True):
            measure = task.headline()[0]
            axis.axhline(constants[key][measure], color="black", lw=0.8, ls="--", label=BASELINE)
            axis.set_title(f"{key} {arrow(task)}\n{measure}, {task.units}", fontsize=8)
            axis.set_xticks([])
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 9), fontsize=8, frameon=False)
    return drawing
