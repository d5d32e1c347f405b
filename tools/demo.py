"""Try a trained model on a page in the browser: one's own pictures; of a student all tasks and sources to knock out.

Of a model that reads the page has prompts, the answer as it is written, and its boxes.
"""

from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.errors import UserError
from sak.limits import MOST_PIXELS

EXAMPLE = """example:
  python tools/demo.py runs/sak_pascal_mini --longest-edge 192
  python tools/demo.py runs/vary_mini

It needs the extra "demo". The page is for this machine alone (127.0.0.1). See docs/deployment.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("bundle", help="a bundle or its hub id, a finished run, or a published SAK checkpoint")
    parser.add_argument("--port", type=whole(1, 65535), default=7860, metavar="N", help="default: 7860")
    parser.add_argument(
        "--longest-edge", type=whole(1, MOST_PIXELS), metavar="N", help="shrink larger pictures to N pixels first"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    options = parser.parse_args(arguments)

    from sak.deploy.extras import require  # after the command line's own mistakes: what follows loads torch
    from sak.vocabulary.reading.reader import Reader, reads

    if Path(options.bundle).is_dir() and reads(options.bundle):
        if options.longest_edge is not None:
            raise UserError("--longest-edge is of students: a model that reads sees squares of one size")
        reader = Reader(options.bundle, options.device)
        require("demo", "gradio")
        from sak.deploy.demo.page import serve
        from sak.vocabulary.reading.page import build as build_page

        serve(build_page(reader, f"What {options.bundle} reads"), options.port)
        return
    from sak.deploy.predictor import Predictor

    predictor = Predictor(options.bundle, options.device, longest_edge=options.longest_edge)
    require("demo", "gradio")
    from sak.deploy.demo.page import build, serve

    serve(build(predictor, f"What {options.bundle} sees"), options.port)


if __name__ == "__main__":
    run(main)
