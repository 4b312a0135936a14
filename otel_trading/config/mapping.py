"""A mapping of keys, nested or flat, made flat; what is no key is told with the nearest one."""

from __future__ import annotations

from otel_trading.config.budget_values import P0_STAYS
from otel_trading.config.keys import KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_DEEPEST = 16  # groups within groups: a mapping that holds itself must come to an end


def flatten(
    config: Mapping[Any, Any], complain: Callable[[str, str], None], prefix: str = "", depth: int = 0
) -> dict[str, object]:
    """Give {key: value}; ``complain`` is called with the path and the message of each mistake."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if not isinstance(key, str):
            complain(f"{prefix}{key!r}", "keys are text")
            continue
        path = prefix + key
        if path in KEYS:
            found = {path: value}
        elif hasattr(value, "items") and is_group(path) and depth < _DEEPEST:
            found = flatten(value, complain, path + ".", depth + 1)
        else:
            complain(path, unknown(path))
            continue
        for each in found:
            if each in flat:
                complain(each, "given twice")
        flat.update(found)
    return flat


def is_group(path: str) -> bool:
    """Tell whether there are keys below ``path``."""
    return any(known.startswith(path + ".") for known in KEYS)


def unknown(path: str) -> str:
    """Say that ``path`` is no key, and which the nearest one is."""
    if "p0" in path.lower().split("."):
        return f"no such key; {P0_STAYS}"
    inside = sorted(known for known in KEYS if known.startswith(path + "."))
    if inside:
        return f"is a group of keys ({', '.join(inside)}), not a value"
    import difflib  # only for the message

    candidates = {*KEYS, *(known.rpartition(".")[0] for known in KEYS if "." in known)}
    near = difflib.get_close_matches(path, sorted(candidates), n=1, cutoff=0.5)
    return f"no such key; did you mean {near[0]}?" if near else f"no such key; the keys are {', '.join(KEYS)}"
