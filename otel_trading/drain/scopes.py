"""Instrumentation scopes: what the recorder keeps as JSON, as the SDK's objects."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_trading._version import __version__

SCOPE = InstrumentationScope("otel_trading", __version__)
"""The instrumentation scope of our own spans and metrics."""


class Scopes:
    """The scopes that have been met, by their JSON text; at most ``most``, as a damaged segment may have any number."""

    most = 4096

    def __init__(self) -> None:
        """Begin with our own."""
        self._known: dict[str, InstrumentationScope] = {"": SCOPE}

    def __getitem__(self, text: str) -> InstrumentationScope:
        """Return the scope of a JSON object with ``name``, ``version``, ``schema_url``, ``attributes``; "" is ours.

        Text that is no such object gives a scope without a name.
        """
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= self.most:
                self._known = {"": SCOPE}
            known = self._known[text] = _parsed(text)
        return known


def _parsed(text: str) -> InstrumentationScope:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    attributes: Any = found.get("attributes")
    return InstrumentationScope(
        str(found.get("name") or ""),
        _text(found.get("version")),
        _text(found.get("schema_url")),
        attributes if isinstance(attributes, dict) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
