"""A model that reads on a page of its own machine: a picture, a prompt, the answer as it is written, its boxes."""

import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from sak.config.vocabulary import VocabularyDataConfig
from sak.data.reading import stored_size
from sak.deploy.demo.page import MOST_MEGAPIXELS
from sak.errors import UserError
from sak.vocabulary.data import build as build_data
from sak.vocabulary.prompts import DETECT_ALL, READ
from sak.vocabulary.reading.reader import Answer, Reader, draw_boxes

SEED = 2024  # of the rendered examples: not that of the training


def build(reader: Reader, title: str) -> gr.Blocks:
    """The page. Every visitor's picture and answer stay in his own session."""
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"## {title}")
        with gr.Tab("Read and point"), gr.Row():
            with gr.Column(scale=1, min_width=280):
                picture = gr.Image(type="filepath", sources=["upload", "clipboard"], label="picture", elem_id="picture")
                prompt = gr.Dropdown(
                    [READ, DETECT_ALL], value=READ, allow_custom_value=True, label="prompt", elem_id="prompt"
                )
                beams = gr.Slider(1, 8, 1, step=1, label="beams", elem_id="beams")
                asked = gr.Button("ask", variant="primary", elem_id="ask")
                gr.Examples(examples(reader.model.image_size[0]), [picture, prompt], label="examples")
            with gr.Column(scale=1, min_width=280):
                text = gr.Textbox(label="answer", lines=6, interactive=False, elem_id="answer")
                boxes = gr.Image(label="boxes", interactive=False, format="png", elem_id="boxes")

        def ask(path: str | None, prompt: str, beams: int) -> Iterator[tuple[str, np.ndarray | None]]:
            if path is None:
                raise gr.Error("Choose a picture first.")
            yield from answered(reader, path, prompt, int(beams))

        asked.click(ask, [picture, prompt, beams], [text, boxes], show_progress="minimal")
    return page


def answered(reader: Reader, path: str, prompt: str, beams: int) -> Iterator[tuple[str, np.ndarray | None]]:
    """The text so far, and at the end the picture with its boxes. What a visitor did wrong is a message on the page."""
    pieces: queue.Queue[str | Answer | Exception] = queue.Queue()

    def work() -> None:
        try:
            height, width = stored_size(path)
            if height * width > MOST_MEGAPIXELS * 1e6:
                raise UserError(f"The picture has more than {MOST_MEGAPIXELS} megapixels: shrink it.")
            pieces.put(reader(path, prompt or "", beams, stream=pieces.put if beams == 1 else None))
        except Exception as error:  # handed over to the visitor's own thread
            pieces.put(error)

    threading.Thread(target=work, daemon=True).start()
    written = ""
    while True:
        piece = pieces.get()
        if isinstance(piece, UserError):
            raise gr.Error(str(piece).replace(path, "the picture")) from None
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, Answer):
            yield piece.text, np.asarray(draw_boxes(piece)) if piece.boxes.boxes else None
            return
        written += piece
        yield written, None


def examples(side: int) -> list[list[str]]:
    """Rendered pages and scenes with the prompts that belong to them, in a folder of this process."""
    folder = Path(tempfile.mkdtemp(prefix="sak_examples_"))
    shown = []
    for kind in ("text", "detection"):
        data = build_data(VocabularyDataConfig(kinds={kind: 1.0}, image_size=side, val=3, seed=SEED), "val")
        for index in range(3):
            item = data.packed(index)
            shown.append([str(folder / f"{kind}_{index}.png"), item["prompt"]])
            Image.fromarray(item["pixels"].numpy().transpose(1, 2, 0)).save(shown[-1][0])
    return shown
