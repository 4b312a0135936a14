"""Several expositions of Prometheus' text format made one: each family once, its series told apart by labels."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{|[ \t])")
_MOST_LINE = 65_536  # characters


class _Family:
    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text
        self.lines: list[str] = []


class Exposition:
    """Collects series, and writes them family by family."""

    def __init__(self) -> None:
        """Begin empty."""
        self._families: dict[str, _Family] = {}
        self.left_out = 0
        """Lines that are nothing, or of a family that is of another kind elsewhere."""

    def add(self, text: str, labels: Mapping[str, str]) -> None:
        """Add an exposition; each of its series gets the labels that it has not got already."""
        added = [(name, f'{name}="{_escaped(value)}"') for name, value in labels.items()]
        kind, words, name = "untyped", "", ""
        family: _Family | None = None
        for line in text.split("\n"):
            if not line or len(line) > _MOST_LINE:
                self.left_out += len(line) > _MOST_LINE
                continue
            if line.startswith("#"):
                parts = line.split(" ", 3)
                if len(parts) == 4 and parts[1] == "HELP":  # noqa: PLR2004
                    name, words, kind = parts[2], parts[3], "untyped"
                elif len(parts) == 4 and parts[1] == "TYPE":  # noqa: PLR2004
                    words = words if parts[2] == name else ""
                    name, kind = parts[2], parts[3]
                    family = self._family(name, kind, words)
                continue
            found = _SAMPLE.match(line)
            if found is None or family is None or not _belongs(found[1], name, kind):
                self.left_out += 1
                continue
            family.lines.append(_labelled(line, found, added))

    def series(self, name: str, kind: str, text: str, points: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """Add a family of our own: gauges and counters."""
        family = self._family(name, kind, text)
        if family is None:
            return
        for labels, value in points:
            inner = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items())
            family.lines.append(f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}")

    def _family(self, name: str, kind: str, text: str) -> _Family | None:
        found = self._families.setdefault(name, _Family(kind, text))
        return found if found.kind == kind else None

    def text(self) -> str:
        """Give the whole."""
        parts: list[str] = []
        for name, family in self._families.items():
            if family.lines:
                parts += [f"# HELP {name} {family.text or name}", f"# TYPE {name} {family.kind}", *family.lines]
        return "\n".join([*parts, ""])


def _belongs(sample: str, name: str, kind: str) -> bool:
    return sample == name or (sample.startswith(name) and sample[len(name) :] in _SUFFIXES.get(kind, ()))


def _labelled(line: str, found: re.Match[str], added: Sequence[tuple[str, str]]) -> str:
    name, rest = found[1], line[found.end() - 1 :]
    if found[2] != "{":
        return f"{name}{{{','.join(label for _, label in added)}}}{rest}" if added else line
    inner = rest[1:]
    wanted = [label for key, label in added if not re.search(rf'(?:^|,)\s*{key}="', inner)]
    joint = "," if wanted and not inner.lstrip().startswith("}") else ""
    return f"{name}{{{','.join(wanted)}{joint}{inner}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
