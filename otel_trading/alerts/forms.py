"""What an alert looks like to each receiver."""

from __future__ import annotations

import json
from datetime import datetime, timezone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading.alerts.alert import Alert

_COLOURS = {"info": 0x3B82F6, "warning": 0xF59E0B, "critical": 0xDC2626}
_RESOLVED = 0x16A34A
_MOST_FIELDS = 25  # Discord's limit, and its limits of texts; Slack's are larger but for a section's
_MOST_NAME, _MOST_VALUE, _MOST_TITLE, _MOST_TEXT = 256, 1_024, 256, 2_000
_MOST_SECTION = 3_000


def rfc3339(unix_ns: int) -> str:
    """Give a time as RFC 3339 has it, in UTC, to the microsecond."""
    return datetime.fromtimestamp(unix_ns / 1e9, timezone.utc).isoformat(timespec="microseconds")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _fields(alert: Alert) -> list[tuple[str, str]]:
    return [(key, _shown(value)) for key, value in (*alert.labels.items(), *alert.details.items())]


def _title(alert: Alert) -> str:
    return f"[{'resolved' if alert.resolved else alert.severity}] {alert.name}"


def plain(alert: Alert) -> dict[str, Any]:
    """Give our own form."""
    return {"version": 1, **alert.document(), "time": rfc3339(alert.unix_ns)}


def discord(alert: Alert) -> dict[str, Any]:
    """Give a message of Discord's webhooks: one embed, and nobody is mentioned by what the texts hold."""
    return {
        "allowed_mentions": {"parse": []},
        "embeds": [
            {
                "title": _cut(_title(alert), _MOST_TITLE),
                "description": _cut(alert.summary, _MOST_TEXT),
                "color": _RESOLVED if alert.resolved else _COLOURS[alert.severity],
                "timestamp": rfc3339(alert.unix_ns),
                "fields": [
                    {"name": _cut(name or "-", _MOST_NAME), "value": _cut(value or "-", _MOST_VALUE), "inline": True}
                    for name, value in _fields(alert)[:_MOST_FIELDS]
                ],
            }
        ],
    }


def slack(alert: Alert) -> dict[str, Any]:
    """Give a message of Slack's incoming webhooks; what the texts hold is no markup."""

    def safe(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    heading = f"*{safe(_title(alert))}*\n{safe(alert.summary)}"
    blocks: list[dict[str, Any]] = [_section(heading)]
    fields = "\n".join(f"{safe(name)}: {safe(_cut(value, _MOST_VALUE))}" for name, value in _fields(alert))
    if fields:
        blocks.append(_section(fields))
    return {"text": _cut(f"{safe(_title(alert))} {safe(alert.summary)}", _MOST_SECTION), "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text, _MOST_SECTION)}}


def alertmanager(alert: Alert) -> list[dict[str, Any]]:
    """Give what Alertmanager's ``/api/v2/alerts`` takes; a resolved one has ended."""
    labels = {_label(key): value for key, value in alert.labels.items()}
    entry: dict[str, Any] = {
        "labels": {**labels, "alertname": alert.name, "severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            **{_label(key): _shown(value) for key, value in alert.details.items()},
        },
    }
    entry["endsAt" if alert.resolved else "startsAt"] = rfc3339(alert.unix_ns)
    return [entry]


def _label(name: str) -> str:
    """Give a name that Prometheus takes for a label's."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return safe if safe and not safe[0].isdigit() else f"_{safe}"
