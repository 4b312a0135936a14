"""Instrumentation scopes as the SDK's objects, for spans that exporters of others get or the program reads."""

from __future__ import annotations

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_trading.drain import scopes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def sdk_scope(scope: Any) -> InstrumentationScope:
    """Return a light scope as the SDK's."""
    return InstrumentationScope(scope.name, scope.version, scope.schema_url, scope.attributes)


SCOPE = sdk_scope(scopes.SCOPE)
"""The instrumentation scope of our own spans and metrics."""


class Scopes:
    """The SDK's scopes that have been met, by their JSON text; at most as many as of light ones."""

    def __init__(self) -> None:
        """Begin with our own."""
        self._light = scopes.Scopes()
        self._known: dict[str, InstrumentationScope] = {"": SCOPE}

    def __getitem__(self, text: str) -> InstrumentationScope:
        """Return the scope of a JSON object, as ``scopes.Scopes`` reads it; "" is ours."""
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= self._light.most:
                self._known = {"": SCOPE}
            known = self._known[text] = sdk_scope(self._light[text])
        return known
