"""The keys of agent, forensics, watchdog and alerts; ``Settings.values`` has them, by their names."""

from __future__ import annotations

from otel_trading.config import agent_values as read
from otel_trading.config import values
from otel_trading.config.key import Key

AGENT: dict[str, Key] = {
    "agent.idle": Key(
        30.0, values.seconds(0.0, 86_400.0), "an agent that `run` started ends so long after the last segment"
    ),
    "forensics.enabled": Key(True, values.switch, "whether the end of a process is looked into"),
    "forensics.directory": Key(
        None,
        values.path,
        "where crash reports and archived segments are kept; by default below the user's state directory",
    ),
    "forensics.quota_mb": Key(256.0, read.megabytes, "what they may take together, MB; the oldest go first"),
    "forensics.signal": Key(
        None, read.signal_name, "signal that has the process write a flight record, as `SIGUSR2`; without it none"
    ),
    "watchdog.enabled": Key(True, values.switch, "whether the agent starts a watchdog"),
    "watchdog.late": Key(5.0, values.seconds(0.1, 3_600.0), "a heartbeat older than that is late"),
    "watchdog.restarts": Key(
        5, values.whole(0, 1_000_000), "restarts in ten minutes after which the watchdog gives up, and says so"
    ),
    "alerts.log": Key(True, values.switch, "whether alerts are logged"),
    "alerts.otel_logs": Key(False, values.switch, "whether they are sent as OpenTelemetry log records"),
    "alerts.alertmanager": Key(None, read.http_url, "Alertmanager's address, as `http://127.0.0.1:9093`"),
    "alerts.webhook": Key(None, read.http_url, "address that they are posted to; it is never shown whole"),
    "alerts.webhook_form": Key("json", read.webhook_form, "form of the post: json, discord, slack"),
    "alerts.command": Key((), read.command, "program and arguments that gets each alert as JSON on standard input"),
    "alerts.severity": Key("warning", read.severity, "the least severe that is sent: info, warning, critical"),
    "alerts.repeat": Key(300.0, values.seconds(0.0, 86_400.0), "the same alert is not sent again within that time"),
    "alerts.rate": Key(30.0, read.per_minute, "alerts a minute that are sent at most; what is left out is counted"),
    "alerts.timeout": Key(5.0, values.seconds(0.1, 300.0), "time that one attempt to send may take"),
}
