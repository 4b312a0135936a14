"""How far the Collector's clock is from ours, where it tells its own in an HTTP Date header."""

from __future__ import annotations

import http.client
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from otel_trading.doctor import endpoint, exporters
from otel_trading.doctor.check import OK, WARN, Check
from otel_trading.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_FAR = 1.0  # seconds


def checks(situation: Situation) -> Iterator[Check]:
    """Ask each OTLP endpoint over http for the time; one that can not be reached is the exporters' finding."""
    names = situation.settings.export_traces
    given = situation.settings.sources["export.traces"] != "default"
    for name in names or (() if given else ("otlp",)):
        try:
            point, protocol = exporters.resolved(name, given=given)
        except ConfigurationError:
            continue
        if point is None or protocol is None:
            continue
        if protocol == "grpc":
            yield Check("collector clock", OK, "not known: grpc has no Date header")
            continue
        place = endpoint.of(point.load()(timeout=situation.timeout), protocol)
        try:
            least = offset(place, situation.timeout)
        except (OSError, http.client.HTTPException):
            continue
        yield finding(least)


def offset(place: endpoint.Place, timeout: float) -> float | None:
    """Give the least by which the server's clock is ahead of ours, in seconds; None where it does not say.

    The header tells whole seconds, so up to one second of difference can not be seen.
    """
    connection: http.client.HTTPConnection
    if place.tls:
        context = ssl.create_default_context(cafile=place.certificate)
        connection = http.client.HTTPSConnection(place.host, place.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=timeout)
    try:
        before = time.time()
        connection.request("HEAD", "/")
        said = connection.getresponse().getheader("Date")
        after = time.time()
    finally:
        connection.close()
    if not said:
        return None
    try:
        server = parsedate_to_datetime(said).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    if server > after:
        return server - after
    return min(0.0, server + 1.0 - before)


def finding(least: float | None) -> Check:
    """Judge an offset."""
    name = "collector clock"
    if least is None:
        return Check(name, OK, "not known: the server sends no Date header")
    if abs(least) <= _FAR:
        return Check(name, OK, "agrees with ours, as far as a Date header tells (1 s)")
    way = "ahead of" if least > 0 else "behind"
    return Check(
        name, WARN, f"is at least {abs(least):,.1f} s {way} ours", "set both clocks by NTP or PTP: timedatectl status"
    )
