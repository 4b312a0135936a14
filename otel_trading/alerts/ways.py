"""The ways out: log, OpenTelemetry log record, http post, command."""

from __future__ import annotations

import json

from otel_trading.alerts import forms
from otel_trading.alerts.lane import Later, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_trading.alerts.alert import Alert
    from otel_trading.alerts.lane import Way
    from otel_trading.config import Settings

_TOO_MANY, _TIMED_OUT, _FIRST_SERVER_ERROR = 429, 408, 500
_FORMS: dict[str, Callable[[Alert], object]] = {"json": forms.plain, "discord": forms.discord, "slack": forms.slack}
_USUAL_WAIT = 5.0  # seconds, where a receiver asks for a wait and does not say how long


class Log:
    """Python's logging, logger ``otel_trading.alerts``."""

    label = "the log"

    def send(self, alert: Alert) -> None:
        """Log it, by its severity."""
        import logging

        level = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}[alert.severity]
        state = "resolved" if alert.resolved else alert.severity
        logging.getLogger("otel_trading.alerts").log(
            logging.INFO if alert.resolved else level,
            "%s (%s): %s%s",
            alert.name,
            state,
            alert.summary,
            "".join(f" {key}={value}" for key, value in alert.labels.items()),
        )


class OtelLog:
    """A log record of OpenTelemetry's, through the global LoggerProvider."""

    label = "OpenTelemetry's logs"

    def send(self, alert: Alert) -> None:
        """Emit it as the event ``otel_trading.alert``."""
        from opentelemetry._logs import SeverityNumber, get_logger

        number = {"info": SeverityNumber.INFO, "warning": SeverityNumber.WARN, "critical": SeverityNumber.FATAL}
        get_logger("otel_trading.alerts").emit(
            timestamp=alert.unix_ns,
            observed_timestamp=alert.unix_ns,
            severity_number=number[alert.severity],
            severity_text=alert.severity.upper(),
            body=alert.summary,
            attributes={
                "trading.alert.name": alert.name,
                "trading.alert.state": "resolved" if alert.resolved else "firing",
                **{f"trading.alert.label.{key}": value for key, value in alert.labels.items()},
                **{
                    f"trading.alert.{key}": value
                    if isinstance(value, (str, bool, int, float))
                    else json.dumps(value, default=str)
                    for key, value in alert.details.items()
                },
            },
            event_name="otel_trading.alert",
        )


class Post:
    """An http post of JSON; no redirect is followed, the system's proxies and certificates hold."""

    def __init__(self, label: str, url: str, form: Callable[[Alert], object], timeout: float) -> None:
        """Take where to, in which form, and the seconds that an attempt may take."""
        self.label = label
        self._url = url
        self._form = form
        self._timeout = timeout

    def send(self, alert: Alert) -> None:
        """Post it.  Raises Refused, Later, OSError."""
        import urllib.error
        import urllib.request

        body = json.dumps(self._form(alert), default=str).encode()
        request = urllib.request.Request(  # noqa: S310  the configuration takes http and https only
            self._url, body, {"Content-Type": "application/json", "User-Agent": "otel-trading"}, method="POST"
        )
        try:
            with urllib.request.build_opener(_no_redirects()).open(request, timeout=self._timeout):
                return
        except urllib.error.HTTPError as error:
            status, wait = error.code, error.headers.get("Retry-After", "")
            error.close()
        if status == _TOO_MANY:
            raise Later(float(wait) if wait.isascii() and wait.isdigit() else _USUAL_WAIT)
        if status < _FIRST_SERVER_ERROR and status != _TIMED_OUT:
            raise Refused(f"the receiver answers with status {status}")
        raise OSError(status)


def _no_redirects() -> type:
    import urllib.request

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    return NoRedirects


class Command:
    """A program that gets the alert as JSON on its standard input; what it prints is not looked at."""

    label = "the command"

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        """Take program and arguments, and the seconds that it may take."""
        self._command = list(command)
        self._timeout = timeout

    def send(self, alert: Alert) -> None:
        """Run it.  Raises Refused where it can not be run, OSError or TimeoutExpired where it fails."""
        import subprocess

        try:
            done = subprocess.run(
                self._command,
                input=json.dumps(forms.plain(alert), default=str).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self._timeout,
                start_new_session=True,
                check=False,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise Refused(f"{self._command[0]} can not be run ({error.strerror})") from None
        if done.returncode != 0:
            raise OSError(f"exit code {done.returncode}")


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def configured(settings: Settings) -> list[Way]:
    """Give the ways out that are configured."""
    values = settings.values
    timeout = float(str(values["alerts.timeout"]))
    ways: list[Way] = []
    if values["alerts.log"]:
        ways.append(Log())
    if values["alerts.otel_logs"]:
        ways.append(OtelLog())
    if values["alerts.alertmanager"]:
        url = str(values["alerts.alertmanager"]).rstrip("/") + "/api/v2/alerts"
        ways.append(Post("Alertmanager", url, forms.alertmanager, timeout))
    if values["alerts.webhook"]:
        form = _FORMS[str(values["alerts.webhook_form"])]
        ways.append(Post("the webhook", str(values["alerts.webhook"]), form, timeout))
    if values["alerts.command"]:
        ways.append(Command(_texts(values["alerts.command"]), timeout))
    return ways
