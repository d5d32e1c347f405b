"""`tools/make_figures.py`: what makes the figures of the pages."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sak import config
from sak.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("make_figures")


def test_every_figure_is_shown_by_its_page_and_made_once(tool):
    names = [name for source in tool.SOURCES.values() for name in source.figures]
    assert len(names) == len(set(names))
    for source in tool.SOURCES.values():
        text = (ROOT / source.page).read_text(encoding="utf-8")
        for name in source.figures:
            if (tool.FIGURES / name).exists():
                assert f"figures/{name}" in text, name


def test_the_commands_name_tools_and_configs_that_are_there(tool):
    for source in tool.SOURCES.values():
        for command in source.commands:
            program, script, *rest = shlex.split(command)
            assert program == "python"
            if script == "-c":
                compile(rest[0], command, "exec")
                continue
            assert (ROOT / script).is_file()
            for place in re.findall(r"configs/\S+\.yaml", " ".join(rest)):
                config.load(str(ROOT / place))


def test_what_the_last_command_sets_is_said_by_the_page(tool):
    """A figure within a block that a tool writes has that block's command: a page may name others beside it."""
    for source in tool.SOURCES.values():
        page = (ROOT / source.page).read_text(encoding="utf-8")
        for word in shlex.split(source.commands[-1]):
            assert word in page or "=" not in word or "runs/" in word, (source.page, word)
        for block in re.findall(r"<!-- measured: .*?<!-- end", page, re.DOTALL):
            if any(f"figures/{name}" in block for name in source.figures):
                assert source.commands[-1] in block, source.page


@pytest.fixture
def small(tool, monkeypatch, tmp_path):
    """Two figures that a script makes, which counts its calls; in a folder instead of the repository."""
    picture = tmp_path / "given.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(picture)
    (tmp_path / "draw.py").write_text(
        "import shutil, sys\n"
        "open('calls', 'a').write('x')\n"
        "if len(sys.argv) > 1: sys.exit(int(sys.argv[1]))\n"
        "for name in ('a-1', 'a-2'): shutil.copy('given.png', f'{name}.png')\n"
    )
    (tmp_path / "figures").mkdir()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "FIGURES", tmp_path / "figures")
    sources = {
        "good": tool.Source("page.md", ("python draw.py",), {"a.png": "a-*.png"}),
        "failing": tool.Source("page.md", ("python draw.py 2",), {"b.png": "b.png"}),
        "stopped": tool.Source("page.md", ("python draw.py 130",), {"b.png": "b.png"}),
        "idle": tool.Source("page.md", (), {"b.png": "b.png"}),
    }
    monkeypatch.setattr(tool, "SOURCES", sources)
    return tmp_path


def calls(folder):
    file = folder / "calls"
    return len(file.read_text()) if file.exists() else 0


def test_what_is_there_is_not_made_again(tool, small):
    tool.main(["good"])
    assert calls(small) == 1
    with Image.open(small / "figures" / "a.png") as picture:
        assert picture.size == (32, 32)
    (small / "figures" / "a.png").unlink()
    tool.main(["good"])
    assert calls(small) == 1
    assert (small / "figures" / "a.png").exists()
    tool.main(["good", "--again"])
    assert calls(small) == 2


def test_the_colours_of_a_legend_stay_apart(tool, small):
    """A palette keeps what a few pixels among thousands of others show."""
    values = np.random.default_rng(0).integers(128, 256, (256, 256, 3), np.uint8)
    legend = {4: (0, 128, 128), 12: (64, 0, 128), 20: (0, 0, 128), 28: (128, 0, 0)}
    for row, colour in legend.items():
        values[row : row + 4, 4:12] = colour
    Image.fromarray(values).save(small / "a-1.png")
    tool.publish("a-1.png", small / "figures" / "a.png")
    with Image.open(small / "figures" / "a.png") as picture:
        assert picture.mode == "P"
        shown = np.asarray(picture.convert("RGB")).astype(int)
    for row, colour in legend.items():
        assert np.abs(shown[row + 1, 6] - colour).max() <= 24


def test_a_list_runs_nothing(tool, small, capsys):
    tool.main(["--list", "good"])
    assert calls(small) == 0
    assert "  python draw.py" in capsys.readouterr().out


def test_what_goes_wrong_is_one_sentence(tool, small):
    with pytest.raises(UserError, match=r"draw\.py 2 ended with 2"):
        tool.main(["failing"])
    with pytest.raises(UserError, match=r"there is no b\.png, which the commands were to make"):
        tool.main(["idle"])
    with pytest.raises(UserError, match=r"there is no 'bad' to make: good, failing"):
        tool.main(["bad"])
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        tool.main(["stopped"])
