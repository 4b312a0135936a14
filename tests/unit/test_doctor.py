"""The doctor's checks, each with what it looks at in order and out of order."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import OVER, Answer, Certificates, Receiver, environment

from otel_trading import _backend
from otel_trading.cli import main
from otel_trading.config.effective import Effective, plain_settings
from otel_trading.doctor import backend, clocks, configuration, distro, endpoint, examination, exporters, recorder
from otel_trading.doctor.check import FAIL, OK, WARN, Check, Situation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


def found(
    concern: ModuleType, directory: Path | str = "/nonexistent/of/this/test", timeout: float = 3.0
) -> list[Check]:
    """Run the checks of a concern in the environment as it is."""
    effective = Effective()
    situation = Situation(effective, effective.settings or plain_settings(), str(directory), timeout)
    return list(concern.checks(situation))


def use(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set environment variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# ---- configuration


def test_mistakes_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake is a failure, each note a warning."""
    use(monkeypatch, OTEL_TRADING_SAMPLING_RATE="7", OTEL_TRADING_SAMPLNG="1")
    states = [(check.state, check.message.partition(":")[0]) for check in found(configuration)]
    assert states == [(FAIL, "OTEL_TRADING_SAMPLING_RATE"), (WARN, "OTEL_TRADING_SAMPLNG")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("OTEL_SDK_DISABLED", "true", "nothing is recorded"), ("OTEL_TRADING_ENABLED", "off", "OTEL_TRADING_ENABLED")],
)
def test_what_is_switched_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    """That nothing is recorded on purpose is a warning."""
    use(monkeypatch, **{name: value})
    warned, fine = found(configuration)
    assert (warned.state, fine.state) == (WARN, OK)
    assert said in warned.message


# ---- backend


@pytest.mark.parametrize(
    ("name", "reason", "compiler", "states"),
    [
        ("native", "the C extension is installed", "/usr/bin/cc", [OK, OK]),
        ("native", "the C extension is installed", None, [OK, OK]),
        ("pure", "OTEL_TRADING_BACKEND=pure", "/usr/bin/cc", [WARN, OK]),
        ("pure", "the C extension cannot be imported", "/usr/bin/cc", [WARN, OK]),
        ("pure", "the C extension cannot be imported", None, [WARN, WARN]),
    ],
)
def test_backends(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str, compiler: str | None, states: list[str]
) -> None:
    """The pure backend is a warning, with the way to the native one."""
    monkeypatch.setattr(_backend, "backend", name)
    monkeypatch.setattr(_backend, "reason", reason)
    monkeypatch.setattr(backend, "compiler_found", lambda: compiler)
    checks = found(backend)
    assert [check.state for check in checks] == states
    assert all(check.remedy for check in checks if check.state != OK)


def test_the_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any compiler on PATH there is none."""
    use(monkeypatch, PATH=str(tmp_path), CC="cc")
    assert backend.compiler_found() is None


# ---- the recorder


def test_a_span_goes_through_a_segment(tmp_path: Path) -> None:
    """A segment is made, a span read back, and nothing is left behind."""
    checks = {check.name: check for check in found(recorder, tmp_path / "segments")}
    assert {check.state for check in checks.values()} == {OK}
    assert set(checks) == {"directory", "space", "recorder", "clock"}
    assert "mode 0700" in checks["directory"].message
    assert list((tmp_path / "segments").iterdir()) == []


def test_a_directory_that_others_can_enter(tmp_path: Path) -> None:
    """A directory with a wrong mode is a failure, with the command that corrects it."""
    tmp_path.chmod(0o755)
    (check,) = found(recorder, tmp_path)
    assert (check.state, check.remedy) == (FAIL, f"chmod 700 {tmp_path}")
    assert "Remedy" not in check.message


def test_a_segment_for_which_there_is_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the system refuses is told with its own words."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder, "core", type("Full", (), {"open": staticmethod(refuse)}))
    tmp_path.chmod(0o700)
    (check,) = found(recorder, tmp_path)
    assert check.state == FAIL
    assert "No space left on device" in check.message
    assert list(tmp_path.iterdir()) == []


def test_little_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Room for few further segments is a warning."""
    tmp_path.chmod(0o700)
    system = os.statvfs(tmp_path)
    small = os.statvfs_result((system.f_bsize, 1, 1, 1, 1, *system[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: small)
    (check,) = [check for check in found(recorder, tmp_path) if check.name == "space"]
    assert check.state == WARN


@pytest.mark.parametrize(
    ("clock", "state"), [("tsc", OK), ("cntvct", OK), ("monotonic", None), ("perf_counter_ns", None)]
)
def test_clocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: str, state: str | None) -> None:
    """A counter is fine; a call of the kernel's is a warning where the kernel has no better source."""
    monkeypatch.setattr(_backend, "backend", "native")
    kernels = tmp_path / "source"
    monkeypatch.setattr(recorder, "_KERNELS", str(kernels))
    assert recorder._clock(clock).state == OK
    kernels.write_text("hpet\n")
    assert recorder._clock(clock).state == (state or WARN)


# ---- distros


def other_distro(folder: Path, name: str) -> str:
    """Install a package that brings a distro and a configurator of its own; gives the directory for PYTHONPATH."""
    package = folder / "site" / f"{name}_distro"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from opentelemetry.instrumentation.distro import BaseDistro\n"
        "class Distro(BaseDistro):\n    def _configure(self, **kwargs):\n        pass\n"
        "class Configurator:\n    def configure(self, **kwargs):\n        print('theirs configured')\n"
    )
    info = folder / "site" / f"{name}_distro-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-distro\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[opentelemetry_distro]\n{name} = {name}_distro:Distro\n"
        f"[opentelemetry_configurator]\n{name} = {name}_distro:Configurator\n"
    )
    return str(folder / "site")


def test_our_distro_is_chosen() -> None:
    """Here, where no other is installed, both ways choose ours."""
    checks = found(distro)
    assert [check.state for check in checks] == [OK, OK]
    assert all("otel_trading.distro.OtelTradingDistro" in check.message for check in checks)


def test_another_distro_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the loader's first is another, that is a warning, and run still chooses ours."""
    path = os.pathsep.join(filter(None, [other_distro(tmp_path, "aaa"), os.environ.get("PYTHONPATH", "")]))
    use(monkeypatch, PYTHONPATH=path)
    plain, run = found(distro)
    assert (plain.state, run.state) == (WARN, OK)
    assert "aaa_distro.Distro" in plain.message
    assert "aaa (package aaa-distro)" in plain.message
    assert "OTEL_PYTHON_DISTRO=otel_trading" in plain.remedy


def test_a_loader_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the loader's process is told with its last line."""
    monkeypatch.setattr(distro, "_PROGRAM", "raise SystemExit('broken')")
    assert distro.chosen({}) == "broken"
    assert [check.state for check in found(distro)] == [FAIL, FAIL]


# ---- exporters


@pytest.fixture(params=list(OVER))
def protocol(request: pytest.FixtureRequest) -> str:
    """Give both protocols."""
    return str(request.param)


def test_a_span_is_taken(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """A real span arrives at the configured endpoint, by the configured protocol."""
    receiver = Receiver()
    with OVER[protocol](receiver) as place:
        use(monkeypatch, **environment(protocol, place))
        (check,) = found(exporters)
    assert check.state == OK, check
    assert [span.name for span in receiver.spans()] == ["otel-trading doctor"]
    assert receiver.resources()[0]["service.name"] == "otel-trading-doctor"


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """An endpoint at which nothing listens is told as that: a failure, or a warning where it is only the default."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    use(monkeypatch, **environment(protocol, f"http://127.0.0.1:{port}"))
    (check,) = found(exporters)
    assert (check.state, f"nothing listens at 127.0.0.1:{port}" in check.message) == (FAIL, True)
    assert check.remedy
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    (check,) = found(exporters)
    assert (check.state, "default of otel-trading run" in check.message) == (WARN, True)


def test_a_server_that_refuses(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """What the server answers is in the message."""
    receiver = Receiver()
    receiver.answers = [Answer(never=True, message="no such tenant")]
    with OVER[protocol](receiver) as place:
        use(monkeypatch, **environment(protocol, place))
        (check,) = found(exporters)
    assert check.state == FAIL
    assert "no such tenant" in check.message
    assert check.remedy


def test_the_wrong_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Http spoken to a grpc server is a failure, with the other protocol as the remedy."""
    with OVER["grpc"](Receiver()) as place:
        use(monkeypatch, **environment("http/protobuf", place))
        (check,) = found(exporters, timeout=1.0)
    assert check.state == FAIL
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in check.remedy


def test_other_exporters_are_only_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console is made and sent nothing; what is not installed, and no exporter at all, are told."""
    use(monkeypatch, OTEL_TRACES_EXPORTER="console")
    (check,) = found(exporters)
    assert (check.state, "nothing was sent" in check.message) == (OK, True)
    use(monkeypatch, OTEL_TRACES_EXPORTER="zzz")
    assert [check.state for check in found(exporters)] == [FAIL]
    use(monkeypatch, OTEL_TRACES_EXPORTER="none")
    (check,) = found(exporters)
    assert (check.state, check.message) == (OK, "none, as OTEL_TRACES_EXPORTER says")


def test_a_protocol_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that no exporter speaks is told."""
    use(monkeypatch, OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="carrier/pigeon")
    (check,) = found(exporters)
    assert (check.state, "carrier/pigeon" in check.message) == (FAIL, True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make a certificate that signs itself."""
    where = tmp_path_factory.mktemp("certificates")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=where, check=True, capture_output=True)
    return Certificates(where / "cert.pem", (where / "cert.pem", where / "key.pem"), None)


def test_tls(monkeypatch: pytest.MonkeyPatch, certificates: Certificates, protocol: str, tmp_path: Path) -> None:
    """A trusted certificate is fine; one that is not, and a file of none, are told plainly."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    receiver = Receiver()
    with OVER[protocol](receiver, tls=certificates) as place:
        use(monkeypatch, **environment(protocol, place))
        (check,) = found(exporters)
        assert check.state == FAIL
        assert "TLS: the server's certificate is not trusted: self-signed certificate" in check.message
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in check.remedy
        (tmp_path / "empty.pem").write_text("nothing\n")
        use(monkeypatch, OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "empty.pem"))
        (check,) = found(exporters)
        assert check.state == FAIL
        use(monkeypatch, OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificates.authority))
        (check,) = found(exporters)
    assert check.state == OK, check
    assert len(receiver.spans()) == 1


def test_tls_to_a_server_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Https to a server of plain http is told as that."""
    with OVER["http/protobuf"](Receiver()) as place:
        use(monkeypatch, **environment("http/protobuf", place.replace("http://", "https://")))
        (check,) = found(exporters)
    assert check.state == FAIL
    assert "does not speak TLS" in check.message


def test_a_name_that_is_not_known() -> None:
    """A host's name that nothing resolves is told as that."""
    place = endpoint.Place("http://no-such-host.invalid:1", "no-such-host.invalid", 1, False, None, "http")
    trouble = endpoint.trouble(place, 3.0)
    assert trouble is not None
    assert "no-such-host.invalid" in trouble.message


@pytest.mark.parametrize(
    ("reason", "protocol", "port", "said"),
    [
        ("Failed: 401 Unauthorized", "http", 4318, "OTEL_EXPORTER_OTLP_HEADERS"),
        ("code: PERMISSION_DENIED", "grpc", 4317, "OTEL_EXPORTER_OTLP_HEADERS"),
        ("404 Not Found", "http", 4318, "/v1/traces"),
        ("connection reset", "http", 4317, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
        ("UNAVAILABLE", "grpc", 4318, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ("something else", "http", 80, "look at the Collector's log"),
    ],
)
def test_remedies(reason: str, protocol: str, port: int, said: str) -> None:
    """What to do follows from what was said."""
    place = endpoint.Place("http://x", "x", port, False, None, protocol)
    assert said in endpoint.remedy(reason, protocol, place)


# ---- the Collector's clock


@pytest.fixture
def clock() -> Iterator[tuple[dict[str, Any], str]]:
    """Run a server whose Date header is off by what a test says; give that and its endpoint."""
    told: dict[str, Any] = {"ahead": 0.0}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(404)
            if told["ahead"] is not None:
                ahead = told["ahead"]
                text = ahead if isinstance(ahead, str) else email.utils.formatdate(time.time() + ahead, usegmt=True)
                self.send_header("Date", text)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("ahead", "state", "said"),
    [
        (0.0, OK, "agrees with ours"),
        (60.0, WARN, "ahead of ours"),
        (-60.0, WARN, "behind ours"),
        (None, OK, "not known"),
        ("yesterday", OK, "not known"),
    ],
)
def test_the_collectors_clock(
    monkeypatch: pytest.MonkeyPatch,
    clock: tuple[dict[str, Any], str],
    ahead: float | str | None,
    state: str,
    said: str,
) -> None:
    """A clock that is off by more than a Date header can hide is a warning."""
    clock[0]["ahead"] = ahead
    use(monkeypatch, **environment("http/protobuf", clock[1]))
    (check,) = found(clocks)
    assert check.state == state
    assert said in check.message


def test_clocks_that_can_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grpc tells no time; a server that is not there is the exporters' finding."""
    use(monkeypatch, **environment("grpc", "http://127.0.0.1:1"))
    assert [check.message for check in found(clocks)] == ["not known: grpc has no Date header"]
    use(monkeypatch, **environment("http/protobuf", "http://127.0.0.1:1"))
    assert found(clocks) == []
    use(monkeypatch, OTEL_TRACES_EXPORTER="none")
    assert found(clocks) == []


# ---- the command


def answer(*checks: Check) -> Callable[[float], Iterator[Check]]:
    """Stand in for the examination."""
    return lambda _timeout: iter(checks)


@pytest.mark.parametrize(
    ("checks", "code", "following"),
    [
        ([Check("a", OK, "fine")], 0, "otel-trading run -- python bot.py"),
        ([Check("a", WARN, "so so", "do this")], 0, "otel-trading run -- python bot.py"),
        ([Check("a", FAIL, "no", "do that"), Check("b", OK, "fine")], 1, "otel-trading doctor, when that is corrected"),
        ([Check("configuration", FAIL, "no", "do that")], 1, "otel-trading config check"),
    ],
)
def test_the_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checks: list[Check],
    code: int,
    following: str,
) -> None:
    """Each finding is a line, with its remedy; the exit code is 1 where one failed; the next command is last."""
    monkeypatch.setattr(examination, "examine", answer(*checks))
    assert main.main(["doctor"]) == code
    shown = capsys.readouterr().out
    assert all(f"{check.name}: {check.message}" in shown and check.remedy in shown for check in checks)
    assert shown.splitlines()[-1] == f"Next: {following}"
    assert main.main(["doctor", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (code == 0)
    assert [Check(**check) for check in document["checks"]] == checks


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others run all the same."""
    monkeypatch.setattr(examination, "CONCERNS", ("nothing_of_that_name", "configuration"))
    broken, fine = examination.examine()
    assert (broken.state, fine.state) == (FAIL, OK)
    assert "ModuleNotFoundError" in broken.message


def test_everything_for_real(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole examination of this machine runs through, the instrumentors' included."""
    receiver = Receiver()
    with OVER["http/protobuf"](receiver) as place:
        use(monkeypatch, OTEL_TRADING_DIR=str(tmp_path / "segments"), **environment("http/protobuf", place))
        code = main.main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in document["checks"]}
    assert code == 0, document
    assert checks["instrumentor websockets"]["message"] == "instrumented"
    assert checks["exporter otlp"]["state"] == checks["recorder"]["state"] == OK
    assert len(receiver.spans()) == 1
