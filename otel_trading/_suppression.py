"""Keeping our own requests out of the traces."""

from __future__ import annotations

import sys


def suppress_instrumentation() -> None:
    """Have instrumented libraries make no spans in this thread.

    To be repeated, as OpenTelemetry may be imported later, and its context's runtime may change.  Imports nothing new:
    as long as nobody has imported OpenTelemetry, there is no instrumentation.
    """
    if "opentelemetry.context" not in sys.modules:
        return
    from opentelemetry.context import (
        _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        _SUPPRESS_INSTRUMENTATION_KEY,
        Context,
        attach,
        get_value,
    )

    if not get_value(_SUPPRESS_INSTRUMENTATION_KEY):
        attach(Context({_SUPPRESS_INSTRUMENTATION_KEY: True, _SUPPRESS_HTTP_INSTRUMENTATION_KEY: True}))
