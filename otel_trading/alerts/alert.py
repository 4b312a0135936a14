"""What an alert is."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

INFO, WARNING, CRITICAL = "info", "warning", "critical"
SEVERITIES = (INFO, WARNING, CRITICAL)


class Alert:
    """Something that somebody should know of.

    ``name`` and ``labels`` say which alert it is: the same ones again within ``alerts.repeat`` are not sent.  ``name`` is
    in CamelCase, as Prometheus's alerts are (``MonitoringBudgetExceeded``); ``labels`` are few and short (service, pid,
    cause); ``summary`` is one sentence, ``details`` are figures and texts of any kind that JSON can hold.  ``resolved``
    says that it is over.  No secrets in any of them.
    """

    __slots__ = ("details", "labels", "name", "resolved", "severity", "summary", "unix_ns")

    def __init__(
        self,
        name: str,
        severity: str,
        summary: str,
        labels: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
        *,
        resolved: bool = False,
        unix_ns: int | None = None,
    ) -> None:
        """Describe it; ``severity`` is "info", "warning" or "critical", ``unix_ns`` when it was, now by default."""
        self.name = name
        self.severity = severity
        self.summary = summary
        self.labels = dict(labels or {})
        self.details = dict(details or {})
        self.resolved = resolved
        self.unix_ns = time.time_ns() if unix_ns is None else unix_ns

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What makes two of them the same."""
        return self.name, tuple(sorted(self.labels.items()))
