"""Instrumentation scopes: what the recorder keeps as JSON, without the SDK (``sdk_scopes`` has its objects)."""

from __future__ import annotations

import json

from otel_trading._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Scope:
    """An instrumentation scope; ``schema_url`` is "" where there is none."""

    __slots__ = ("attributes", "name", "schema_url", "version")

    def __init__(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the parts as they are."""
        self.name = name
        self.version = version
        self.schema_url = schema_url or ""
        self.attributes = attributes


SCOPE = Scope("otel_trading", __version__)
"""The instrumentation scope of our own spans and metrics."""


class Scopes:
    """The scopes that have been met, by their JSON text; at most ``most``, as a damaged segment may have any number."""

    most = 4096

    def __init__(self) -> None:
        """Begin with our own."""
        self._known = {"": SCOPE}

    def __getitem__(self, text: str) -> Scope:
        """Return the scope of a JSON object with ``name``, ``version``, ``schema_url``, ``attributes``; "" is ours.

        Text that is no such object gives a scope without a name.
        """
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= self.most:
                self._known = {"": SCOPE}
            known = self._known[text] = _parsed(text)
        return known


def _parsed(text: str) -> Scope:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    attributes = found.get("attributes")
    return Scope(
        str(found.get("name") or ""),
        _text(found.get("version")),
        _text(found.get("schema_url")),
        # As in the SDK, an attribute has a name.
        {key: value for key, value in attributes.items() if key} if isinstance(attributes, dict) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
