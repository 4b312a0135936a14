"""Alerts: one door for whatever raises one, and the ways out of it (docs/alerts.md)."""

from __future__ import annotations

from otel_trading.alerts.alert import CRITICAL, INFO, SEVERITIES, WARNING, Alert
from otel_trading.alerts.door import close, configure, flush, raise_alert

__all__ = ["CRITICAL", "INFO", "SEVERITIES", "WARNING", "Alert", "close", "configure", "flush", "raise_alert"]
