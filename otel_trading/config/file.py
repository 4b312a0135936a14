"""Our YAML file, read as hostile input: bounded, without tags, anchors and aliases, each key once.

Only PyYAML's scanner and parser are at work here.  Values become null, booleans, numbers and text, and nothing else: a
date stays the text that it is.
"""

from __future__ import annotations

import os
import re
import stat

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError
from yaml.resolver import Resolver

from otel_trading.config.problems import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LARGEST = 262_144
"""Bytes of a file."""
DEEPEST = 16
"""Mappings and lists within each other."""
MOST = 10_000
"""Keys and values."""

_LONGEST_NUMBER = 64  # characters
_NUMBERS = ("int", "float")
_EXPONENT = re.compile(r"[-+]?\d{1,20}(\.\d{0,20})?[eE][-+]?\d{1,4}")
_NOTHING: Any = object()  # in place of a value that was refused, and told


class _Stop(Exception):  # noqa: N818  not an error: the rest of the file cannot be looked at
    pass


class File:
    """What a file holds, the line of each key path, and what was wrong with it."""

    def __init__(self, path: str) -> None:
        """Read nothing yet."""
        self.path = path
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.unreadable = False

    def line(self, key: str) -> int | None:
        """Tell the line of a key, or of the nearest one around it."""
        while key and key not in self.lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.lines.get(key)

    def complain(self, key: str, message: str, line: int | None = None) -> None:
        """Note a mistake."""
        self.problems.append(Problem(key, message, self.path, line if line is not None else self.line(key)))


def load(path: str | os.PathLike[str]) -> File:
    """Read a file; nothing is raised, all mistakes are in ``problems``.

    ``unreadable`` tells that there was nothing to look at: no file, no right to read it, too large, not text.
    """
    file = File(os.path.abspath(os.fsdecode(path)))
    text = _text(file)
    if text is not None:
        _Walk(file, text).run()
    return file


def _text(file: File) -> str | None:
    try:
        # O_NONBLOCK: opening a pipe must not wait for its other end.
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        _refuse(file, f"can not be read ({getattr(error, 'strerror', None) or error})")
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            _refuse(file, "is not a regular file")
            return None
        with os.fdopen(os.dup(fd), "rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        _refuse(file, f"can not be read ({error.strerror})")
        return None
    finally:
        os.close(fd)
    if len(content) > LARGEST:
        _refuse(file, f"has more than {LARGEST} bytes, too many for a configuration")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        _refuse(file, f"is not text in UTF-8 (byte {content[error.start]:#04x} in line {line})")
        return None


def _refuse(file: File, message: str) -> None:
    file.unreadable = True
    file.problems.append(Problem(file.path, message))


class _Walk:
    """From the parser's events to plain values."""

    def __init__(self, file: File, text: str) -> None:
        self.file = file
        self.text = text
        self.count = 0
        self.resolver = Resolver()
        self.constructor = SafeConstructor()

    def run(self) -> None:
        events: Iterator[Any] = iter(())
        try:
            events = yaml.parse(self.text, Loader=yaml.SafeLoader)
            self.document(events)
        except _Stop:
            pass
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = " ".join(filter(None, [error.problem or "not YAML", error.context]))
            column = f" in column {mark.column + 1}" if mark else ""
            self.syntax(f"{what}{column}", mark.line + 1 if mark else None)
        except ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            self.syntax(f"a character that YAML does not allow, {error.character!r}", line)

    def syntax(self, message: str, line: int | None) -> None:
        self.file.complain("YAML", f"can not be parsed: {message}", line)

    def document(self, events: Iterator[Any]) -> None:
        content, documents = _NOTHING, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.stop("YAML", "more than one document is in the file; leave one", event)
            elif isinstance(event, yaml.NodeEvent):
                content = self.node(events, event, "", 1)
                if not isinstance(content, dict) and content is not _NOTHING and content is not None:
                    self.stop("YAML", "is not a mapping of keys at its top", event)
        if isinstance(content, dict):
            self.file.values = content

    def node(self, events: Iterator[Any], event: Any, path: str, depth: int) -> Any:
        self.count += 1
        if self.count > MOST:
            self.stop(path or "YAML", f"the file has more than {MOST} keys and values", event)
        refused = self.refused(event, path or "YAML")
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, path)
        elif isinstance(event, yaml.AliasEvent):
            return _NOTHING
        else:
            if depth > DEEPEST:
                self.stop(path, f"is nested more than {DEEPEST} deep", event)
            mapping = isinstance(event, yaml.MappingStartEvent)
            value = (self.mapping if mapping else self.sequence)(events, path, depth)
        return _NOTHING if refused else value

    def refused(self, event: Any, path: str) -> bool:
        line = event.start_mark.line + 1
        if event.anchor is not None:
            kind = "an alias (*" if isinstance(event, yaml.AliasEvent) else "an anchor (&"
            self.file.complain(path, f"{kind}{event.anchor}) is not taken here: write the value out", line)
            return True
        if getattr(event, "tag", None) is not None:
            self.file.complain(path, f"a tag ({event.tag}) is not taken here: write a plain value", line)
            return True
        return False

    def mapping(self, events: Iterator[Any], prefix: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = event.start_mark.line + 1
            name = event.value if isinstance(event, yaml.ScalarEvent) else None
            path = f"{prefix}.{name}" if prefix else str(name)
            if not name:
                self.stop(prefix or "YAML", "a key is neither a word nor text", event)
            if self.refused(event, path):
                name = None
            elif name in found:
                self.file.complain(path, f"given twice; the first is in line {self.file.lines[path]}", line)
                name = None
            else:
                self.file.lines.setdefault(path, line)
            value = self.node(events, next(events), path, depth + 1)
            if name is not None:
                found[name] = value
        return {name: value for name, value in found.items() if value is not _NOTHING}

    def sequence(self, events: Iterator[Any], prefix: str, depth: int) -> list[Any]:
        found: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            path = f"{prefix}[{len(found)}]"
            self.file.lines[path] = event.start_mark.line + 1
            found.append(self.node(events, event, path, depth + 1))
        return [value for value in found if value is not _NOTHING]

    def scalar(self, event: Any, path: str) -> Any:
        text: str = event.value
        if not event.implicit[0]:  # in quotes, or a block
            return text
        tag = self.resolver.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        kind = tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return SafeConstructor.bool_values[text.lower()]
        if len(text) > _LONGEST_NUMBER and kind in _NUMBERS:
            self.file.complain(path, "the number is too long", event.start_mark.line + 1)
            return _NOTHING
        return self.number(kind, tag, text)

    def number(self, kind: str, tag: str, text: str) -> int | float | str:
        """Give the number that ``text`` is, or ``text``."""
        if kind == "str" and _EXPONENT.fullmatch(text):  # 1e-3, which YAML 1.1 takes for text
            return float(text)
        if kind not in _NUMBERS or ":" in text:  # 12:30 is no number of sixties
            return text
        make = self.constructor.construct_yaml_int if kind == "int" else self.constructor.construct_yaml_float
        try:
            return make(yaml.ScalarNode(tag, text))
        except ValueError:  # "0x_", which the resolver takes for a number
            return text

    def stop(self, path: str, message: str, event: Any) -> None:
        self.file.complain(path, message, event.start_mark.line + 1)
        raise _Stop
