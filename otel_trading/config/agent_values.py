"""Readers of the keys of agent, forensics, watchdog and alerts."""

from __future__ import annotations

from otel_trading.config.values import shown

FORMS = ("json", "discord", "slack")
SEVERITIES = ("info", "warning", "critical")
_MOST_MB = 1e6
_MOST_A_MINUTE = 6_000.0


def _one_of(value: object, what: str, known: tuple[str, ...]) -> str:
    name = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{shown(value)} is no {what}: use {', '.join(known[:-1])} or {known[-1]}")
    return name


def webhook_form(value: object) -> str:
    """Read the form of a webhook's post."""
    return _one_of(value, "form of a webhook's post", FORMS)


def severity(value: object) -> str:
    """Read how severe an alert is."""
    return _one_of(value, "severity", SEVERITIES)


def _number(value: object, what: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= most:
        raise ValueError(f"{shown(value)} is not {what}: a number from 0 to {most:g}")
    return float(value)


def megabytes(value: object) -> float:
    """Read an amount of memory or disk, MB."""
    return _number(value, "an amount in MB", _MOST_MB)


def per_minute(value: object) -> float:
    """Read how often a minute something may happen."""
    return _number(value, "a number a minute", _MOST_A_MINUTE)


def http_url(value: object) -> str | None:
    """Read an http or https address; it may hold a secret, so a mistake does not show it."""
    if value is None:
        return None
    from urllib.parse import urlsplit

    text = value.strip() if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or any(c.isspace() or ord(c) < ord(" ") for c in text):
        raise ValueError("this is no address: write it as in 'http://127.0.0.1:9093'")
    return text


def command(value: object) -> tuple[str, ...]:
    """Read a program and its arguments: a list, or text as a shell would split it."""
    import shlex

    try:
        items = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{shown(value)} is no command: {error}") from None
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) and item for item in items):
        raise ValueError(f"{shown(value)} is no command: write a list as in ['notify', '--urgent']")
    return tuple(items)


def signal_name(value: object) -> str | None:
    """Read the name of a signal that a program is free to use."""
    if value is None:
        return None
    import signal

    name = value.strip().upper() if isinstance(value, str) else ""
    name = name if name.startswith("SIG") else f"SIG{name}"
    taken = {"SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGCHLD"}
    if name in taken or name not in signal.Signals.__members__:
        raise ValueError(f"{shown(value)} is no signal to use for that: write one as in 'SIGUSR2'")
    return name
