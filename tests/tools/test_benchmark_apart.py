"""Forms that are measured in processes of their own."""

import importlib
import os
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def apart(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmarks.apart")


def test_both_forms_run_in_turn_each_in_its_process(apart, monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setattr(apart, "keep_freed", lambda: note("keeps"))

    def note(what):
        with log.open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    def build(name, size):
        def work():
            note(f"{name} {torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else 'fp32'}")
            torch.ones(size, size) @ torch.ones(size, size)

        return lambda: work

    ratios = apart.in_turn(build("ours", 8), build("plain", 512), rounds=2)
    lines = [line.rsplit(" ", 1) for line in log.read_text().splitlines()]
    turn = ["ours fp32", "ours torch.bfloat16", "plain fp32"]
    assert [what for what, _ in lines] == ["keeps", *turn * 3]
    processes = dict(lines)
    assert processes["keeps"] == processes["ours fp32"] == processes["ours torch.bfloat16"] != processes["plain fp32"]
    assert str(os.getpid()) not in processes.values()
    assert len(ratios) == 2
    assert all(0 < ratio.low <= ratio.median <= ratio.high for ratio in ratios)


def test_what_goes_wrong_there_is_raised_here(apart):
    def fail():
        raise ValueError("of no use")

    assert apart.alone(lambda: {"pid": 1}) == {"pid": 1}
    for ask in (lambda: apart.alone(fail), lambda: apart.in_turn(fail, lambda: print, 1)):
        with pytest.raises(ValueError, match="of no use"):
            ask()
