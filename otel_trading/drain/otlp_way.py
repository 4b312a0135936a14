"""Where OTLP requests of a signal go, by the standard ``OTEL_EXPORTER_OTLP_*`` variables, and whether plain http does.

The stock exporters read the same variables in the same way; importing what reads them there loads requests.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Signal = Literal["traces", "metrics"]

# What requests would write in another way.
_UNUSUAL = frozenset(' "<>\\^`{|}')
_BASE = "http://localhost:4318"
_SECONDS = 10.0
_COMPRESSIONS = ("none", "gzip", "deflate")
# What requests takes a proxy, and a password, from.
_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_NETRC = ("~/.netrc", "~/_netrc")
# What only the stock exporters know.
_CREDENTIALS = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER"
_CREDENTIALS_OF = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_{}_CREDENTIAL_PROVIDER"
_OWN_METRICS = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"


class Way(NamedTuple):
    """How a signal's requests are sent."""

    endpoint: str
    headers: dict[str, str]
    """By names in small letters."""
    seconds: float
    """What a request may take, all tries together."""
    compression: str
    """``none``, ``gzip`` or ``deflate``."""


def plain_way(signal: Signal) -> Way | None:
    """Read the variables; None where a request takes more than a connection.

    That is TLS, a proxy, a name and password or a netrc file that may have one, a credential provider, metrics of the
    exporter's own, and whatever can not be read, of which the stock exporter tells.
    """
    endpoint = os.environ.get(_variable(signal, "ENDPOINT"))
    if not endpoint:
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _BASE
        endpoint = f"{base.removesuffix('/')}/v1/{signal}"
    seconds = _seconds(_either(signal, "TIMEOUT"))
    compression = (_either(signal, "COMPRESSION") or "none").lower().strip()
    if seconds is None or compression not in _COMPRESSIONS or not _is_plain(endpoint) or _asks_for_more(signal):
        return None
    # What OpenTelemetry's API has for it: light, and its warnings are those of the stock exporter.
    from opentelemetry.util.re import parse_env_headers

    return Way(endpoint, dict(parse_env_headers(_either(signal, "HEADERS"), liberal=True)), seconds, compression)


def _variable(signal: Signal, what: str) -> str:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"


def _either(signal: Signal, what: str) -> str:
    return os.environ.get(_variable(signal, what)) or os.environ.get(f"OTEL_EXPORTER_OTLP_{what}", "")


def _seconds(text: str) -> float | None:
    try:
        return float(text) if text else _SECONDS
    except ValueError:
        return None


def _is_plain(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return (
            endpoint.isascii()
            and endpoint.isprintable()
            and not _UNUSUAL.intersection(endpoint)
            and parts.scheme == "http"
            and "@" not in parts.netloc
            and bool(parts.hostname)
            and parts.port != 0
            and not parts.fragment
        )
    except ValueError:
        return False


def _asks_for_more(signal: Signal) -> bool:
    if any(os.environ.get(name) for name in (*_PROXIES, _CREDENTIALS, _CREDENTIALS_OF.format(signal.upper()))):
        return True
    if os.environ.get(_OWN_METRICS, "").strip().lower() == "true":
        return True
    netrc = os.environ.get("NETRC")
    return any(os.path.exists(os.path.expanduser(path)) for path in ((netrc,) if netrc else _NETRC))
