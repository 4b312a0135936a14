"""The names that our code records, and the page that lists them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from otel_trading import semconv

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "otel_trading"
PAGE = (ROOT / "docs" / "semantic-conventions.md").read_text(encoding="utf-8")
NAMES = {name: value for name, value in vars(semconv).items() if name.isupper()}

# The demo is a program, whose attributes are its own; the pages of the live view are no records.
_PROGRAMS = ("demo", "bench", "cli")
_NAME = re.compile(r"trading(\.[a-z][a-z0-9_]*)+")


def sources() -> list[Path]:
    """Give the package's Python files that may record something of their own."""
    found = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in _PROGRAMS]
    assert len(found) > 20
    return found


def constants(path: Path) -> set[str]:
    """Give all text in a module that is the name of an attribute or a metric of ours."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in texts if _NAME.fullmatch(text)}


def test_every_constant_is_on_the_page() -> None:
    """Each name of ``semconv`` has a line with its constant."""
    lines = re.findall(r"^\| `([a-z_.]+)` \| [^|]+ \| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert {constant: name for name, constant in lines} == NAMES


def test_every_name_in_the_sources_is_on_the_page() -> None:
    """What the package's Python code names ``trading.…`` is an attribute or a metric that the page lists."""
    listed = set(re.findall(r"`([a-z_.]+)`", PAGE))
    unlisted = {
        (str(path.relative_to(ROOT)), name)
        for path in sources()
        for name in constants(path)
        if name not in listed and not name.startswith("trading.telemetry.")
    }
    assert unlisted == set()


def test_every_name_in_the_c_sources_is_on_the_page() -> None:
    """The same of what C names."""
    listed = set(re.findall(r"`([a-z_.]+)`", PAGE))
    found = {
        match[1]
        for path in sorted((PACKAGE / "_native").glob("*.[ch]"))
        for match in re.finditer(r'"(trading(?:\.[a-z][a-z0-9_]*)+)"', path.read_text(encoding="utf-8"))
    }
    assert found - listed == set()


def test_attributes_are_set_by_their_constants() -> None:
    """No instrumentor sets an attribute by a literal, which no list would know."""
    calls = (
        node
        for path in (PACKAGE / "instrument").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
    )
    literals = [ast.unparse(call) for call in calls if re.search(r"(^|\.)(set_attribute|put)$", ast.unparse(call.func))]
    assert literals == []


def test_every_span_of_an_instrumentor_is_on_the_page() -> None:
    """Each probe that an instrumentor makes by a fixed name has a line."""
    listed = set(re.findall(r"`([a-z_.]+)`", PAGE))
    made = {
        match[1]
        for path in (PACKAGE / "instrument").glob("*.py")
        for match in re.finditer(r'\bprobe\("([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(made) >= 7
    assert made - listed == set()
