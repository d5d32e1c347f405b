"""Train a model that reads with more and with fewer vision tokens, and draw what it reads against their number.

Each variant is an ordinary run; the same command goes on after Ctrl-C or a kill. Larger images have more tokens, and
so has a network with fewer convolutions of stride 2."""

from pathlib import Path

from sak.cli import config_parser, run
from sak.errors import UserError

EXAMPLE = """example:
  python tools/vision_tokens.py configs/vary_mini.yaml --variant vocabulary.network.channels=[128,256] \\
      --variant vocabulary.network.channels=[256] --output runs/tokens
  python tools/vision_tokens.py configs/vary_tiny.yaml --variant vocabulary.data.image_size=512 \\
      --variant vocabulary.data.image_size=640 --variant vocabulary.data.image_size=1024 \\
      --variant vocabulary.data.image_size=1280 --output runs/tokens"""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--variant", action="append", required=True, metavar="OVERRIDES", help="key=value of one run, or several"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the table and the figure")
    options = parser.parse_intermixed_args(arguments)
    if twice := sorted({variant for variant in options.variant if options.variant.count(variant) > 1}):
        raise UserError(f"--variant {twice[0]} is given twice: give each once")

    from sak.vocabulary.training.tokens import token_curve  # after the command line's own mistakes: it loads torch

    print(token_curve(options.config, options.overrides, options.variant, options.output))


if __name__ == "__main__":
    run(main)
