"""What `tools/benchmark.py` keeps of its measurements."""

from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def keep(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    from benchmarks.page import keep

    return keep


def test_only_what_stands_between_the_marks_is_replaced(keep, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Figures\n\nBefore.\n\n<!-- measured: speed -->\nold\n<!-- end: speed -->\n\nAfter.\n\n"
        "<!-- measured: size -->\nkept\n<!-- end: size -->\n"
    )
    keep(page, "speed", "| new | \\1 |\n")
    keep(page, "speed", "| newer | \\1 |\n")
    assert page.read_text() == (
        "# Figures\n\nBefore.\n\n<!-- measured: speed -->\n| newer | \\1 |\n<!-- end: speed -->\n\nAfter.\n\n"
        "<!-- measured: size -->\nkept\n<!-- end: size -->\n"
    )


def test_a_new_section_comes_last_and_a_new_page_gets_a_title(keep, tmp_path):
    page = tmp_path / "page.md"
    keep(page, "speed", "fast")
    keep(page, "size", "small")
    text = page.read_text()
    assert text.startswith("# page\n\n## speed\n\n<!-- measured: speed -->\nfast\n")
    assert text.endswith("## size\n\n<!-- measured: size -->\nsmall\n<!-- end: size -->\n")
