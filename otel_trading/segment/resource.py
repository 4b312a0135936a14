"""The resource: which service, which instance of it, as OpenTelemetry's environment variables tell."""

from __future__ import annotations

import os

from otel_trading._layout import RESOURCE_BYTES
from otel_trading._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_UNKNOWN = "unknown_service"
_LONGEST_NAME = 255  # characters of a service's name
_LONGEST_ID = 64

_instance = (0, "")  # the process that the id is of, and the id: a forked child is another instance


def _environment() -> dict[str, str]:
    """Read OTEL_RESOURCE_ATTRIBUTES: ``key=value,key=value``, values percent-encoded; what is neither is left out."""
    attributes = {}
    for item in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = item.partition("=")
        key, value = key.strip(), value.strip()
        if not key or not equals:
            continue
        if "%" in value:
            from urllib.parse import unquote

            value = unquote(value)
        attributes[key] = value
    return attributes


def service_name(service: str | None = None) -> str:
    """Name the service, in at most 255 characters.

    By the argument, else OTEL_SERVICE_NAME, else service.name in OTEL_RESOURCE_ATTRIBUTES, else ``unknown_service``.
    """
    found = service or os.environ.get("OTEL_SERVICE_NAME", "").strip() or _environment().get("service.name") or _UNKNOWN
    return found[:_LONGEST_NAME]


def _instance_id() -> str:
    global _instance  # noqa: PLW0603  one id a process, whoever asks first
    if _instance[0] != os.getpid():
        from uuid import uuid4

        _instance = (os.getpid(), str(uuid4()))
    return _instance[1]


def resource_json(service: str | None = None, attributes: Mapping[str, Any] | None = None) -> bytes:
    """Give the resource as a JSON object in UTF-8, at most 3072 bytes.

    It has service.name, service.instance.id (one a process, unless it is given), process.pid, telemetry.distro.name and
    .version, and ``attributes`` (plain values and lists of them; by default what OTEL_RESOURCE_ATTRIBUTES says).  Of
    those, the ones for which there is no room are left out, and told as a fault.
    """
    import json

    added: dict[str, Any] = dict(_environment() if attributes is None else attributes)
    resource: dict[str, Any] = {
        "service.name": service_name(service),
        "service.instance.id": str(added.pop("service.instance.id", ""))[:_LONGEST_ID] or _instance_id(),
        "process.pid": os.getpid(),  # also where another one is given: that is the parent's, before a fork
        "telemetry.distro.name": _given(added, "telemetry.distro.name") or "otel-trading",
        "telemetry.distro.version": _given(added, "telemetry.distro.version") or __version__,
    }
    left_out = []
    text = b""
    for key, value in [("", ""), *added.items()]:
        if key in resource:
            continue
        candidate = {**resource, key: value} if key else resource
        encoded = json.dumps(candidate, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if len(encoded) <= RESOURCE_BYTES:
            resource, text = candidate, encoded
        else:
            left_out.append(key)
    if left_out:
        from otel_trading.faults import report

        report(
            "resource",
            f"the resource has room for {RESOURCE_BYTES} bytes, so it is without {', '.join(left_out)}. Shorten the "
            "values of OTEL_RESOURCE_ATTRIBUTES, or leave attributes out.",
        )
    return text


def _given(attributes: dict[str, Any], key: str) -> str:
    return str(attributes.get(key, ""))[:_LONGEST_NAME]
