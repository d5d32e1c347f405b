"""`tools/benchmark.py steps --quick --json`: ratios for whoever asks by a program."""

import importlib
import json
import runpy
from pathlib import Path

import pytest

from sak.errors import UserError

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    page = tmp_path / "page.md"
    main = runpy.run_path(str(TOOLS / "benchmark.py"))["main"]
    return lambda *arguments: main([*arguments, "--page", str(page)]), page


def test_the_last_line_holds_the_ratios_of_both_stages(call, monkeypatch, capsys):
    steps = importlib.import_module("benchmarks.steps")

    def work(count):
        return lambda: sum(range(count))

    monkeypatch.setattr(steps, "our_step", lambda stage: work(200_000))
    monkeypatch.setattr(steps, "plain_step", lambda stage: work(2_000_000))
    call, page = call
    call("steps", "--quick", "--json")
    *before, last = capsys.readouterr().out.strip().splitlines()
    found = json.loads(last)
    assert set(found["plain / ours"]) == {"distill", "multitask"}
    for ratios in found["plain / ours"].values():
        assert set(ratios) == {"fp32", "bf16"}
        assert all(ratio > 1 for ratio in ratios.values())
    assert any("multitask, 512 x 512" in line for line in before)
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["metrics", "--quick"], "of the section steps alone"), (["steps", "--json"], "of what --quick measures")],
)
def test_what_goes_with_what(call, arguments, says):
    with pytest.raises(UserError, match=says):
        call[0](*arguments)
