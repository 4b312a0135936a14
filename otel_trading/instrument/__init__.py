"""Instrumentors: spans of libraries, without a tracing call in the program; one file a library.

Found by OpenTelemetry's entry point ``opentelemetry_instrumentor``; by hand::

    from otel_trading.instrument.websockets import WebsocketsInstrumentor

    WebsocketsInstrumentor().instrument()

What they record, and what they never record, is in docs/instrumentors.md.
"""
