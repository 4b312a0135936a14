"""From snapshots and kept spans to the ways out: text, JSON, ``/metrics``, and OpenTelemetry exporters.

Nothing here is on the hot path, and only :mod:`~otel_trading.drain.histogram` and
:mod:`~otel_trading.drain.summary` work without opentelemetry or prometheus_client.
"""
