"""What alerts look like to their receivers."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from otel_trading.alerts import Alert, forms

texts = st.text(max_size=3_000)
alerts = st.builds(
    Alert,
    st.text(min_size=1, max_size=400),
    st.sampled_from(["info", "warning", "critical"]),
    texts,
    st.dictionaries(st.text(max_size=300), texts, max_size=30),
    st.dictionaries(st.text(max_size=300), texts | st.integers() | st.floats(allow_nan=False), max_size=30),
    resolved=st.booleans(),
    unix_ns=st.integers(0, 4_000_000_000_000_000_000),
)


@given(alerts)
def test_discord_takes_them(alert: Alert) -> None:
    """Whatever is in an alert, its message keeps Discord's limits and mentions nobody."""
    message = json.loads(json.dumps(forms.discord(alert)))
    (embed,) = message["embeds"]
    assert message["allowed_mentions"] == {"parse": []}
    assert len(embed["title"]) <= 256
    assert len(embed["description"]) <= 4_096
    assert len(embed["fields"]) <= 25
    for field in embed["fields"]:
        assert 1 <= len(field["name"]) <= 256
        assert 1 <= len(field["value"]) <= 1_024


@given(alerts)
def test_slack_takes_them(alert: Alert) -> None:
    """Whatever is in an alert, its message keeps Slack's limits, and its texts are no markup."""
    message = json.loads(json.dumps(forms.slack(alert)))
    for block in message["blocks"]:
        assert 1 <= len(block["text"]["text"]) <= 3_000
        assert "<" not in block["text"]["text"]
    assert "<" not in message["text"]


@given(alerts)
def test_alertmanagers_labels_are_prometheus_labels(alert: Alert) -> None:
    """Names of labels and annotations are such as Prometheus takes, and one end of the alert is told."""
    (entry,) = json.loads(json.dumps(forms.alertmanager(alert)))
    for name in (*entry["labels"], *entry["annotations"]):
        assert name.isascii()
        assert name.isidentifier()
    assert entry["labels"]["alertname"] == alert.name
    assert ("endsAt" in entry) == alert.resolved
    assert ("startsAt" in entry) != alert.resolved


def test_times_are_rfc3339() -> None:
    """A time in ns is told in UTC, with its zone."""
    assert forms.rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123457+00:00"
