"""Bars keep their unit, also where less than one piece a second is done."""

import pytest
from tqdm import tqdm

from sak.progress import LINE, progress_bar


@pytest.mark.parametrize(("rate", "shown"), [(0.2, " 0.20img/s"), (3.0, " 3.00img/s"), (25.0, "25.00img/s")])
def test_the_rate_is_by_the_second(rate, shown):
    line = tqdm.format_meter(10, 100, 10 / rate, bar_format=LINE, unit="img", prefix="read")
    assert shown in line
    assert "10/100" in line
    assert "<" in line  # the time left


def test_what_was_done_before_is_no_speed(capsys):
    with progress_bar(100, "stage 2/2 multitask", done=90) as bar:
        bar.update(10)
    written = capsys.readouterr().err
    assert written.startswith("\rstage 2/2 multitask:  90%")
    assert "90/100 [00:00<?, ?img/s]" in written.split("\r")[1]
