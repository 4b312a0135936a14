"""Readers: each takes what a mapping or a YAML file has for a key and gives the value, or raises ValueError.

Those that end in ``_text`` take the text of an environment variable and give what such a reader takes.
"""

from __future__ import annotations

import math

from otel_trading.config.durations import duration_ns
from otel_trading.config.problems import ItemsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reader = Callable[[Any], Any]

NO_LIMIT = 0xFFFFFFFF
_TIERS = {name: tier for tier in range(4) for name in (tier, f"P{tier}", f"p{tier}")}
_MOST_ITEMS = 256
_LONGEST_SHOWN = 100  # characters of a refused value
_LONGEST_NAME = 255  # characters of a glob, an attribute's key, an instrumentor's name


def shown(value: object) -> str:
    """Show what was given, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def whole(least: int, most: int) -> Reader:
    """Read a whole number from ``least`` to ``most``."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{shown(value)} is not a whole number")  # noqa: TRY004  every mistake here is a ValueError, told by its key
        if not least <= value <= most:
            raise ValueError(f"{shown(value)} is not between {least} and {most}")
        return value

    return read


def power_of_two(least: int, most: int) -> Reader:
    """Read a power of two from ``least`` to ``most``."""
    within = whole(least, most)

    def read(value: object) -> int:
        number: int = within(value)
        if number & (number - 1):
            raise ValueError(f"{number} is not a power of two: {1 << number.bit_length()} is the next one")
        return number

    return read


def seconds(least: float, most: float) -> Reader:
    """Read a time, as ``duration_ns`` does, or 0; gives seconds."""

    def read(value: object) -> float:
        zero = isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0
        number = 0.0 if zero else duration_ns(value) / 1e9
        if not least <= number <= most:
            raise ValueError(f"{shown(value)} is not between {least} and {most} seconds")
        return number

    return read


def text(value: object) -> str:
    """Read text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{shown(value)} is not text")
    return value


def path(value: Any) -> str:
    """Read a path."""
    import os

    try:
        found = os.fsdecode(os.fspath(value))
    except TypeError:
        found = ""
    if not found or "\0" in found:
        raise ValueError(f"{shown(value)} is not a path")
    return found


def switch(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")  # noqa: TRY004  as above
    return value


def share(value: object) -> float:
    """Read a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{shown(value)} is not a number from 0 to 1")
    return float(value)


def limit(value: object) -> int:
    """Read a number of 0 or more, or "none"; gives ``NO_LIMIT`` for that."""
    if isinstance(value, str) and value.lower() in {"none", "unset"}:
        return NO_LIMIT
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= NO_LIMIT:
        raise ValueError(f"{shown(value)} is not a number of 0 or more, nor 'none'")
    return value


def host(value: object) -> str:
    """Read which process drains the segment: the recording one itself, or the user's agent."""
    name = value.strip().lower() if isinstance(value, str) else value
    if name not in {"embedded", "agent"}:
        raise ValueError(f"{shown(value)} is no host of the drain; use 'embedded' or 'agent'")
    return str(name)


def names(what: str) -> Reader:
    """Read a list of names, or text with commas between them; ``what`` they are the names of."""

    def read(value: object) -> tuple[str, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
            raise ValueError(f"{shown(value)} is not a list of {what}' names")
        if len(items) > _MOST_ITEMS or any(len(item) > _LONGEST_NAME for item in items):
            raise ValueError(f"has more than {_MOST_ITEMS} names, or one of over {_LONGEST_NAME} characters")
        return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))

    return read


def exporters(value: object) -> tuple[str, ...]:
    """Read names of exporters; "none" alone is no exporter."""
    found: tuple[str, ...] = names("exporters")(value)
    if "none" in found:
        if len(found) > 1:
            raise ValueError(f"{shown(value)} says 'none' next to others")
        return ()
    return found


def _items(value: Any, what: str) -> list[tuple[Any, Any]]:
    if not hasattr(value, "items"):
        raise ValueError(f"{shown(value)} is not a mapping of {what}")
    items = list(value.items())
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"has {len(items)} entries; at most {_MOST_ITEMS} are taken")
    return items


def _name_mistake(name: object, what: str) -> str | None:
    if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME:
        return None
    return f"{what} are text of 1 to {_LONGEST_NAME} characters"


def tiers(value: Any) -> tuple[tuple[str, int], ...]:
    """Read a mapping from globs to tiers: "P0" to "P3", or 0 to 3."""
    found, mistakes = [], []
    for glob, tier in _items(value, "globs to tiers"):
        mistake = _name_mistake(glob, "globs")
        known = isinstance(tier, (str, int)) and not isinstance(tier, bool) and tier in _TIERS
        if mistake is None and not known:
            mistake = f"{shown(tier)} is no tier: use P0, P1, P2 or P3"
            if tier is False or tier in {"off", "none"}:
                mistake += "; no name can be switched off, and tier P0 never is"
        if mistake is not None:
            mistakes.append((f".{glob}", mistake))
        else:
            found.append((glob, _TIERS[tier]))
    if mistakes:
        raise ItemsError(mistakes)
    return tuple(found)


def venues(value: Any) -> dict[str, str]:
    """Read a mapping from hosts, or ``host:port``, to the names of venues."""
    found, mistakes = {}, []
    for where, venue in _items(value, "hosts to venues"):
        mistake = _name_mistake(where, "hosts") or _name_mistake(venue, "venues")
        if mistake is not None:
            mistakes.append((f".{where}", mistake))
        else:
            found[where] = venue
    if mistakes:
        raise ItemsError(mistakes)
    return found


def hosts(value: object) -> bool | tuple[str, ...]:
    """Read true, false, or a list of hosts."""
    return value if isinstance(value, bool) else names("hosts")(value)


def attributes(value: Any) -> dict[str, Any]:
    """Read a resource's attributes: text, booleans, numbers, and lists of one of these kinds."""
    found: dict[str, Any] = {}
    mistakes = []
    for key, item in _items(value, "attributes"):
        mistake = _name_mistake(key, "attributes' names")
        items = item if isinstance(item, (list, tuple)) else [item]
        if mistake is None:
            if not all(isinstance(one, (str, bool, int, float)) for one in items):
                mistake = f"{shown(item)} is neither text, a boolean, a number, nor a list of these"
            elif len({type(one) for one in items}) > 1:
                mistake = f"{shown(item)} is a list of several kinds"
            elif any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in items):
                mistake = "the number does not fit 64 bits"
            elif any(isinstance(one, float) and not math.isfinite(one) for one in items):
                mistake = f"{shown(item)} is not finite"
        if mistake is not None:
            mistakes.append((f".{key}", mistake))
        else:
            found[key] = list(item) if isinstance(item, tuple) else item
    if mistakes:
        raise ItemsError(mistakes)
    return found


# ---- of environment variables ----


def same_text(value: str) -> object:
    """Take the text as it is."""
    return value


def whole_text(value: str) -> object:
    """Take the digits' number."""
    return int(value) if value.isdecimal() else value


def switch_text(value: str) -> object:
    """Take the words that say true or false."""
    word = value.lower()
    return True if word in {"true", "1", "yes", "on"} else False if word in {"false", "0", "no", "off"} else word


def share_text(value: str) -> object:
    """Take the number."""
    try:
        return float(value)
    except ValueError:
        return value


def attributes_text(value: str) -> object:
    """Take ``key=value,key=value``, percent-encoded; what is neither is left out, as the SDK does."""
    found = {}
    for item in value.split(","):
        key, equals, content = (part.strip() for part in item.partition("="))
        if not key or not equals:
            continue
        if "%" in content:
            from urllib.parse import unquote

            content = unquote(content)
        found[key] = content
    return found
