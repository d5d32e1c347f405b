"""How a tool ends: whatever the user or the operating system does wrong is one line."""

import argparse
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sak import cli
from sak.errors import UserError

ROOT = Path(__file__).parents[1]


def ending(main, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["tool.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def raising(error):
    def main(_):
        raise error

    return main


def refusal(number, *names):
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a is b:\n  do c"), "error: a is b: do c"),
        (refusal(errno.ENOENT, "a/b"), "a/b cannot be used (No such file or directory): see whether it is there"),
        (refusal(errno.EACCES, "a/b"), "a/b cannot be used (Permission denied): see who may read and write it"),
        (refusal(errno.EROFS, "a/b"), "a/b cannot be used (Read-only file system): its disk can only be read"),
        (refusal(errno.EEXIST, "a/b"), "a/b cannot be used (File exists): something else is there: move it away"),
        (refusal(errno.ENOSPC, "a/b"), "a/b cannot be used (No space left on device): make room on its disk"),
        (refusal(errno.EDQUOT, "a/b"), "make room within your quota"),
        (refusal(errno.EMFILE, "a/b"), "raise the limit"),
        (
            refusal(errno.ESTALE, "a/b"),
            "a/b cannot be used (Stale file handle): see whether its disk or network answers",
        ),
        (refusal(errno.EXDEV, "a.partial", None, "a/b"), "error: a/b cannot be used (Invalid cross-device link)"),
        (OSError("image file is truncated"), "error: image file is truncated"),
    ],
)
def test_every_refusal_is_one_line_that_names_the_file(error, line, monkeypatch, capsys):
    code, out, err = ending(raising(error), monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err
    assert "make room" not in err or error.errno in (errno.ENOSPC, errno.EDQUOT)


def test_a_defect_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool.py"])
    for defect in (KeyError("x"), ValueError("x"), RuntimeError("x"), AssertionError()):
        with pytest.raises(type(defect)):
            cli.run(raising(defect))


def test_mistakes_in_a_command_line_are_like_all_others(monkeypatch, capsys):
    def main(arguments):
        parser = cli.config_parser("Trains.", "example: ...")
        parser.add_argument("--workers", type=cli.whole(0, 8))
        parser.add_argument("--rate", type=cli.positive)
        parser.parse_args(arguments)

    for arguments in (["x", "--workers", "9"], ["x", "--rate", "0"], ["x", "--wings"], [], ["x", "--workers"]):
        code, out, err = ending(main, monkeypatch, capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("error: ")
        assert err.endswith("tool.py --help shows how it is called\n")


def test_options_that_are_numbers():
    assert [cli.whole(0)(text) for text in ("0", "+7", "007", "1000000000")] == [0, 7, 7, 10**9]
    assert [cli.positive(text) for text in ("1e-3", "5", ".5")] == [0.001, 5.0, 0.5]
    for text in ("-1", "", "1.5", "x", "1e3", "1000000001", "9" * 30, "９" * 30, " "):
        with pytest.raises(argparse.ArgumentTypeError):
            cli.whole(0)(text)
    for text in ("0", "-1", "nan", "inf", "1e999", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            cli.positive(text)


STUBBORN = """
import signal, sys, threading, time
sys.path.insert(0, {root!r})
from sak import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored

def main(_):
    try:
        print("at work", flush=True)
        time.sleep(60)
    except KeyboardInterrupt as first:
        try:
            print("stopping", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                print("again", flush=True)
            raise first

threading.Thread(target=time.sleep, args=(60,)).start()  # the interpreter waits for it at its end
cli.run(main)
"""


def test_the_fourth_control_c_ends_as_the_first_one_does():
    """Whatever is at work when it comes, there is no traceback; and what is waited for at the end is not waited for."""
    command = [sys.executable, "-u", "-c", STUBBORN.format(root=str(ROOT))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for said in ("at work", "stopping", "cleaning"):
        assert process.stdout.readline().strip() == said
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    assert process.stdout.readline().strip() == "again"
    assert process.stderr.readline().strip() == "interrupted"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, (out, err)
    assert (out, err) == ("", "")


def test_whoever_reads_may_stop_reading():
    """As `head` does: there is nobody left to tell, and nothing has gone wrong."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "train.py"), "--help"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
