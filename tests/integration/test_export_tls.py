"""OTLP over TLS, by the standard variables, on the transports that the stock exporters make."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from exporting import accounted, record, soon, totals

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import OVER, Certificates, Receiver, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIGN = "openssl x509 -req -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make an authority of our own, and certificates that it signed."""
    where = tmp_path_factory.mktemp("certificates")
    (where / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="utf-8")
    authority = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ours -keyout ca.key -out ca.pem"
    commands = [authority.split()]
    for name in ("server", "client"):
        commands.append(
            f"openssl req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr".split()
        )
        commands.append([*SIGN.split(), "-in", f"{name}.csr", "-out", f"{name}.pem"])
    for command in commands:
        subprocess.run(command, cwd=where, check=True, capture_output=True)
    return Certificates(where / "ca.pem", _pair(where, "server"), _pair(where, "client"))


def _pair(where: Path, name: str) -> tuple[Path, Path]:
    return where / f"{name}.pem", where / f"{name}.key"


@pytest.mark.parametrize("protocol", list(OVER))
@pytest.mark.parametrize("case", ["its authority", "no authority", "both sides", "no client"])
def test_tls_is_the_standard_variables(
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    certificates: Certificates,
    protocol: str,
    case: str,
) -> None:
    """A receiver is trusted by its authority and may ask for a certificate; else nothing is sent, and that is said."""
    receiver = Receiver()
    mutual = case in ("both sides", "no client")
    tls = certificates if mutual else certificates._replace(client=None)
    with OVER[protocol](receiver, tls=tls) as endpoint:
        variables = {
            **environment(protocol, endpoint),
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        if case != "no authority":
            variables["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(certificates.authority)
        if case == "both sides":
            certificate, key = map(str, certificates.client or ())
            variables["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = certificate
            variables["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = key
        # These would win over OpenTelemetry's own variable, by the library that http goes through.
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        running = start(export__traces="otlp")
        record(10)
        well = case in ("its authority", "both sides")
        assert running.flush(soon()) is well
    assert len(receiver.spans()) == (10 if well else 0)
    assert totals() == (accounted(10, exported=10) if well else accounted(10, refused=10))
    assert ("exporter 'otlp' did not take spans" in caplog.text) is not well
