"""Keeping our own requests out of the traces."""

from __future__ import annotations


def suppress_instrumentation() -> None:
    """Have instrumented libraries make no spans in this thread from now on."""
    from opentelemetry.context import (
        _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        _SUPPRESS_INSTRUMENTATION_KEY,
        Context,
        attach,
    )

    attach(Context({_SUPPRESS_INSTRUMENTATION_KEY: True, _SUPPRESS_HTTP_INSTRUMENTATION_KEY: True}))
