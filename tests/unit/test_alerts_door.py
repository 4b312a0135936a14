"""The door for alerts, with real receivers and a real command."""

from __future__ import annotations

import http.server
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_trading import alerts, config
from otel_trading.alerts.door import outcomes
from otel_trading.alerts.lane import Lane, Later, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "hunter2-token"  # noqa: S105  what no log may have


class Receiver:
    """An http server that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        self.bodies: list[Any] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bodies.append((self.path, json.loads(body)))
                status, headers = receiver.answers.pop(0) if receiver.answers else (200, {})
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., None]]:
    """Give a function that opens the door with these keys; it is closed at the end."""

    def open_door(**keys: object) -> None:
        alerts.configure(config.resolve("test", None, {name.replace("__", "."): value for name, value in keys.items()}))

    alerts.close(0.0)
    yield open_door
    alerts.close(5.0)


def late(**labels: str) -> alerts.Alert:
    """Give an alert."""
    return alerts.Alert("DrainLate", alerts.WARNING, "the drain is late", labels, {"seconds": 7.5})


def test_without_a_configuration_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An alert of a program that configured nothing is in its log, with what it is about."""
    alerts.close(0.0)
    with caplog.at_level(logging.INFO, "otel_trading.alerts"):
        alerts.raise_alert(late(service="bot"))
        assert alerts.flush(10.0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "DrainLate (warning): the drain is late service=bot"
    alerts.close(1.0)


def test_a_webhook_gets_it(receiver: Receiver, opened: Callable[..., None]) -> None:
    """The webhook gets the whole alert as JSON, once."""
    opened(alerts__webhook=receiver.url, alerts__log=False)
    for _ in range(3):
        alerts.raise_alert(late(service="bot"))
    assert alerts.flush(10.0)
    ((path, body),) = receiver.bodies
    assert path.endswith(SECRET)
    assert (body["name"], body["state"], body["labels"], body["details"]) == (
        "DrainLate",
        "firing",
        {"service": "bot"},
        {"seconds": 7.5},
    )
    assert outcomes() == {"the webhook": (1, 0)}


@pytest.mark.parametrize(("form", "key"), [("discord", "embeds"), ("slack", "blocks")])
def test_its_form_is_configured(receiver: Receiver, opened: Callable[..., None], form: str, key: str) -> None:
    """Discord's and Slack's forms are posted where they are asked for."""
    opened(alerts__webhook=receiver.url, alerts__webhook_form=form, alerts__log=False)
    alerts.raise_alert(late())
    assert alerts.flush(10.0)
    assert key in receiver.bodies[0][1]


def test_a_receiver_that_fails_is_tried_again(receiver: Receiver) -> None:
    """After an error of the server, and after too many requests, the alert is sent again and arrives."""
    from otel_trading.alerts import forms
    from otel_trading.alerts.ways import Post

    receiver.answers = [(500, {}), (503, {}), (429, {"Retry-After": "0"})]
    lane = Lane(Post("the webhook", receiver.url, forms.plain, 5.0), waits=(0.0, 0.0, 0.0, 0.0))
    lane.put(late())
    assert lane.flush(time.monotonic() + 10.0)
    assert (len(receiver.bodies), lane.sent, lane.given_up) == (4, 1, 0)
    lane.end()


def test_a_receiver_that_refuses_is_left_alone(
    receiver: Receiver, opened: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that does not know the address is not asked again, and no log has the address's secret."""
    receiver.answers = [(404, {})]
    opened(alerts__webhook=receiver.url, alerts__log=False)
    with caplog.at_level(logging.WARNING):
        alerts.raise_alert(late())
        assert alerts.flush(10.0)
    assert outcomes() == {"the webhook": (0, 1)}
    assert len(receiver.bodies) == 1
    assert "status 404" in caplog.text
    assert SECRET not in caplog.text


def test_a_redirect_is_not_followed(receiver: Receiver, opened: Callable[..., None]) -> None:
    """An answer that sends the alert elsewhere does not get it there."""
    receiver.answers = [(302, {"Location": receiver.url + "/elsewhere"})]
    opened(alerts__webhook=receiver.url, alerts__log=False)
    alerts.raise_alert(late())
    assert alerts.flush(10.0)
    assert len(receiver.bodies) == 1


def test_nobody_listening_holds_nobody_up(opened: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """With no receiver there, handing in returns at once, closing is bounded, and the secret stays out of the log."""
    opened(alerts__webhook=f"http://127.0.0.1:9/{SECRET}", alerts__log=False)
    with caplog.at_level(logging.WARNING):
        for number in range(500):
            alerts.raise_alert(late(pid=str(number)))
        assert not alerts.flush(0.1)
        alerts.close(0.0)
    assert SECRET not in caplog.text


def test_a_command_gets_it(tmp_path: Path, opened: Callable[..., None]) -> None:
    """The command has the alert as JSON on its standard input."""
    script = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read()); print('noise')"
    opened(alerts__command=[sys.executable, "-c", script], alerts__log=False, alerts__timeout=30.0)
    alerts.raise_alert(late(service="bot"))
    assert alerts.flush(30.0)
    assert json.loads((tmp_path / "got").read_text())["labels"] == {"service": "bot"}
    assert outcomes() == {"the command": (1, 0)}


def test_a_command_that_is_not_there(opened: Callable[..., None]) -> None:
    """A command that can not be run is given up at once."""
    opened(alerts__command=["/nowhere/notify"], alerts__log=False)
    alerts.raise_alert(late())
    assert alerts.flush(10.0)
    assert outcomes() == {"the command": (0, 1)}


def test_opentelemetry_log_records(opened: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """With OpenTelemetry's logs on, the alert is an event with its figures as attributes."""
    from opentelemetry import _logs
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(
        _logs, "get_logger", lambda name, *_, **__: provider.get_logger(name)
    )  # the global provider can be set once a process
    opened(alerts__otel_logs=True, alerts__log=False)
    alerts.raise_alert(late(service="bot"))
    assert alerts.flush(10.0)
    (record,) = exporter.get_finished_logs()
    assert record.log_record.event_name == "otel_trading.alert"
    assert record.log_record.body == "the drain is late"
    assert dict(record.log_record.attributes or {}) == {
        "trading.alert.name": "DrainLate",
        "trading.alert.state": "firing",
        "trading.alert.label.service": "bot",
        "trading.alert.seconds": 7.5,
    }


class _Way:
    label = "a way"

    def __init__(self, *outcomes_: Exception | None) -> None:
        self.outcomes = list(outcomes_)
        self.calls = 0

    def send(self, _: alerts.Alert) -> None:
        self.calls += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome


def test_attempts_end() -> None:
    """A way that always fails is tried so often and no more, and the next alert is tried all the same."""
    way = _Way(*[OSError()] * 3, None)
    lane = Lane(way, waits=(0.0, 0.0))
    lane.put(late(pid="1"))
    lane.put(late(pid="2"))
    assert lane.flush(time.monotonic() + 10.0)
    assert (way.calls, lane.sent, lane.given_up) == (4, 1, 1)
    lane.end()


def test_a_wait_that_is_asked_for_is_bounded() -> None:
    """A receiver that asks for a day is not waited for longer than between the last attempts."""
    way = _Way(Later(86_400.0), None)
    lane = Lane(way, waits=(0.01,))
    lane.put(late())
    assert lane.flush(time.monotonic() + 10.0)
    assert lane.sent == 1
    lane.end()


def test_a_full_queue_gives_up_the_oldest() -> None:
    """Past so many waiting alerts the oldest is given up, and counted."""
    held = threading.Event()

    class Slow(_Way):
        def send(self, _: alerts.Alert) -> None:
            held.wait(20.0)

    lane = Lane(Slow())
    for number in range(400):
        lane.put(late(pid=str(number)))
    assert lane.given_up >= 400 - 256 - 1
    held.set()
    assert lane.flush(time.monotonic() + 20.0)
    assert lane.sent + lane.given_up == 400
    lane.end()


def test_refused_is_final() -> None:
    """What the receiver does not want is not sent again."""
    way = _Way(Refused("no"))
    lane = Lane(way, waits=(0.0,) * 5)
    lane.put(late())
    assert lane.flush(time.monotonic() + 10.0)
    assert (way.calls, lane.given_up) == (1, 1)
    lane.end()


def test_a_forked_child_has_a_door_of_its_own(receiver: Receiver, opened: Callable[..., None]) -> None:
    """What waits in the parent is not sent by the child, and the child can send."""
    opened(alerts__webhook=receiver.url, alerts__log=False)
    alerts.raise_alert(late(who="parent"))
    assert alerts.flush(10.0)
    pid = os.fork()
    if pid == 0:
        try:
            opened(alerts__webhook=receiver.url, alerts__log=False)
            alerts.raise_alert(late(who="child"))
            os._exit(0 if alerts.flush(10.0) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [body["labels"]["who"] for _, body in receiver.bodies] == ["parent", "child"]
