"""The evaluation of a finished run of a vision vocabulary: its metrics, whether it looks, and others beside it."""

from pathlib import Path

from sak import config, tables
from sak.data.loading import evenly_spread
from sak.errors import UserError
from sak.files import write_json, write_text
from sak.vocabulary.data import build
from sak.vocabulary.evaluate import Report, blind, evaluate
from sak.vocabulary.reading import tesseract
from sak.vocabulary.reading.reader import Reader

BATCH = 32  # samples at once, where nothing else is said
TESSERACT = "text_tesseract"  # its row in the report
TESSERACT_PAGES = 60  # it takes a process a page


def run_benchmark(
    place: str,
    output: Path,
    split: str = "val",
    overwrite: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    with_tesseract: bool = False,
) -> Report:
    """Write ``metrics.json`` and ``results.md`` into `output`, and print the table.

    Args:
        place: the run's directory.
        with_tesseract: read `TESSERACT_PAGES` of the text pages by Debian's OCR software too.

    Raises:
        UserError: it is no finished run, or there are results already.
    """
    file = Path(place) / "config.yaml"
    if not file.is_file():
        raise UserError(
            f"{place} is no run: without its config.yaml nobody knows what to ask; give the run's directory"
        )
    if (output / "metrics.json").exists() and not overwrite:
        raise UserError(f"{output} holds results already: choose another --output, or replace them with --overwrite")
    settings = config.load(file)
    data = build(settings.vocabulary.data, split)
    batch = batch_size or settings.evaluation.batch_size or BATCH
    workers = settings.data.workers if workers is None else workers
    report = evaluate(Reader(place).model, data, batch_size=batch, workers=workers, progress=True)
    if with_tesseract:
        pages = [index for index in range(len(data)) if data.kinds[data.kind_of[index]] == "text"]
        chosen = [pages[place] for place in evenly_spread(len(pages), TESSERACT_PAGES)] if pages else []
        report[TESSERACT] = tesseract.evaluate(data, chosen)
    text = f"{compared(report)}\n\n{verdict(report)}\n"
    write_text(output / "results.md", f"# {settings.name}, {split}\n\n{text}")
    write_json(output / "metrics.json", report)
    print(text)
    return report


def compared(report: Report) -> str:
    """A row for each metric of each kind: the model, with shuffled images, the best blind answer, tesseract."""
    beside = ("", "_shuffled", "_unseen", "_tesseract")
    rows = [["samples", "metric", "model", "shuffled images", "best constant answer", "tesseract"]]
    for kind, found in report.items():
        if f"{kind}_shuffled" in report:
            for metric in found:
                values = [report.get(f"{kind}{ending}", {}).get(metric) for ending in beside]
                rows.append([kind, metric, *("" if value is None else f"{value:.4g}" for value in values)])
    return tables.markdown(rows)


def verdict(report: Report) -> str:
    return "\n".join(blind(report)) or "It looks at the images, whatever it is asked."
