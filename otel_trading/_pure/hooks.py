"""What ``otel_trading.api`` gives the backend of OpenTelemetry's API; the backend itself imports nothing of it."""

from __future__ import annotations

from otel_trading._pure.recorder import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Hooks:
    """Empty before ``api_install``."""

    __slots__ = (
        "context",
        "decorate",
        "exception",
        "fault",
        "foreign",
        "kinds",
        "readable",
        "span_context",
        "span_key",
        "status",
    )

    context: Callable[..., Any] | None
    span_key: str
    kinds: tuple[Any, ...]
    span_context: Callable[..., Any] | None
    foreign: Callable[[Any], tuple[int, int, bool, int, str | None]] | None
    exception: Callable[..., Any] | None
    status: Callable[..., tuple[int, str | None] | None] | None
    readable: Callable[..., Any] | None
    decorate: Callable[..., Any] | None
    fault: Callable[[str, str], None] | None

    def __init__(self) -> None:
        self.context = self.span_context = self.foreign = self.exception = None
        self.status = self.readable = self.decorate = self.fault = None
        self.span_key = ""
        self.kinds = ()


hooks = _Hooks()


def api_install(given: dict[str, Any], /) -> None:
    """Take the hooks: see ``_native.pyi``."""
    hooks.context = given["context"]
    hooks.span_key = given["span_key"]
    hooks.kinds = tuple(given["kinds"])
    hooks.span_context = given["span_context"]
    hooks.foreign = given["foreign"]
    hooks.exception = given["exception"]
    hooks.status = given["status"]
    hooks.readable = given["readable"]
    hooks.decorate = given["decorate"]
    hooks.fault = given["fault"]


def kind_of(kind: object) -> int:
    """Give the number of a SpanKind; 0, internal, of what is none."""
    if kind is None or not hooks.kinds:
        return 0
    for number, known in enumerate(hooks.kinds):
        if known is kind:
            return number
    recorder.fault()
    return 0


def told(key: str, message: str) -> None:
    """Report a fault of the program's own code, once."""
    if hooks.fault is not None:
        hooks.fault(key, message)


def readable(kind: type, names: str) -> None:
    """Give a class properties with what the SDK's spans and tracers let one read.

    No ``__getattr__``: with that the interpreter finds all attributes of the class the slow way.
    """
    for name in names.split():
        setattr(kind, name, _readable(kind, name))


def _readable(kind: type, name: str) -> property:
    def read(self: object) -> Any:
        if hooks.readable is None:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
        return hooks.readable(self, name)

    return property(read)
