"""Every link of a page leads somewhere, and every file of ours that a page names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("teachers/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(
    r"`((?:sak|teachers|tools|tests|configs|docs|\.ci)/[\w./-]+\.(?:py|yaml|md|json|png|svg|safetensors))`"
)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_names_of_files(page):
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if re.match(r"\w+:", link):
            continue  # of another place
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
    for name in FILE.findall(text):
        assert (ROOT / name).exists(), name


def test_the_patterns_see_links_and_files():
    assert LINK.findall("[a](docs/x.md#y) ![b](c.png)") == ["docs/x.md#y", "c.png"]
    assert FILE.findall("`sak/tables.py`, `sak.tables`, `tools/train.py CONFIG`") == ["sak/tables.py"]
    assert "teachers" in anchors(ROOT / "docs" / "BENCHMARKS.md")
