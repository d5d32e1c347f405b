"""The command `sak`: every tool as a subcommand, configs by name, and what comes with an installed package."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import sak
from sak import __main__ as command
from sak import config
from sak.errors import UserError

ROOT = Path(__file__).parents[2]
MINIATURES = ["dinov2", "clip", "sam"]
TOOLS = sorted(file.stem for file in (ROOT / "tools").glob("*.py"))


@pytest.fixture
def answer(monkeypatch, capsys):
    """Calls `sak`: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sak", *arguments])
        monkeypatch.setattr(sys, "path", ["/somewhere/bin", *sys.path])
        code = 0
        try:
            command.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_every_tool_with_what_it_does(answer, arguments):
    code, out, _ = answer(*arguments)
    assert code == 0
    for tool in TOOLS:
        assert any(line.split()[:1] == [tool] and len(line.split()) > 3 for line in out.splitlines()), tool


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_says_how_it_is_called_by_the_command(answer, tool):
    code, out, _ = answer(tool, "--help")
    assert code == 0
    assert out.startswith(f"usage: sak {tool} ")
    assert f"  sak {tool} " in out
    assert "tools/" not in out
    assert "configs/" not in out.partition("example")[2]


def test_several_processes_are_started_by_module(answer):
    assert "torchrun --nproc_per_node 4 -m sak evaluate checkpoint.pth" in answer("evaluate", "--help")[1]


def test_mistakes_are_one_line(answer):
    assert answer("trian") == (
        2,
        "",
        "error: there is no tool 'trian', the nearest is train; sak --help lists them\n",
    )
    code, out, err = answer("train", "sak_pascal_mimi")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no config file at sak_pascal_mimi; of those that come with sak the nearest is sak_pascal_mini" in err


def test_the_version_is_that_of_the_package(answer):
    assert answer("--version")[:2] == (0, f"{sak.__version__}\n")


def test_a_config_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = config.load("baselines/sum")
    assert config.differences(by_name, config.load(ROOT / "configs" / "baselines" / "sum.yaml")) == []
    own = tmp_path / "own.yaml"
    own.write_text("extends: sak_pascal_mini\nname: own\n")
    assert config.differences(config.load(own), config.load("sak_pascal_mini")) == ["name"]


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    """In the working directory for the command line, beside the file for what it extends."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sak_pascal_mini").write_text("extends: sak_nyud\nname: mine\n")
    assert config.load("sak_pascal_mini").name == "mine"
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "own.yaml").write_text("extends: sak_pascal_mini\n")
    assert config.load("below/own.yaml").name == "sak_pascal_mini"
    (tmp_path / "below" / "own.yaml").write_text("extends: nowhere\n")
    (tmp_path / "nowhere").write_text("extends: sak_pascal_mini\n")
    with pytest.raises(UserError, match=r"no config file at below/nowhere, which below/own\.yaml extends$"):
        config.load("below/own.yaml")


# --- installed --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a wheel's files, as pip lays them out; its libraries are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    for part in ("sak", "teachers", "tools", "configs"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory with a package `teachers` of its own."""
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "__init__.py").write_text("raise SystemExit('the wrong teachers')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_installed(site, *arguments):
    """As its console script does, whose folder stands where modules are sought first."""
    script = "import sys; sys.path[0] = '/nowhere'; from sak.__main__ import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment)


def test_a_wheel_holds_tools_configs_and_miniatures(installed):
    for inside, there, pattern in (
        ("sak/tools", "tools", "*.py"),
        ("sak/configs", "configs", "*.yaml"),
        ("teachers/mini", "teachers/mini", "*.safetensors"),
        ("sak", "sak", "*.json"),
    ):
        files = {file.relative_to(ROOT / there) for file in (ROOT / there).rglob(pattern)}
        assert len(files) >= 3
        for file in files:
            assert (installed / inside / file).read_bytes() == (ROOT / there / file).read_bytes(), file
    (about,) = installed.glob("*.dist-info")
    assert "sak = sak.__main__:main" in (about / "entry_points.txt").read_text()
    facts = (about / "METADATA").read_text()
    assert f"Version: {sak.__version__}\n" in facts
    extras = set(re.findall(r"^Provides-Extra: (\w+)$", facts, re.MULTILINE))
    assert extras >= {"demo", "export", "adapt", "vocabulary", "slurm", "test", "all"}
    assert {file.name for file in installed.iterdir()} == {"sak", "teachers", about.name}


def test_all_is_the_sum_of_the_extras():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = dict(setup["options.extras_require"])
    named = set(re.findall(r"[\w-]+", extras.pop("all").partition("[")[2]))
    assert named == extras.keys()


def test_an_installed_sak_lists_its_tools_and_configs_anywhere(installed, elsewhere):
    told = run_installed(installed, "--help")
    assert told.returncode == 0
    assert all(f"  {tool} " in told.stdout for tool in TOOLS)
    refused = run_installed(installed, "train", "sak_pascal_mini", "seed=x")
    assert refused.returncode == 2
    assert "seed is 'x'" in refused.stderr


@pytest.mark.slow
def test_an_installed_sak_builds_its_committee_beside_a_foreign_package(installed, elsewhere):
    script = (
        "import sys; sys.path[0] = '/nowhere'\n"
        "from sak import config\nfrom sak.bundles.build import build_committee\n"
        "print(*build_committee(config.load('sak_pascal_mini')).reports, sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [name for name in MINIATURES if f"{installed}/teachers/mini/{name}.safetensors" in done.stdout] == MINIATURES


def beside(folder, statement):
    """What becomes of a statement behind `import sak` in a folder, without the libraries of this environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-S", "-c", f"import sak, importlib.util\n{statement}"]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("hiding", "statement"),
    [
        ("teachers/__init__.py", "import teachers.fingerprints"),
        ("teachers/__init__.py", "import teachers.pretrain.run"),
        ("teachers/__init__.py", "from teachers import Committee"),
        ("teachers.py", "from teachers import Committee"),
    ],
)
def test_what_hides_our_teachers_is_named(tmp_path, hiding, statement):
    (tmp_path / "teachers").mkdir()
    (tmp_path / hiding).write_text("")
    done = beside(tmp_path, statement)
    assert done.returncode == 1
    assert str(tmp_path / hiding) in done.stderr.splitlines()[-1]


def test_what_hides_nothing_is_left_alone(tmp_path):
    (tmp_path / "teachers").mkdir()
    done = beside(tmp_path, "print(importlib.util.find_spec('teachers').origin)")
    assert done.stdout.strip() == str(ROOT / "teachers" / "__init__.py")  # a folder without it is no package
    (tmp_path / "teachers" / "__init__.py").write_text("")
    (tmp_path / "teachers" / "base.py").write_text("print('mine')")
    assert beside(tmp_path, "import teachers.base").stdout == "mine\n"
    done = beside(tmp_path, "import teachers.nowhere")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'teachers.nowhere'"


@pytest.mark.slow  # it installs into an environment of its own
def test_pip_installs_it_outside_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which may lead to the checkout
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    place = Path(sysconfig.get_path("purelib"))
    (own,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (own / "libraries.pth").write_text(f"{place}\n")  # of this environment, behind its own
    program = tmp_path / "venv" / "bin"
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([program / "python", "-m", "pip", "install", "--no-deps", "--ignore-installed", wheel], check=True)
    work = tmp_path / "work"
    (work / "teachers").mkdir(parents=True)
    (work / "teachers" / "__init__.py").write_text("raise SystemExit('the wrong teachers')")
    steps = ["stages.distill.steps=2", "stages.multitask.steps=2"]
    small = ["data.renderer.train=40", "data.renderer.val=8"]
    for arguments in (["train", "sak_pascal_mini", *steps, *small], ["doctor", "sak_pascal_mini", *small]):
        subprocess.run([program / "sak", *arguments], cwd=work, check=True)
    run = work / "runs" / "sak_pascal_mini"
    assert json.loads((run / "metrics.json").read_text())["semseg"]["miou"] > 0
    assert json.loads((run / "environment.json").read_text())["git"] is None
