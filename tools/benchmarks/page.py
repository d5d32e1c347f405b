"""The page that keeps what was measured: tables between marks, prose around them that no measurement touches."""

import re
from pathlib import Path

from sak.files import write_text


def keep(page: Path, section: str, measured: str) -> None:
    """Replace what stands between the section's marks in a Markdown page; a section without marks comes at its end."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"# {page.stem}\n"
    begin, end = f"<!-- measured: {section} -->", f"<!-- end: {section} -->"
    block = f"{begin}\n{measured.strip()}\n{end}"
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text, found = marked.subn(lambda _: block, text)
    write_text(page, text if found else f"{text.rstrip()}\n\n## {section}\n\n{block}\n")
