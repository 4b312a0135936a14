"""OpenTelemetry's current context, kept in the recorder's own context variable: one place says what is current.

So ``trace.get_current_span()`` sees probes' spans, probes see spans of the API and remote parents, and baggage and
other keys are where the program put them.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING

from opentelemetry.context.context import Context, _RuntimeContext

from otel_trading._backend import core

if TYPE_CHECKING:
    from typing import Any


class RecorderContext(_RuntimeContext):
    """A runtime for ``opentelemetry.context``; entry point ``otel_trading`` of ``opentelemetry_context``.

    ``install`` puts it in place; ``OTEL_PYTHON_CONTEXT=otel_trading`` does so at the import of
    ``opentelemetry.context``. ``detach`` raises ValueError, RuntimeError or TypeError as ``ContextVar.reset`` does.
    """

    def __init__(self, previous: _RuntimeContext | None = None) -> None:
        """Take over from ``previous``; what was attached there is still detached there."""
        self._previous = previous
        self._previous_variable = getattr(previous, "_current_context", None)
        self._carried: Any = None
        self._ready = False

    def begin(self) -> None:
        """Put the backend's functions in place."""
        # Not when it is made: opentelemetry.trace, where the hooks come from, imports opentelemetry.context first.
        if not self._ready:
            from otel_trading.api.hooks import install as install_hooks

            install_hooks()
            self._ready = True
            # From here on a call is the backend's function and nothing else.
            self.get_current = core.get_context  # type: ignore[method-assign]
            self.attach = core.attach_context  # type: ignore[method-assign, assignment]

    def get_current(self) -> Context:
        """Return the current context; its span is the current span, whoever made it current."""
        self.begin()
        return core.get_context()

    def attach(self, context: Context) -> Token[Context]:
        """Make a context current; returns what ``detach`` takes."""
        self.begin()
        token: Token[Context] = core.attach_context(context)
        return token

    def detach(self, token: Token[Context]) -> None:
        """Go back to before ``attach``."""
        variable = self._previous_variable
        if variable is not None and isinstance(token, Token) and token.var is variable:
            self._detach_previous(token)
            return
        try:
            core.detach_context(token)
        except (TypeError, ValueError):
            if self._previous is None or variable is not None:
                raise
            self._detach_previous(token)

    def _detach_previous(self, token: Token[Context]) -> None:
        """Detach what was attached before we came, and stop carrying it."""
        previous = self._previous
        assert previous is not None  # noqa: S101  whoever calls has looked
        previous.detach(token)
        carried, self._carried = self._carried, None
        if carried is None:
            return
        try:
            core.detach_context(carried)
        except ValueError:  # carried over in another task or thread, where it goes on
            return
        self.carry()

    def carry(self) -> None:
        """Make current here what is current in the runtime before."""
        attached = self._previous.get_current() if self._previous is not None else None
        if attached:
            self._carried = core.attach_context(attached)


def install() -> None:
    """Make ``opentelemetry.context`` run on the recorder.  Once; what is attached there now is carried over."""
    import opentelemetry.context as api

    previous = api._RUNTIME_CONTEXT  # noqa: SLF001  the API has no other way in than an environment variable
    if isinstance(previous, RecorderContext):
        previous.begin()
        return
    runtime = RecorderContext(previous)
    runtime.begin()
    api._RUNTIME_CONTEXT = runtime  # noqa: SLF001
    runtime.carry()
