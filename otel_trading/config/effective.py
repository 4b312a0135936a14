"""What is in force, and where it came from; for people and for machines."""

from __future__ import annotations

import os
from math import inf
from typing import TYPE_CHECKING

from otel_trading.config.keys import KEYS
from otel_trading.config.masking import masked
from otel_trading.config.problems import InvalidConfigurationError, Problem
from otel_trading.config.resolution import combine, resolve
from otel_trading.config.values import NO_LIMIT
from otel_trading.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Any

    from otel_trading.config.settings import Settings

_PREFIX = "OTEL_TRADING_"
_OWN = {
    *(variable for key in KEYS.values() for variable in key.variables if variable.startswith(_PREFIX)),
    *(_PREFIX + name for name in ("CONFIG", "BACKEND", "BUILD", "SANITIZE", "SANITIZE_TESTS", "VENV", "CHECKLIST")),
}


class Effective:
    """A configuration as it is resolved here and now: ``settings`` is None where there are ``problems``."""

    def __init__(self, file: str | None = None) -> None:
        """Resolve: ``file`` in place of the one that ``OTEL_TRADING_CONFIG`` names.  Raises nothing."""
        self.file = file or os.environ.get("OTEL_TRADING_CONFIG", "").strip() or None
        self.settings: Settings | None = None
        self.problems: list[Problem] = []
        self.unreadable = False
        try:
            self.settings = resolve(config=file)
        except InvalidConfigurationError as error:
            self.problems += error.problems
            self.unreadable = error.unreadable
        if self.settings is not None:
            self.problems += _missing_exporters(self.settings)
        self.problems += _declarative()
        self.notes = _unknown_variables() + (_missing_instrumentors(self.settings) if self.settings else [])

    def document(self) -> dict[str, Any]:
        """Give everything as JSON takes it, secrets masked."""
        return {
            "ok": not self.problems,
            "file": self.file,
            "problems": [
                {"key": one.key, "message": one.message, "file": one.file, "line": one.line} for one in self.problems
            ],
            "notes": self.notes,
            "values": {}
            if self.settings is None
            else {
                key: {"value": _shown(key, value), "source": self.settings.sources[key]}
                for key, value in self.settings.values.items()
            },
            "variables": variables(),
        }

    def lines(self) -> list[str]:
        """Give the values as a table of text: key, value, where from."""
        if self.settings is None:
            return []
        rows = [
            (key, _text(_shown(key, value)), self.settings.sources[key]) for key, value in self.settings.values.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        return [f"{key:<{widths[0]}}  {value:<{min(widths[1], 40)}}  {source}" for key, value, source in rows]


def plain_settings() -> Settings:
    """Give the defaults, whatever the environment says."""
    return combine([])


def variables() -> dict[str, str]:
    """Give the standard variables that are set and are no keys of ours: exporters and the SDK read them; masked."""
    known = {variable for key in KEYS.values() for variable in key.variables}
    return {
        name: str(masked(name, value))
        for name, value in sorted(os.environ.items())
        if name.startswith("OTEL_") and name not in known and value
    }


def _shown(key: str, value: object) -> Any:
    if value == inf or (key.startswith("limits.") and value == NO_LIMIT):
        return "none"
    if key == "tiers":
        return {glob: f"P{tier}" for glob, tier in value}  # type: ignore[attr-defined]
    return masked(key, list(value) if isinstance(value, tuple) else value)


def _text(value: object) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def _unknown_variables() -> list[str]:
    import difflib

    notes = []
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in _OWN:
            near = difflib.get_close_matches(name, sorted(_OWN), n=1)
            notes.append(f"{name}: no such variable{f'; did you mean {near[0]}?' if near else ''}")
    return notes


def _missing_exporters(settings: Settings) -> list[Problem]:
    from importlib.metadata import entry_points

    from otel_trading.drain import exporters

    problems = []
    for key, signal in (("export.traces", "traces"), ("export.metrics", "metrics")):
        there = {point.name for point in entry_points(group=f"opentelemetry_{signal}_exporter")}
        if signal == "metrics":
            there.add("prometheus")  # served by ourselves
        source = settings.sources[key]
        where = key if source in {"argument", "default"} or "line" in source else source
        for name in settings.values[key]:  # type: ignore[attr-defined]
            try:
                point = exporters.resolved(name, signal)
            except ConfigurationError as error:
                problems.append(Problem(where, str(error)))
                continue
            if point not in there:
                remedy = "pip install otel-trading[otlp]" if point.startswith("otlp") else "it has no package here"
                problems.append(
                    Problem(
                        where,
                        f"{point} is no exporter that is installed: {remedy}; there are {', '.join(sorted(there))}",
                    )
                )
    return problems


def _missing_instrumentors(settings: Settings) -> list[str]:
    from importlib.metadata import entry_points

    there = {point.name for point in entry_points(group="opentelemetry_instrumentor")}
    import difflib

    notes = []
    for key in ("instrumentors.enabled", "instrumentors.disabled"):
        for name in settings.values[key] or ():  # type: ignore[attr-defined]
            if name not in there and name != "*":
                near = difflib.get_close_matches(name, sorted(there), n=1)
                notes.append(
                    f"{key}: no instrumentor {name!r} is installed{f'; did you mean {near[0]}?' if near else ''}"
                )
    return notes


def _declarative() -> list[Problem]:
    path = os.environ.get("OTEL_CONFIG_FILE", "").strip()
    if not path:
        return []
    import logging

    try:
        from opentelemetry.configuration import load_config_file
    except ImportError:
        return [Problem("OTEL_CONFIG_FILE", "needs opentelemetry-configuration: pip install otel-trading[declarative]")]
    logger = logging.getLogger("opentelemetry.configuration")
    level, logger.level = logger.level, logging.CRITICAL + 1  # it logs what it raises
    try:
        load_config_file(path)
    except Exception as error:  # noqa: BLE001  whatever it is, that is what the check is for
        return [Problem("OTEL_CONFIG_FILE", str(error) or repr(error), path)]
    finally:
        logger.level = level
    return []
