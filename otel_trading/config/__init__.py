"""What ``configure`` is told: defaults, our YAML file, the environment, and the arguments; later ones win.

``keys`` lists what there is.  A mapping or a file has keys nested (``{"ring": {"slots": 65536}}``) or flat
(``{"ring.slots": 65536}``).  Times are seconds, or text with a unit ("100ms").  Every mistake is told, all at once,
each with its key and its place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config.durations import duration_ns
    from otel_trading.config.problems import InvalidConfigurationError, Problem
    from otel_trading.config.resolution import resolve, sdk_disabled
    from otel_trading.config.settings import Settings

__all__ = ["InvalidConfigurationError", "Problem", "Settings", "duration_ns", "resolve", "sdk_disabled"]

_HOMES = {
    "InvalidConfigurationError": "problems",
    "Problem": "problems",
    "Settings": "settings",
    "duration_ns": "durations",
    "resolve": "resolution",
    "sdk_disabled": "resolution",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: a program that only reads times needs no keys."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found
