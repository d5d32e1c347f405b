"""What a run of the stage ``vocabulary`` leaves at its end: the bundle with its card, the metrics, and a table."""

from omegaconf import DictConfig, OmegaConf

from sak import environment, tables
from sak.config.schema import LOCATIONS
from sak.files import write_json, write_text
from sak.training.run_directory import RunDirectory
from sak.vocabulary.model import VocabularyModel

HEADER = """---
library_name: sak
pipeline_tag: image-text-to-text
tags:
- ocr
- object-detection
- vision-vocabulary
---"""
USE = """```bash
python tools/read.py . page.png --prompt "Provide the OCR results of this image."
```"""
VERSIONS = ("python", "torch", "transformers", "git")


def write_results(
    config: DictConfig, run: RunDirectory, model: VocabularyModel, report: dict[str, dict[str, float]]
) -> None:
    """``metrics.json`` last, which marks the run as finished; and print the table.

    Args:
        report: {kind: {metric: value}}.
    """
    model.save_pretrained(run.student)
    table = _table(report)
    write_text(run.student / "README.md", _card(config, model, table))
    shown = f"# {config.name}\n\n{_what(config, model)}\n\n{table}\n"
    write_text(run.results, shown)
    write_json(run.metrics, report)
    print(table)


def _table(report: dict[str, dict[str, float]]) -> str:
    rows = [("samples", "metric", "value")]
    rows += [(kind, name, f"{value:.4g}") for kind, values in report.items() for name, value in values.items()]
    return tables.markdown(rows)


def _what(config: DictConfig, model: VocabularyModel) -> str:
    weights = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    height, width = model.image_size
    return (
        f"A small language model ({config.vocabulary.language_model.model}) that reads images of {height}x{width} "
        f"through {model.vision_tokens} tokens of a vision vocabulary "
        f"([Vary](https://arxiv.org/abs/2312.06109)); {weights:.1f} M weights."
    )


def _card(config: DictConfig, model: VocabularyModel, table: str) -> str:
    """The model card. It holds no path of the machine that the run was on."""
    settings = OmegaConf.masked_copy(config, ["name", "seed", "precision", "data", "teachers", "stages", "vocabulary"])
    for key in LOCATIONS:
        if (place := OmegaConf.select(settings, key)) is not None:
            OmegaConf.update(settings, key, place.rstrip("/").rpartition("/")[2])
    described = environment.describe()
    versions = ", ".join(f"{what} {described[what]}" for what in VERSIONS if what in described)
    sections = [
        HEADER,
        f"# {config.name}",
        _what(config, model),
        USE,
        "## Metrics",
        table,
        "On validation samples; *shuffled*: the same with the images of other samples, which tells a model that "
        "guesses from one that reads.",
        "## Training",
        f"By `python tools/train.py config.yaml` with the config below; {versions}.",
        f"<details><summary>config.yaml</summary>\n\n```yaml\n{OmegaConf.to_yaml(settings).rstrip()}\n```\n\n</details>",
    ]
    return "\n\n".join(sections) + "\n"
