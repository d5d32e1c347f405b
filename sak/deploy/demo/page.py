"""A student on a page of its own machine: one's own picture, all tasks, and sources to knock out.

Nothing but uploads and the examples can be read through it: it is bound to 127.0.0.1, and gradio serves no other files.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from sak.data.mini.drawing import draw
from sak.data.reading import stored_size
from sak.deploy.panel import overlay, shrunk, weight_bars
from sak.deploy.pictures import pixels_of
from sak.deploy.prediction import Prediction
from sak.deploy.predictor import Predictor
from sak.errors import UserError
from sak.plotting import pixels

MOST_BYTES = "20mb"  # of an upload
MOST_MEGAPIXELS = 24
OPACITY = 0.6
SEED = 2024  # of the rendered examples: not that of the data


def build(predictor: Predictor, title: str) -> gr.Blocks:
    """The page. Every visitor's picture and prediction stay in his own session."""
    sources, tasks = list(predictor.student.sources), list(predictor.tasks)
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"## {title}")
        state = gr.State(None)  # {task: its colours}, and the picture, as they are drawn
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                picture = gr.Image(type="filepath", sources=["upload", "clipboard"], label="picture", elem_id="picture")
                gr.Examples(examples(), picture, label="examples")
            with gr.Column(scale=1, min_width=280):
                kept = gr.CheckboxGroup(sources, value=sources, label="sources that are mixed", elem_id="sources")
                opacity = gr.Slider(0, 1, OPACITY, label="opacity of the predictions", elem_id="opacity")
                said = gr.Markdown(elem_id="said")
        with gr.Row():
            maps = [
                gr.Image(label=task, interactive=False, format="png", elem_id=task, min_width=240) for task in tasks
            ]
        gr.Markdown("Router weights of each task, at each level")
        weights = gr.Image(show_label=False, interactive=False, format="png", elem_id="weights", buttons=["fullscreen"])

        def predict(path: str | None, kept: Sequence[str], opacity: float):
            if path is None:
                return [None, "", None, *[None] * len(tasks)]
            found, seconds = predicted(predictor, path, [source for source in sources if source not in kept])
            image, smaller = shrunk(found.image, found.maps)
            drawn = {"image": image, **{task: found.tasks[task].colour(smaller[task]) for task in tasks}}
            height, width = found.image.shape[:2]
            told = f"{width} x {height} pixels in {seconds:.2f} s on {predictor.device}"
            return [drawn, told, router_bars(found), *blended(drawn, tasks, opacity)]

        inputs, outputs = [picture, kept, opacity], [state, said, weights, *maps]
        picture.change(predict, inputs, outputs, show_progress="minimal")
        kept.change(predict, inputs, outputs, show_progress="minimal")
        opacity.release(
            lambda drawn, share: blended(drawn, tasks, share), [state, opacity], maps, show_progress="hidden"
        )
    return page


def predicted(predictor: Predictor, path: str, without: Sequence[str]) -> tuple[Prediction, float]:
    """A visitor's prediction, and its seconds. What he did wrong is a message on the page."""
    try:
        height, width = stored_size(path)
        if height * width > MOST_MEGAPIXELS * 1e6:
            raise UserError(f"The picture has more than {MOST_MEGAPIXELS} megapixels: shrink it.")
        if len(without) == len(predictor.student.sources):
            raise UserError("All sources are left out: one has to stay.")
        start = time.perf_counter()
        found = predictor.knocking_out(without)(pixels_of(path))
        return found, time.perf_counter() - start
    except UserError as error:
        raise gr.Error(str(error).replace(path, "the picture")) from None


def blended(drawn: dict | None, tasks: Sequence[str], opacity: float) -> list[np.ndarray | None]:
    """Each task's colours over the picture."""
    return [None if drawn is None else overlay(drawn["image"], drawn[task], opacity) for task in tasks]


def router_bars(found: Prediction) -> np.ndarray | None:
    """Of each task and level."""
    if not found.routing:
        return None
    figure = Figure((2.4 * len(found.routing), 2), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(found.routing), squeeze=False)[0]
    for axis, (task, weights) in zip(axes, found.routing.items(), strict=True):
        weight_bars(axis, weights, found.sources, found.levels)
        axis.set_title(task, fontsize=8)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return pixels(figure)


def examples() -> list[list[str]]:
    """Files of scikit-image's photographs and of rendered scenes, in a folder of this process."""
    from skimage.data import astronaut, chelsea, coffee, rocket

    folder = Path(tempfile.mkdtemp(prefix="sak_examples_"))
    paths = []
    for photograph in (astronaut, chelsea, coffee, rocket):
        paths.append([str(folder / f"{photograph.__name__}.jpg")])
        Image.fromarray(photograph()).save(paths[-1][0])
    for number in range(3):
        paths.append([str(folder / f"scene_{number}.png")])
        Image.fromarray(draw(SEED, "val", number, size=128)[1].image).save(paths[-1][0])
    return paths


def serve(page: gr.Blocks, port: int) -> None:
    """Until Ctrl-C; on this machine alone.

    Raises:
        UserError: the port is taken.
    """
    try:
        page.launch(server_name="127.0.0.1", server_port=port, share=False, max_file_size=MOST_BYTES, footer_links=[])
    except OSError as error:
        raise UserError(f"--port {port} cannot be had: choose another one") from error
