"""Ask a trained model about pictures: it reads their text, or says where things are, as it writes it."""

import sys
from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.errors import UserError

PROMPT = "Provide the OCR results of this image."
EXAMPLE = """example:
  python tools/read.py runs/vary_mini page.png
  python tools/read.py runs/vary_mini scene.png --prompt "Detect all objects in this image" --boxes boxes.png
  python tools/read.py runs/vary_mini a.png b.png --prompt "Locate the red ball in this image" --beams 4

A picture of any size and shape is seen as the square that the model was trained on. It answers the prompts that it was
trained with; what these are says docs/vocabulary.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("bundle", help="a finished run of a vision vocabulary, or its bundle")
    parser.add_argument("image", nargs="+", help="pictures")
    parser.add_argument("--prompt", default=PROMPT, metavar="TEXT", help=f"default: {PROMPT}")
    parser.add_argument("--beams", type=whole(1, 64), default=1, metavar="N", help="of the search; default: 1, none")
    parser.add_argument("--max-new-tokens", type=whole(1), metavar="N", help="default: all that fit the context")
    parser.add_argument("--boxes", type=Path, metavar="FILE.png", help="draw the boxes of the answer, on one picture")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    options = parser.parse_intermixed_args(arguments)
    if options.boxes and len(options.image) > 1:
        raise UserError(f"--boxes {options.boxes} is one file, but there are {len(options.image)} pictures: give one")

    from sak.files import replacing  # after the command line's own mistakes: what follows loads torch
    from sak.vocabulary.reading.reader import Reader, draw_boxes

    for image in options.image:
        if not Path(image).is_file():
            raise UserError(f"there is no picture {image}")
    reader = Reader(options.bundle, options.device)

    def write(piece: str) -> None:
        print(piece, end="", flush=True)

    for number, image in enumerate(options.image):
        if len(options.image) > 1:
            print(f"{chr(10) * bool(number)}== {image}", flush=True)
        stream = write if options.beams == 1 else None
        answer = reader(image, options.prompt, options.beams, options.max_new_tokens, stream)
        print("" if stream else answer.text)
        if options.boxes:
            with replacing(options.boxes) as partial:
                draw_boxes(answer).save(partial, format="PNG")
            boxes = answer.boxes
            unread = f"; {boxes.malformed} of the answer's pieces cannot be read" if boxes.malformed else ""
            print(f"{len(boxes.boxes)} boxes drawn in {options.boxes}{unread}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
