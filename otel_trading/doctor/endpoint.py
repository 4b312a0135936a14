"""Where an exporter sends to, and what of the way there fails: the name, the connection, TLS."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_DEFAULT = {"http": 4318, "grpc": 4317}


class Place(NamedTuple):
    """An endpoint."""

    url: str
    host: str
    port: int
    tls: bool
    certificate: str | None
    """File of the authorities that are trusted, None for the system's."""
    protocol: str


class Trouble(NamedTuple):
    """Why it can not be reached, and what to do."""

    message: str
    remedy: str


def of(exporter: Any, protocol: str) -> Place:
    """Tell where a stock OTLP exporter sends to.  Raises ValueError for a URL that is none."""
    url = str(exporter._endpoint)  # noqa: SLF001  it has no other name
    if protocol == "grpc" and "//" not in url:
        url = f"{'http' if exporter._insecure else 'https'}://{url}"  # noqa: SLF001
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    port = parts.port or (_DEFAULT["grpc"] if protocol == "grpc" else _PORTS[parts.scheme or "http"])
    variables = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
    certificate = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    return Place(url, parts.hostname or "localhost", port, tls, certificate, protocol)


def trouble(place: Place, timeout: float) -> Trouble | None:
    """Try the way to an endpoint; None where it is open.  A proxy in the environment makes this impossible: None."""
    from urllib.request import getproxies, proxy_bypass

    if getproxies().get("https" if place.tls else "http") and not proxy_bypass(place.host):
        return None
    where = f"{place.host}:{place.port}"
    try:
        connection = socket.create_connection((place.host, place.port), timeout)
    except socket.gaierror as error:
        return Trouble(f"the name {place.host} is not known ({error.strerror})", _ENDPOINT)
    except ConnectionRefusedError:
        return Trouble(f"nothing listens at {where}", f"start the Collector there, or {_ENDPOINT}")
    except (TimeoutError, OSError) as error:
        return Trouble(
            f"{where} can not be reached ({error})", f"look at the network and its firewalls, or {_ENDPOINT}"
        )
    with connection:
        if place.tls:
            return _tls_trouble(place, connection)
    return None


_ENDPOINT = "correct OTEL_EXPORTER_OTLP_ENDPOINT"


def _tls_trouble(place: Place, connection: socket.socket) -> Trouble | None:
    try:
        context = ssl.create_default_context(cafile=place.certificate)
    except (OSError, ssl.SSLError) as error:
        return Trouble(
            f"TLS: the certificates in {place.certificate} can not be read ({error})",
            "correct OTEL_EXPORTER_OTLP_CERTIFICATE: a file of certificates in PEM",
        )
    if place.protocol == "grpc":
        context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(connection, server_hostname=place.host).close()
    except ssl.SSLCertVerificationError as error:
        return Trouble(
            f"TLS: the server's certificate is not trusted: {error.verify_message}",
            "name the authority that has signed it with OTEL_EXPORTER_OTLP_CERTIFICATE",
        )
    except OSError as error:
        return _handshake_trouble(str(error))
    return None


def _handshake_trouble(reason: str) -> Trouble | None:
    if "CERTIFICATE_REQUIRED" in reason:
        return None  # the exporter has the client's certificate; it tells
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return Trouble("TLS: the server does not speak TLS", "write http:// in OTEL_EXPORTER_OTLP_ENDPOINT")
    return Trouble(f"TLS: the handshake fails ({reason})", _ENDPOINT)


def remedy(reason: str, protocol: str, place: Place) -> str:
    """Say what to do about an exporter's own reason."""
    lower = reason.lower()
    if "401" in reason or "403" in reason or "unauthenticated" in lower or "permission_denied" in lower:
        return "set the headers that the server wants in OTEL_EXPORTER_OTLP_HEADERS"
    if "404" in reason:
        return "the path is wrong: OTEL_EXPORTER_OTLP_ENDPOINT is without /v1/traces, …_TRACES_ENDPOINT with it"
    other = "grpc" if protocol == "http" else "http/protobuf"
    if place.port == _DEFAULT["grpc" if protocol == "http" else "http"]:
        return f"port {place.port} is usually that of {other}: set OTEL_EXPORTER_OTLP_PROTOCOL={other}"
    return f"look at the Collector's log; does it speak {other} there? Then set OTEL_EXPORTER_OTLP_PROTOCOL={other}"
