"""The keys: what each is by default, how it is read, and which environment variables say it too."""

from __future__ import annotations

from otel_trading.config import values as read
from otel_trading.config.agent_keys import AGENT
from otel_trading.config.budget_keys import BUDGET
from otel_trading.config.key import Key

_ATTRIBUTES = "OTEL_ATTRIBUTE_COUNT_LIMIT"
_CHARACTERS = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"

LIMITS: dict[str, Key] = {
    "limits.attributes": Key(
        128, read.limit, "attributes of a span", ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", _ATTRIBUTES), read.whole_text
    ),
    "limits.events": Key(128, read.limit, "events of a span", ("OTEL_SPAN_EVENT_COUNT_LIMIT",), read.whole_text),
    "limits.links": Key(128, read.limit, "links of a span", ("OTEL_SPAN_LINK_COUNT_LIMIT",), read.whole_text),
    "limits.event_attributes": Key(
        128, read.limit, "attributes of an event", ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", _ATTRIBUTES), read.whole_text
    ),
    "limits.link_attributes": Key(
        128, read.limit, "attributes of a link", ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", _ATTRIBUTES), read.whole_text
    ),
    "limits.text": Key(
        read.NO_LIMIT,
        read.limit,
        "characters of a text attribute; the rest is cut off",
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", _CHARACTERS),
        read.whole_text,
    ),
    "limits.event_text": Key(
        read.NO_LIMIT,
        read.limit,
        "characters of a text attribute of an event or a link",
        (_CHARACTERS,),
        read.whole_text,
    ),
}
"""In the order of ``Settings.limits``; of the variables the first that is set holds, as in the SDK."""

KEYS: dict[str, Key] = {
    "service": Key(None, read.text, "the program's name", ("OTEL_SERVICE_NAME",)),
    "resource": Key(
        {}, read.attributes, "the resource's other attributes", ("OTEL_RESOURCE_ATTRIBUTES",), read.attributes_text
    ),
    "directory": Key(None, read.path, "where the segment is made", ("OTEL_TRADING_DIR",)),
    "host": Key("embedded", read.host, "which process drains the segment: embedded, agent", ("OTEL_TRADING_HOST",)),
    "enabled": Key(True, read.switch, "whether anything is recorded", ("OTEL_TRADING_ENABLED",), read.switch_text),
    "sampling.rate": Key(
        1.0, read.share, "share of the traces that is exported", ("OTEL_TRADING_SAMPLING_RATE",), read.share_text
    ),
    "tiers": Key((), read.tiers, "tiers of API spans by globs of their names; the first that matches holds"),
    "ring.slots": Key(65_536, read.power_of_two(16, 1 << 24), "records the main thread's ring holds; a power of two"),
    "ring.thread_slots": Key(
        8_192, read.power_of_two(16, 1 << 24), "records each other thread's ring holds; a power of two"
    ),
    "ring.open_spans": Key(4_096, read.whole(1, 1 << 20), "spans open at once that a reader sees after a crash"),
    "ring.arena_bytes": Key(
        2 << 20, read.power_of_two(4_096, 1 << 30), "room for long attributes, bytes; a power of two"
    ),
    "names.max": Key(16_384, read.whole(16, 65_535), "distinct names and short attribute values"),
    "orders.max": Key(
        4_096, read.power_of_two(16, 1 << 20), "orders remembered for their acks and fills; a power of two"
    ),
    **LIMITS,
    "drain.period": Key(0.1, read.seconds(0.001, 60.0), "time between passes of the drain"),
    "export.enabled": Key(
        True, read.switch, "whether spans are exported", ("OTEL_TRADING_EXPORT_ENABLED",), read.switch_text
    ),
    "export.traces": Key((), read.exporters, "exporters of spans", ("OTEL_TRACES_EXPORTER",)),
    "export.metrics": Key((), read.exporters, "exporters of metrics", ("OTEL_METRICS_EXPORTER",)),
    "export.stock": Key(
        False, read.switch, "whether OpenTelemetry's own exporters are used for OTLP over plain http too"
    ),
    "export.queue": Key(
        32_768,
        read.whole(1, 1 << 24),
        "spans that may wait for the exporters",
        ("OTEL_BSP_MAX_QUEUE_SIZE",),
        read.whole_text,
    ),
    "export.queue_bytes": Key(
        8 << 20, read.whole(4_096, 1 << 32), "bytes that their long attributes, events and links may take"
    ),
    "metrics.port": Key(
        None, read.whole(0, 65_535), "port of `/metrics`; 0 takes a free one, without it there is none"
    ),
    "metrics.host": Key("127.0.0.1", read.text, "address of `/metrics`"),
    "logs.correlation": Key(
        False,
        read.switch,
        "whether log records carry trace and span ids",
        ("OTEL_PYTHON_LOG_CORRELATION",),
        read.switch_text,
    ),
    "instrumentors.enabled": Key(None, read.names("instrumentors"), "the only ones that are loaded; without it all"),
    "instrumentors.disabled": Key(
        (),
        read.names("instrumentors"),
        "those that are not loaded; `*` is all",
        ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",),
    ),
    "websockets.venues": Key({}, read.venues, "venues by host or `host:port`, for hosts that are no known exchange's"),
    "websockets.propagate": Key(
        False, read.hosts, "hosts, or true for all, whose JSON messages carry the trace in a field `traceparent`"
    ),
    "websockets.current_after_receive": Key(
        True, read.switch, "whether a message's span is current until the task receives again"
    ),
    **BUDGET,
    **AGENT,
    "shutdown.timeout": Key(5.0, read.seconds(0.0, 3_600.0), "time that an exit, a SIGTERM, or a flush may take"),
}
