"""What ``configure`` is told: defaults, the ``config`` mapping, and the environment.

``config`` is a mapping, nested (``{"ring": {"slots": 65536}}``) or flat (``{"ring.slots": 65536}``):

=================== ========== ===================================================================
key                 default    meaning
=================== ========== ===================================================================
ring.slots          131072     records the main thread's ring holds; a power of two
ring.thread_slots   8192       records each other thread's ring holds; a power of two
ring.open_spans     4096       spans open at once that a reader sees after a crash
ring.arena_bytes    2097152    room for long attributes, bytes; a power of two
names.max           16384      distinct names and short attribute values
drain.period        0.1        seconds between passes of the drain
export.queue        16384      spans that may wait for the exporters; else ``OTEL_BSP_MAX_QUEUE_SIZE``
export.traces       None       exporters of spans, in place of ``OTEL_TRACES_EXPORTER``
export.metrics      None       exporters of metrics, in place of ``OTEL_METRICS_EXPORTER``
metrics.port        None       port of ``/metrics``; 0 takes a free one, None serves none
metrics.host        127.0.0.1  address of ``/metrics``
shutdown.timeout    5.0        seconds that an exit, a SIGTERM, or a flush may take
=================== ========== ===================================================================

Times are seconds, or text with a unit ("100ms").  Every mistake is told, all at once, each with its key.
"""

from __future__ import annotations

import os

from otel_trading.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_UNITS = {"ns": 1, "us": 1_000, "\u00b5s": 1_000, "\u03bcs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_LONGEST_NS = 2**63 - 1
_SHORTEST_NS = 0.5  # less is rounded to nothing


def duration_ns(value: object) -> int:
    """Read a time: text with a unit ("5ms", "200us", "1s", "750ns"), seconds, or a ``timedelta``; nanoseconds.

    Raises ValueError for anything else, and for times under 1 ns or over 292 years.
    """
    number: float
    if isinstance(value, str):
        text = value.strip()
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz\u00b5\u03bc")
        unit = _UNITS.get(text[len(digits) :])
        if unit is None:
            raise ValueError(f"{value!r} is not a time: write a number with a unit, as in '5ms' (ns, us, ms or s)")
        try:
            number = float(digits) * unit
        except ValueError:
            raise ValueError(f"{value!r} is not a time: {digits!r} is not a number") from None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value * 1e9 if abs(value) < _LONGEST_NS else _LONGEST_NS * 2.0
    elif hasattr(value, "total_seconds"):
        number = value.total_seconds() * 1e9
    else:
        raise ValueError(f"{value!r} is not a time: give text such as '5ms', a number of seconds, or a timedelta")
    if not _SHORTEST_NS < number <= _LONGEST_NS:  # refuses NaN too
        raise ValueError(f"{value!r} is not a time between 1 ns and 292 years")
    return round(number)


class Settings:
    """A checked configuration; what each field means is in this module's docstring.  Times are in seconds."""

    __slots__ = (
        "directory",
        "drain_period",
        "enabled",
        "export_enabled",
        "export_metrics",
        "export_queue",
        "export_traces",
        "metrics_host",
        "metrics_port",
        "names_max",
        "ring_arena_bytes",
        "ring_open_spans",
        "ring_slots",
        "ring_thread_slots",
        "sampling_rate",
        "service",
        "shutdown_timeout",
    )

    service: str | None
    directory: str | None
    ring_slots: int
    ring_thread_slots: int
    ring_open_spans: int
    ring_arena_bytes: int
    names_max: int
    drain_period: float
    export_queue: int
    export_traces: tuple[str, ...]
    export_metrics: tuple[str, ...]
    metrics_port: int | None
    metrics_host: str
    shutdown_timeout: float
    enabled: bool
    export_enabled: bool
    sampling_rate: float


def _between(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not a whole number")  # noqa: TRY004  every mistake here is a ValueError, told by its key
        if not least <= value <= most:
            raise ValueError(f"{value} is not between {least} and {most}")
        return value

    return read


def _power_of_two(least: int, most: int) -> Callable[[object], int]:
    within = _between(least, most)

    def read(value: object) -> int:
        number = within(value)
        if number & (number - 1):
            raise ValueError(f"{number} is not a power of two: {1 << number.bit_length()} is the next one")
        return number

    return read


def _seconds(least: float, most: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        zero = isinstance(value, (int, float)) and value == 0
        number = 0.0 if zero else duration_ns(value) / 1e9
        if not least <= number <= most:
            raise ValueError(f"{value!r} is not between {least} and {most} seconds")
        return number

    return read


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not text")
    return value


def _exporters(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{value!r} is not a list of exporters' names")
    names = tuple(item.strip() for item in items if item.strip())
    if "none" in names:
        if len(names) > 1:
            raise ValueError(f"{value!r} says 'none' next to others")
        return ()
    return names


_KEYS: dict[str, tuple[object, Callable[[object], object]]] = {
    "ring.slots": (131_072, _power_of_two(16, 1 << 24)),
    "ring.thread_slots": (8_192, _power_of_two(16, 1 << 24)),
    "ring.open_spans": (4_096, _between(1, 1 << 20)),
    "ring.arena_bytes": (2 << 20, _power_of_two(4_096, 1 << 30)),
    "names.max": (16_384, _between(16, 65_535)),
    "drain.period": (0.1, _seconds(0.001, 60.0)),
    "export.queue": (16_384, _between(1, 1 << 24)),
    "export.traces": (None, _exporters),
    "export.metrics": (None, _exporters),
    "metrics.port": (None, _between(0, 65_535)),
    "metrics.host": ("127.0.0.1", _text),
    "shutdown.timeout": (5.0, _seconds(0.0, 3_600.0)),
}


def _flatten(config: Mapping[Any, Any], prefix: str, flat: dict[str, object], errors: list[str]) -> None:
    for key, value in config.items():
        if not isinstance(key, str):
            errors.append(f"{prefix}{key!r}: keys are text")
            continue
        path = prefix + key
        if path in _KEYS:
            if path in flat:
                errors.append(f"{path}: given twice")
            flat[path] = value
        elif hasattr(value, "items") and any(known.startswith(path + ".") for known in _KEYS):
            _flatten(value, path + ".", flat, errors)
        else:
            errors.append(f"{path}: {_unknown(path)}")


def _unknown(path: str) -> str:
    import difflib  # only for the message

    inside = sorted(known for known in _KEYS if known.startswith(path + "."))
    if inside:
        return f"is a group of keys ({', '.join(inside)}), not a value"
    near = difflib.get_close_matches(path, _KEYS, n=1, cutoff=0.5)
    return f"no such key; did you mean {near[0]}?" if near else f"no such key; the keys are {', '.join(_KEYS)}"


def _switch(name: str, errors: list[str]) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in ("", "true", "1", "yes", "on"):
        return True
    if text not in ("false", "0", "no", "off"):
        errors.append(f"{name}: {text!r} is neither true nor false")
    return False


def _rate(name: str, errors: list[str]) -> float:
    text = os.environ.get(name, "").strip()
    try:
        rate = float(text) if text else 1.0
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        errors.append(f"{name}: {text!r} is not a number from 0 to 1")
        return 1.0
    return rate


def _exporters_of(name: str, errors: list[str]) -> tuple[str, ...]:
    try:
        return _exporters(os.environ.get(name, ""))
    except ValueError as error:
        errors.append(f"{name}: {error}")
        return ()


def _queue_size(flat: dict[str, object]) -> None:
    size = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "").strip()
    if size:
        flat.setdefault("export.queue", int(size) if size.isdecimal() else size)


def sdk_disabled() -> bool:
    """Tell whether ``OTEL_SDK_DISABLED`` asks for no telemetry at all."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def resolve(
    service: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    config: Mapping[str, object] | None = None,
) -> Settings:
    """Put defaults, environment and arguments together; later ones win.

    Raises ConfigurationError that names every mistake there is.
    """
    errors: list[str] = []
    flat: dict[str, object] = {}
    if config is not None:
        if hasattr(config, "items"):
            _flatten(config, "", flat, errors)
        else:
            errors.append(f"config: {config!r} is not a mapping")
    if service is not None and (not isinstance(service, str) or not service):
        errors.append(f"service: {service!r} is not text")

    settings = Settings()
    settings.service = service
    settings.enabled = _switch("OTEL_TRADING_ENABLED", errors)
    settings.export_enabled = _switch("OTEL_TRADING_EXPORT_ENABLED", errors)
    settings.sampling_rate = _rate("OTEL_TRADING_SAMPLING_RATE", errors)
    host = os.environ.get("OTEL_TRADING_HOST", "").strip().lower()
    if host not in ("", "embedded"):
        what = "the agent is not there yet" if host == "agent" else f"{host!r} is no host of the drain"
        errors.append(f"OTEL_TRADING_HOST: {what}; use 'embedded' or unset it")
    try:
        where = os.fspath(directory) if directory is not None else os.environ.get("OTEL_TRADING_DIR", "") or None
        settings.directory = os.fsdecode(where) if where is not None else None
    except TypeError:
        errors.append(f"directory: {directory!r} is not a path")

    _queue_size(flat)
    for path, (default, read) in _KEYS.items():
        value = default
        if flat.get(path, default) is not default:
            try:
                value = read(flat[path])
            except (ValueError, OverflowError) as error:
                errors.append(f"{path}: {error}")
        setattr(settings, path.replace(".", "_"), value)
    if settings.export_traces is None:
        settings.export_traces = _exporters_of("OTEL_TRACES_EXPORTER", errors)
    if settings.export_metrics is None:
        settings.export_metrics = _exporters_of("OTEL_METRICS_EXPORTER", errors)

    if errors:
        message = "otel-trading cannot be configured:\n  " + "\n  ".join(errors)
        raise ConfigurationError(message)
    return settings
