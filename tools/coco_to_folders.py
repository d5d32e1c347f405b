"""Make class maps of COCO's annotations, which a config with data.dataset: folders reads (docs/own_data.md)."""

from pathlib import Path

from sak.cli import run, tool_parser

EXAMPLE = """examples:
  python tools/coco_to_folders.py annotations/instances_val2017.json --out coco/semseg/val2017
  python tools/coco_to_folders.py panoptic_val2017.json --segments panoptic_val2017 --out coco/semseg/val2017"""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("annotations", type=Path, help="instances_*.json, or panoptic_*.json")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the maps, one for a split")
    parser.add_argument("--segments", type=Path, metavar="DIR", help="folder of the panoptic PNGs")
    options = parser.parse_args(arguments)

    from sak.data.own.coco import convert  # after the command line's own mistakes: it loads torch

    count = convert(options.annotations, options.out, options.segments)
    print(f"{count:,} maps in {options.out}; the names of their classes in {options.out.parent / 'classes.txt'}")


if __name__ == "__main__":
    run(main)
