"""What an alert is."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

INFO, WARNING, CRITICAL = "info", "warning", "critical"
SEVERITIES = (INFO, WARNING, CRITICAL)
"""From the least severe on."""


class Alert:
    """Something that somebody should know of.

    ``name`` and ``labels`` say which alert it is: the same ones again within ``alerts.repeat`` are not sent.  ``name``
    is in CamelCase, as Prometheus's alerts are (``MonitoringBudgetExceeded``); ``labels`` are few and short (service,
    pid, cause); ``summary`` is one sentence, ``details`` are figures and texts of any kind that JSON can hold.
    ``resolved`` says that it is over.  No secrets in any of them.
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

    def document(self) -> dict[str, Any]:
        """Give what a JSON form of it has: name, severity, state, summary, labels, details, unix_ns."""
        return {
            "name": self.name,
            "severity": self.severity,
            "state": "resolved" if self.resolved else "firing",
            "summary": self.summary,
            "labels": self.labels,
            "details": self.details,
            "unix_ns": self.unix_ns,
        }


def from_document(document: object) -> Alert:
    """Make an alert of what ``document`` gave, or a program wrote by hand.  Raises ValueError for what is none."""
    if not isinstance(document, dict):
        raise ValueError("an alert is a JSON object")  # noqa: TRY004  of its text
    name, severity, summary = (document.get(key) for key in ("name", "severity", "summary"))
    if not isinstance(name, str) or not name or not isinstance(summary, str):
        raise ValueError("an alert has a name and a summary, both text")
    if severity not in SEVERITIES:
        raise ValueError(f"an alert's severity is {', '.join(SEVERITIES[:-1])} or {SEVERITIES[-1]}")
    labels, details = document.get("labels") or {}, document.get("details") or {}
    if not isinstance(labels, dict) or not isinstance(details, dict):
        raise ValueError("an alert's labels and details are JSON objects")  # noqa: TRY004  likewise
    when = document.get("unix_ns")
    return Alert(
        name,
        severity,
        summary,
        {key: str(value) for key, value in labels.items()},
        details,
        resolved=document.get("state") == "resolved" or document.get("resolved") is True,
        unix_ns=when if isinstance(when, int) and not isinstance(when, bool) and when > 0 else None,
    )
