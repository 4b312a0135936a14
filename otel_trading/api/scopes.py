"""Instrumentation scopes as the recorder keeps them: JSON text, the same for equal scopes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from otel_trading.api.provider import TracerProvider

providers: WeakValueDictionary[str, TracerProvider] = WeakValueDictionary()
"""By the text of a scope, the provider that has given out its tracer last."""


def scope_json(name: str, version: str, schema_url: str, attributes: Mapping[str, Any] | None) -> str:
    """Write an instrumentation scope.

    An object with ``name``, ``version``, and ``schema_url`` and ``attributes`` where there are any.  Attributes are
    cleaned as the SDK cleans them; bytes become text, as JSON has none.
    """
    found: dict[str, Any] = {"name": name, "version": version}
    if schema_url:
        found["schema_url"] = schema_url
    if attributes:
        from opentelemetry.attributes import BoundedAttributes

        found["attributes"] = dict(BoundedAttributes(attributes=attributes))
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), default=str)
