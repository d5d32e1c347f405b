"""What tells one set of features from another: weights, images, settings, and the code that computes them."""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from teachers.base import Teacher
from teachers.multiscale import MultiScale

# What features were computed with before keys told it. Keys leave these out, so that such features stay valid.
FIRST_LIBRARIES = {"timm": "1.0.31", "open_clip_torch": "3.3.0", "segment-anything": "1.0"}
FIRST_SPEC = {"fit": "resize", "interpolation": "bilinear"}
OURS = ("sak", "teachers")


def weights_hash(teacher: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(teacher.named_parameters()), **dict(teacher.named_buffers())}.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def names_hash(files: Iterable) -> str:
    """What tells one list of images from another, wherever they lie: their number, and SHA-256 of names and order.

    Args:
        files: what has a `stem`.
    """
    digest, count = hashlib.sha256(), 0
    for count, file in enumerate(files, start=1):  # noqa: B007  (the last one is the number)
        digest.update(f"{file.stem}\n".encode("utf-8", "surrogateescape"))
    return f"{count} images, {digest.hexdigest()[:16]}"


def files_hash(files: Iterable) -> str:
    """SHA-256 of the files' names (without folder and suffix) and sizes in bytes, in their order.

    Args:
        files: paths, or what has their `stem` and a `size` in bytes; a path that leads nowhere has no size.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            size = file.stat().st_size if isinstance(file, Path) else file.size
        except OSError:
            size = None  # reading the image will say so
        digest.update(f"{file.stem} {size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def contents_hash(files: Iterable[Path]) -> str:
    """SHA-256 of what the files hold, in their order; one that cannot be read holds nothing, which reading will say."""
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def spec_facts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's spec without the settings that mean what was before they existed."""
    return {key: value for key, value in spec.items() if key not in FIRST_SPEC or value != FIRST_SPEC[key]}


def teacher_facts(teacher: Teacher | MultiScale, size: Sequence[int]) -> dict[str, Any]:
    """What its features depend on beside its spec, as JSON: weights, code, libraries, and how they came to be computed.

    Args:
        size: (H, W) of the images.
    """
    kind = type(teacher.teacher if isinstance(teacher, MultiScale) else teacher)
    height, width = size
    libraries = {name: _version(name) for name in kind.LIBRARIES}
    more = {
        "changes": teacher.changes(height, width),
        "libraries": {name: version for name, version in libraries.items() if FIRST_LIBRARIES.get(name) != version},
        "code": code_of(kind) if kind.__module__.partition(".")[0] not in OURS else {},
    }
    return {"weights": weights_hash(teacher), **{fact: value for fact, value in more.items() if value}}


def code_of(kind: type) -> dict[str, str]:
    """The code that a class is made of: the SHA-256 of the source of its module, and of all modules that such modules
    import; of an installed package, other than its own, the version.

    Python's own library and this project are left out.
    """
    own, found, waiting = kind.__module__.partition(".")[0], {}, [kind.__module__]
    installed = metadata.packages_distributions()
    while waiting:
        name = waiting.pop()
        package = name.partition(".")[0]
        if name in found or package in OURS:
            continue
        if package != own and _is_installed(package, installed):
            if package in installed:  # else it is Python's own
                found[package] = ", ".join(sorted(set(map(_version, installed[package]))))
            continue
        if (file := _source(name)) is not None:
            content = file.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
            if file.suffix == ".py":
                waiting += _imports(name, content, file.name == "__init__.py")
    return dict(sorted(found.items()))


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def _source(module: str) -> Path | None:
    """The file of a module that can be imported; None: it has none, or is no module but a name in one."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(found.origin) if found and found.origin and found.has_location else None


def _is_installed(package: str, installed: Mapping[str, Sequence[str]]) -> bool:
    if (file := _source(package)) is None:
        return package in installed
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or file.is_relative_to(
        sysconfig.get_path("stdlib")
    )


def _imports(module: str, source: bytes, is_package: bool) -> Iterator[str]:
    """The modules that a source imports anywhere, and the packages that hold them; some may be names in modules."""
    base = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), base)
            names = [f"{start}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
