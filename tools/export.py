"""Export a trained student for other runtimes, and compare the file with it."""

from pathlib import Path

from sak.cli import run, tool_parser

EXAMPLE = """example:
  python tools/export.py runs/sak_pascal_mini --format onnx --dynamic --out student.onnx
  python tools/export.py student/ --format onnx --dynamic --precision int8 --evaluate --data DATA --out s.onnx
  python tools/export.py student/ --format torch_export --tasks semseg edge --out student.pt2

Input: images (B, 3, H, W), RGB in [0, 1]; outputs named as the tasks, raw logits and values. The file is kept only if
it does what the student does on photographs. onnxruntime and its like come with the extra "export". See
docs/deployment.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("bundle", help="a bundle or its hub id, a finished run, or a published SAK checkpoint")
    parser.add_argument("--format", default="onnx", choices=["onnx", "torch_export"], help="default: onnx")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--dynamic", action="store_true", help="any number of images of any size that the patch divides"
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="default: all that the student has")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "int8"], help="default: fp32")
    parser.add_argument("--evaluate", action="store_true", help="also the metrics of both on the validation images")
    parser.add_argument("--data", metavar="ROOT", help="the data set's folder for --evaluate; default: that of the run")
    options = parser.parse_args(arguments)

    from sak import tables  # after the command line's own mistakes: what follows loads torch
    from sak.deploy.export import export
    from sak.deploy.exported import metrics_of_both, table
    from sak.evaluation.subject import open_subject
    from sak.files import about

    subject = open_subject(options.bundle, root=options.data, labelled=options.evaluate)
    how = (options.format, options.dynamic, options.tasks, options.precision)
    with about(options.out):
        differences = export(subject.student, options.out, *how)
    print(tables.console(table(differences)))
    if options.evaluate:
        print()
        print(tables.console(metrics_of_both(subject, options.out, options.format, options.tasks)))
    print(f"written to {options.out}")


if __name__ == "__main__":
    run(main)
