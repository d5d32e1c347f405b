"""A teacher's adapter path as a file of its own: list the paths of a student, save one, and swap one for another."""

from sak.cli import run, tool_parser

EXAMPLE = """examples:
  python tools/paths.py list runs/sak_pascal_mini
  python tools/paths.py save runs/sak_pascal_mini sam sam_path.safetensors
  python tools/paths.py list sam_path.safetensors
  python tools/paths.py swap runs/sak_pascal_mini sam_path.safetensors students/with_that_path

A path fits the stem that it has grown on, and no other one. To load a path as a new teacher:
  python tools/train.py CONFIG name=NEW student.add_teacher=sam from=RUN student.path=sam_path.safetensors"""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what paths there are")
    listing.add_argument("place", metavar="RUN|BUNDLE|FILE")
    saving = commands.add_parser("save", help="write one teacher's path into a file")
    saving.add_argument("place", metavar="RUN|BUNDLE")
    saving.add_argument("teacher")
    saving.add_argument("file")
    swapping = commands.add_parser("swap", help="write a bundle with a file's path in place of that teacher's own")
    swapping.add_argument("place", metavar="RUN|BUNDLE")
    swapping.add_argument("file")
    swapping.add_argument("output", metavar="BUNDLE")
    options = parser.parse_args(arguments)

    from sak.bundles import path_files  # after the command line's mistakes: it loads torch

    if options.command == "list":
        print(path_files.console(path_files.list_paths(options.place)))
    elif options.command == "save":
        record = path_files.save_path(options.place, options.teacher, options.file)
        print(f"{options.file}: the path of {record.teacher}, grown on the stem {record.fingerprint[:12]}")
    else:
        student = path_files.swap_path(options.place, options.file, options.output)
        print(f"{options.output}: sources {', '.join(student.sources)}")


if __name__ == "__main__":
    run(main)
