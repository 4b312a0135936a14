"""What a provider that is made in code tells the recorder, where it is the first to configure it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_trading._backend import core
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

if TYPE_CHECKING:
    from typing import Any

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits


def configure(resource: Resource | None, limits: SpanLimits | None) -> None:
    """Configure the recorder with a resource and limits, unless that has been done.

    Never raises: a mistake in the configuration is logged, and nothing is recorded.
    """
    from otel_trading import lifecycle

    if core.is_open() or lifecycle.settings() is not None:  # a forked child reopens at its first record
        return
    config: dict[str, object] = {}
    try:
        if resource is None and os.environ.get("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "").strip():
            from opentelemetry.sdk.resources import Resource as Made

            resource = Made.create({})
        if resource is not None:
            config["resource"] = {key: value for key, value in resource.attributes.items() if _is_plain(value)}
        else:
            config["resource"] = _sdk()
        if limits is not None:
            config["limits"] = _limits(limits)
        lifecycle.configure(config=config or None)
    except OtelTradingError as error:
        report("provider", f"nothing is recorded: {error}")


def _sdk() -> dict[str, object]:
    """Tell of the SDK what its own resource tells, without importing more of it than its version."""
    try:
        from opentelemetry.sdk.version import __version__ as version
    except ImportError:
        return {}
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version,
    }


def _limits(limits: SpanLimits) -> dict[str, object]:
    found = {
        "attributes": limits.max_span_attributes,
        "events": limits.max_events,
        "links": limits.max_links,
        "event_attributes": limits.max_event_attributes,
        "link_attributes": limits.max_link_attributes,
        "text": limits.max_span_attribute_length,
        "event_text": limits.max_attribute_length,
    }
    return {key: "none" if limit is None else limit for key, limit in found.items()}


def _is_plain(value: Any) -> bool:
    """Tell whether an attribute of the resource is text, a boolean, a number, or a sequence of one of these kinds."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    kinds = {type(item) for item in items}
    return kinds <= {str, bool, int, float} and len(kinds) in (0, 1)
