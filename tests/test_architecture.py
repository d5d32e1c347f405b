"""The rooms of the house and their one-way order, held against the imports that the code really has."""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top to the ground: a room uses only rooms that stand below it. docs/architecture.md says what each is for.
ROOMS = (
    "tools",
    "sak.research",
    "sak.vocabulary",
    "sak.preflight",
    "sak.training",
    "sak.deploy",
    "sak.evaluation",
    "sak.bundles",
    "sak.adaptation",
    "sak.distillation",
    "teachers",
    "sak.data",
    "sak.tasks",
    "sak.metrics",
    "sak.config",
    "sak.student",
    "sak.tensors",
    "sak",  # the small things that everyone uses, each a file
)
LONGEST = 300  # lines of a file
LARGEST = {"sak/training": 20}  # files of a folder; others hold 12
FILES = sorted(file for room in ("sak", "teachers", "tools") for file in (ROOT / room).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def room_of(module: str) -> str:
    return next(room for room in ROOMS if module == room or module.startswith(f"{room}."))


def imports_of(file: Path, everywhere: bool = True) -> set[str]:
    """The modules of ours that a file imports; those inside of functions too, or at its top alone."""
    tree, found = ast.parse(file.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                found.add(name)
    return found


IMPORTS = {module: imports_of(file) for module, file in MODULES.items()}


def test_no_room_imports_upwards():
    upwards = [
        f"{module} imports {imported}"
        for module, imports in IMPORTS.items()
        for imported in imports
        if ROOMS.index(room_of(imported)) < ROOMS.index(room_of(module)) and module != "sak"
    ]
    assert upwards == []


def test_the_order_sees_an_upward_import():
    """What the test above relies on."""
    assert room_of("sak.research.ablation.ablate") == "sak.research"
    assert room_of("sak.files") == "sak"
    assert "sak.config.schema" in IMPORTS["sak.config.checks"]
    assert ROOMS.index(room_of("sak.training.train")) < ROOMS.index(room_of("sak.evaluation.evaluate"))


def test_nothing_is_imported_in_a_circle():
    """Among files; a package's face, which hands names on, is left out."""
    graph = {m: {i for i in imports if i != m and MODULES[i].name != "__init__.py"} for m, imports in IMPORTS.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_student_stands_alone():
    """All that inference needs imports nothing else of ours."""
    for module, imports in IMPORTS.items():
        if room_of(module) == "sak.student":
            assert {room_of(imported) for imported in imports} <= {"sak.student"}, module


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda f: str(f.relative_to(ROOT)))
def test_folders_and_files_are_small_enough_to_be_overlooked(folder):
    name = str(folder.relative_to(ROOT))
    files = [file for file in folder.glob("*.py") if file.name not in ("__init__.py", "__main__.py")]
    if name.startswith("sak"):
        assert len(files) <= LARGEST.get(name, 12)
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST, file


def test_every_room_has_a_face():
    for room, package in itertools.product(("sak", "teachers"), ROOT.glob("*/**/")):
        if package.relative_to(ROOT).parts[0] == room and any(package.glob("*.py")):
            assert (package / "__init__.py").is_file(), package


MODES = ("autocast", "no_grad", "inference_mode", "enable_grad", "set_grad_enabled", "fork_rng", "device")


def yields_in_a_mode(source: str) -> list[int]:
    """The lines where a generator hands something out in a mode of torch's, which is then on in its reader too."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or any(
            "contextmanager" in ast.unparse(d) for d in function.decorator_list
        ):
            continue
        for block in ast.walk(function):
            if isinstance(block, ast.With):
                calls = [item.context_expr for item in block.items if isinstance(item.context_expr, ast.Call)]
                if any(ast.unparse(call.func).rpartition(".")[2] in MODES for call in calls):
                    inside = (node for statement in block.body for node in ast.walk(statement))
                    found += [node.lineno for node in inside if isinstance(node, (ast.Yield, ast.YieldFrom))]
    return found


def test_no_generator_leaves_a_mode_on_in_its_reader():
    assert {module: lines for module, file in MODULES.items() if (lines := yields_in_a_mode(file.read_text()))} == {}


@pytest.mark.parametrize(
    ("mode", "out", "lines"),
    [
        ("accelerator.autocast()", "yield 1", [4]),
        ("torch.no_grad()", "yield from x", [4]),
        ("a, torch.inference_mode()", "y = [(yield 2)]", [4]),
        ("progress", "yield 1", []),
        ("torch.no_grad()", "return 1", []),
    ],
)
def test_what_the_test_above_relies_on(mode, out, lines):
    assert yields_in_a_mode(f"def f():\n    for x in y:\n        with {mode}:\n            {out}") == lines
    assert yields_in_a_mode(f"@contextlib.contextmanager\ndef f():\n    with {mode}:\n        {out}") == []
