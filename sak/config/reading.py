"""From the YAML of a file or of the command line to values of the schema's types; each mistake names line and key.

What the schema says is text is taken as it is written, whatever YAML makes of it: `name: 2024_11`, `revision: 0123456`
and `precision: no` are no numbers and no truth value.
"""

import contextlib
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from sak.config.schema import Config, TeacherSpec
from sak.errors import SHOWN, UserError, shown

EXTENDS = "extends"  # the key of a file that names the file beneath it
COMMAND_LINE = "the command line"
MOST_NODES = 100_000  # of a file whose aliases are written out
TEXT, NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
NULLS = ("", "~", "null", "Null", "NULL")
FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """Unlike YAML 1.1 it knows that 1e-3 is a number, and nothing of dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{FLOAT.pattern})$"), list("-+0123456789."))


def read_file(path: Path) -> MappingNode:
    """The keys and values of a config file, not yet held against the schema.

    Raises:
        UserError: it cannot be read, is no YAML, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a readable YAML file: it is not in UTF-8") from None
    node = _parse(text, lambda line: f"{path} is not a readable YAML file: line {line}") or MappingNode(
        "tag:yaml.org,2002:map", []
    )
    if not isinstance(node, MappingNode):
        raise UserError(f"{path} must hold keys and values, not {_kind(node)}")
    return node


def extended(node: MappingNode, path: Path) -> str | None:
    """The file that a config file extends; its key is taken out of the node.

    Raises:
        UserError: it names none, or several.
    """
    named = [value for key, value in node.value if key.value == EXTENDS]
    node.value = [(key, value) for key, value in node.value if key.value != EXTENDS]
    if not named or named[0].tag == NULL:
        return None
    if len(named) > 1 or not isinstance(named[0], ScalarNode):
        raise UserError(f"{path}, line {_line(named[-1])}: {EXTENDS} must be the path of one file")
    return named[0].value


def content_of_file(node: MappingNode, path: Path) -> dict[str, Any]:
    """What the file says, in the schema's types.

    Raises:
        UserError: a key is unknown, or a value of another type.
    """
    return _Content(lambda line: f"{path}, line {line}").of(node, Config, "")


def content_of_override(text: str) -> dict[str, Any]:
    """The same of `key=value`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"override {shown(text)!r} on the command line is not of the form key=value")
    names, schema = key.split("."), Config
    for name in names:
        schema = _schema_of(schema, name)
    node: Node | None
    if _takes_text(schema) and not value.lstrip().startswith(("'", '"')):  # all the rest is the text itself
        node = ScalarNode(NULL if value.strip() in NULLS else TEXT, value)
    else:
        node = _parse(value, lambda _: f"override {shown(text)!r} on the command line cannot be read")
    node = ScalarNode(NULL, "") if node is None else node
    for name in reversed(names):
        node = MappingNode("tag:yaml.org,2002:map", [(ScalarNode(TEXT, name), node)])
    return _Content(lambda _: COMMAND_LINE).of(node, Config, "")


class _Content:
    """
    Args:
        where: says of a line where it stands.
    """

    def __init__(self, where: Callable[[int], str]):
        self.where = where

    def of(self, node: Node, schema: Any, key: str) -> Any:
        """The value of a node that the schema gives this type."""
        choices = _choices(schema)
        if node.tag == NULL and isinstance(node, ScalarNode):
            if type(None) in choices or schema in (Any, TeacherSpec):  # a teacher that is null is taken out
                return None
            self._refuse(node, key, f"{_expected(schema)}, and has no value")
        if isinstance(node, ScalarNode) and ("${" in node.value or node.value == "???"):
            return node.value  # OmegaConf's: it is put in later, and its type checked
        if schema is Any:
            return self._untyped(node, key)
        if any(dataclasses.is_dataclass(choice) or typing.get_origin(choice) is dict for choice in choices):
            return self._mapping(node, schema, key)
        if listed := [choice for choice in choices if typing.get_origin(choice) is list]:
            if not isinstance(node, SequenceNode):
                self._refuse(node, key, "a list, as in [a, b]")
            (element,) = typing.get_args(listed[0])
            return [self.of(child, element, f"{key}[{place}]") for place, child in enumerate(node.value)]
        return self._scalar(node, choices, key, _expected(schema))

    def _scalar(self, node: Node, choices: tuple, key: str, expected: str) -> Any:
        if not isinstance(node, ScalarNode):
            self._refuse(node, key, expected)
        if int not in choices and str in choices:
            return self._text(node, key)
        value = self._untyped(_unquoted(node), key)
        if bool in choices and (isinstance(value, bool) or value in (0, 1)):
            return bool(value)
        if int in choices and isinstance(value, int) and not isinstance(value, bool):
            return value
        if float in choices and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                return float(value)
        if str in choices:
            return self._text(node, key)
        self._refuse(node, key, expected)

    def _text(self, node: ScalarNode, key: str) -> str:
        if not node.value.strip() or re.search("[\x00-\x1f\x7f\ud800-\udfff]", node.value):
            self._refuse(node, key, "text that is not empty, without control characters")
        return node.value

    def _mapping(self, node: Node, schema: Any, key: str) -> dict[str, Any]:
        if not isinstance(node, MappingNode):
            self._refuse(node, key, _expected(schema))
        given: set[str] = set()
        for name, _ in node.value:
            if not isinstance(name, ScalarNode):
                self._refuse(name, key, "given by names, not by lists")
            if name.value in given:
                raise UserError(f"{self.where(_line(name))}: {shown(f'{key}.{name.value}'.lstrip('.'))} is given twice")
            given.add(name.value)
        self._guarded(lambda: _Loader("").flatten_mapping(node), node, key)  # what `<<` refers to now comes first
        found: dict[str, Any] = {}
        for name, value in node.value:
            inner, known = f"{key}.{name.value}".lstrip("."), _fields(schema)
            if known is not None and name.value not in known:
                nearest = difflib.get_close_matches(name.value[:SHOWN], known, n=1, cutoff=0.0)[0]
                nearest = f"{key}.{nearest}".lstrip(".")
                raise UserError(
                    f"{self.where(_line(name))}: unknown key {shown(inner)}; the nearest known key is {nearest}"
                )
            found[name.value] = self.of(value, _schema_of(schema, name.value), inner)
        return found

    def _untyped(self, node: Node, key: str) -> Any:
        return self._guarded(lambda: _Loader("").construct_object(node, deep=True), node, key)

    def _guarded(self, construct: Callable[[], Any], node: Node, key: str) -> Any:
        try:
            return construct()
        except (yaml.YAMLError, ValueError, TypeError) as error:
            reason = getattr(error, "problem", None) or str(error)
            raise UserError(f"{self.where(_line(node))}: {shown(key)} cannot be read: {shown(reason)}") from None

    def _refuse(self, node: Node, key: str, expected: str) -> typing.NoReturn:
        given = f" is {shown(node.value)!r}, but" if isinstance(node, ScalarNode) and node.tag != NULL else ""
        raise UserError(f"{self.where(_line(node))}: {shown(key)}{given} must be {expected}")


def _parse(text: str, where: Callable[[int], str]) -> Node | None:
    """
    Raises:
        UserError: it is no YAML, or its aliases lead in a circle or to too much.
    """
    try:
        node = yaml.compose(text, _Loader)
        if node is not None and _written_out(node, {}) > MOST_NODES:
            raise UserError(f"{where(1)}: it holds more than {MOST_NODES:,} values, with its aliases written out")
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = shown(error.problem or error.context or "")
        raise UserError(f"{where(mark.line + 1 if mark else 1)}: {what}") from None
    except yaml.YAMLError as error:  # of the reader: a character that YAML does not allow
        raise UserError(f"{where(1)}: {shown(str(error).splitlines()[0])}") from None
    except RecursionError:
        raise UserError(f"{where(1)}: it is nested too deeply, or holds itself") from None


def _written_out(node: Node, known: dict[int, int]) -> int:
    """How many nodes there are where each alias stands for all that it refers to."""
    if id(node) not in known:
        children = [] if isinstance(node, ScalarNode) else node.value
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def _unquoted(node: ScalarNode) -> ScalarNode:
    """What is no text is meant in quotes as it is without."""
    return ScalarNode(_Loader("").resolve(ScalarNode, node.value, (True, False)), node.value, node.start_mark)


def _choices(schema: Any) -> tuple:
    """int | None -> (int, NoneType); all else is the only one."""
    return typing.get_args(schema) if isinstance(schema, types.UnionType) else (schema,)


def _takes_text(schema: Any) -> bool:
    return str in (choices := _choices(schema)) and int not in choices


def _fields(schema: Any) -> dict[str, Any] | None:
    """{name: type} of a dataclass; None where any name will do."""
    return (
        {field.name: field.type for field in dataclasses.fields(schema)} if dataclasses.is_dataclass(schema) else None
    )


def _schema_of(schema: Any, name: str) -> Any:
    """The type of what stands under a name; of an unknown one, anything."""
    if (known := _fields(schema)) is not None:
        return known.get(name, Any)
    return typing.get_args(schema)[1] if typing.get_origin(schema) is dict else Any


def _expected(schema: Any) -> str:
    """What a value must be, in words."""
    if dataclasses.is_dataclass(schema) or typing.get_origin(schema) is dict:
        return "keys and values"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    return " or ".join(words.get(choice, "a list, as in [a, b]") for choice in _choices(schema))


def _kind(node: Node) -> str:
    return "a list" if isinstance(node, SequenceNode) else "text"


def _line(node: Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 1
