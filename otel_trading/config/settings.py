"""A checked configuration."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Settings:
    """A checked configuration; what each field means is in ``otel_trading.config.keys``.  Times are in seconds.

    ``values`` has the value of each key, and ``sources`` where it came from: "default", a variable's name, a file with
    a line, or "argument".  ``limits`` are the six of ``limits.*`` in their order there.
    """

    __slots__ = (
        "directory",
        "drain_period",
        "enabled",
        "export_enabled",
        "export_metrics",
        "export_queue",
        "export_queue_bytes",
        "export_stock",
        "export_traces",
        "host",
        "instrumentors_disabled",
        "instrumentors_enabled",
        "limits",
        "logs_correlation",
        "metrics_host",
        "metrics_port",
        "names_max",
        "orders_max",
        "resource",
        "ring_arena_bytes",
        "ring_open_spans",
        "ring_slots",
        "ring_thread_slots",
        "sampling_rate",
        "service",
        "shutdown_timeout",
        "sources",
        "tiers",
        "values",
        "websockets_current_after_receive",
        "websockets_propagate",
        "websockets_venues",
    )

    service: str | None
    resource: dict[str, Any]
    directory: str | None
    host: str
    enabled: bool
    sampling_rate: float
    tiers: tuple[tuple[str, int], ...]
    ring_slots: int
    ring_thread_slots: int
    ring_open_spans: int
    ring_arena_bytes: int
    names_max: int
    orders_max: int
    limits: tuple[int, int, int, int, int, int, int]
    drain_period: float
    export_enabled: bool
    export_queue: int
    export_queue_bytes: int
    export_stock: bool
    export_traces: tuple[str, ...]
    export_metrics: tuple[str, ...]
    metrics_port: int | None
    metrics_host: str
    logs_correlation: bool
    instrumentors_enabled: tuple[str, ...] | None
    instrumentors_disabled: tuple[str, ...]
    websockets_venues: dict[str, str]
    websockets_propagate: bool | tuple[str, ...]
    websockets_current_after_receive: bool
    shutdown_timeout: float
    values: dict[str, object]
    sources: dict[str, str]
