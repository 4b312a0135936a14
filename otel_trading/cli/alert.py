"""Send an alert through the ways out that are configured.

    otel-trading alert test
    otel-trading alert send < alert.json

test sends one of severity info that says what it is.  send takes an alert as a JSON object from standard input: name,
severity (info, warning, critical), summary, and if wanted labels, details, resolved.  docs/alerts.md has the ways out.

Exit codes: 0 each way out took it, 1 one did not, 2 it could not be tried.
"""

from __future__ import annotations

import argparse
import json
import sys

from otel_trading.errors import ConfigurationError, OtelTradingError

_MOST = 1 << 20  # bytes of an alert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("test", "send"), metavar="test|send", help="which one")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds it may take (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Send it; gives the exit code."""
    from otel_trading import alerts, config
    from otel_trading.alerts.alert import Alert, from_document
    from otel_trading.alerts.door import outcomes

    settings = config.resolve(None, None, None)
    settings.values = {**settings.values, "alerts.severity": "info"}  # who asks for this one wants it
    if arguments.what == "test":
        alert = Alert("OtelTradingTest", "info", "This is a test of the alerts' ways out; nothing is wrong.")
    else:
        try:
            alert = from_document(json.loads(sys.stdin.buffer.read(_MOST)))
        except (ValueError, RecursionError) as error:
            raise OtelTradingError(f"standard input has no alert: {error}") from error
    alerts.configure(settings)
    alerts.raise_alert(alert)
    alerts.flush(arguments.timeout)
    ways = {label: sent > 0 for label, (sent, _) in outcomes().items()}
    alerts.close(0.0)
    if not ways:
        raise ConfigurationError("no way out is configured: set alerts.log, alerts.webhook or another (docs/alerts.md)")
    if arguments.json:
        sys.stdout.write(json.dumps({"alert": alert.document(), "ways": ways}, indent=2, default=str) + "\n")
    else:
        lines = [f"  {label}: {'sent' if sent else 'not sent'}" for label, sent in ways.items()]
        sys.stdout.write("\n".join([f"{alert.name}:", *lines, "", "Next: otel-trading config check"]) + "\n")
    return 0 if all(ways.values()) else 1
