"""Recorded websocket sessions: text files that a feed handler wrote while it listened to an exchange.

One line an event::

    URL <-> time                    a connection was opened
    URL -> time: message            what the client sent (also written ``<-``)
    time: message                   what the exchange sent

Times are Unix seconds with a fraction.  A file is read twice and never held in memory: :func:`scan` checks all of
it before anything starts, :func:`ticks` then reads it at its own pace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from otel_trading.demo import venues
from otel_trading.demo.errors import DemoError, RecordingError
from otel_trading.demo.ticks import MalformedError, Tick

_OPENED = re.compile(r"(\S+) <-> (\d{1,12}(?:\.\d{1,9})?)")
_SENT = re.compile(r"(\S+) (?:->|<-) \d{1,12}(?:\.\d{1,9})?: ?(.*)")
_RECEIVED = re.compile(r"(\d{1,12}(?:\.\d{1,9})?): ?(.*)")

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes; a longer line is not a recording's, and is not read to its end."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tick, with the Unix time in seconds at which it was received, and the line that it came from."""

    at: float
    line: int
    tick: Tick


@dataclass(slots=True)
class Summary:
    """What :func:`scan` found: ``seconds`` from the first tick to the last, symbols in order of appearance."""

    venue: str = ""
    seconds: float = 0.0
    ticks: int = 0
    other: int = 0
    symbols: list[str] = field(default_factory=list)


def _lines(file: BinaryIO, path: str) -> Iterator[tuple[int, str]]:
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise RecordingError(path, number, f"longer than {LONGEST_LINE} bytes; this is not a recording")
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise RecordingError(path, number, f"not UTF-8 text ({error.reason}); this is not a recording") from None
        if text.strip():
            yield number, text


def _decode(text: str) -> dict[str, object]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"the message is not JSON: {error}"
        raise MalformedError(reason) from None
    if not isinstance(message, dict):
        reason = "the message is not a JSON object"
        raise MalformedError(reason)
    return message


def _open(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        message = f"can not read the recording {path}: {error.strerror or error}"
        raise DemoError(message) from None


def _events(path: str, summary: Summary) -> Iterator[Recorded]:
    parser: venues.Parser | None = None
    with _open(path) as file:
        try:
            for number, text in _lines(file, path):
                if opened := _OPENED.fullmatch(text):
                    parser = _venue(path, number, opened[1], summary)
                elif received := _RECEIVED.fullmatch(text):
                    if parser is None:
                        raise RecordingError(path, number, "a message before any line 'URL <-> time'")
                    try:
                        ticks = parser(_decode(received[2]))
                    except MalformedError as error:
                        raise RecordingError(path, number, str(error)) from None
                    summary.other += not ticks
                    for tick in ticks:
                        yield Recorded(float(received[1]), number, tick)
                elif not _SENT.fullmatch(text):
                    shown = text if len(text) <= 40 else text[:40] + "…"  # noqa: PLR2004  what fits an error line
                    reason = f"neither 'URL <-> time', 'URL -> time: sent' nor 'time: received': {shown!r}"
                    raise RecordingError(path, number, reason)
        except OSError as error:  # a directory opens well and fails here
            message = f"can not read the recording {path}: {error.strerror or error}"
            raise DemoError(message) from None


def _venue(path: str, line: int, url: str, summary: Summary) -> venues.Parser:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    found = venues.for_host(host)
    if found is None:
        raise RecordingError(path, line, f"no parser for {host or repr(url)}; known: {venues.KNOWN}")
    name, parser = found
    if summary.venue not in ("", name):
        raise RecordingError(path, line, f"{name} in a recording of {summary.venue}; split the file by venue")
    summary.venue = name
    return parser


def ticks(path: str) -> Iterator[Recorded]:
    """Give the ticks in the order of the file.

    Raises :class:`DemoError` where the file can not be read, :class:`RecordingError` at a line that is wrong.
    """
    return _events(path, Summary())


def scan(path: str) -> Summary:
    """Read the whole file once; raises as :func:`ticks` does, and also where there is no market data in it."""
    summary = Summary()
    symbols: dict[str, None] = {}
    first = last = 0.0
    for event in _events(path, summary):
        if not summary.ticks:
            first = event.at
        last = max(last, event.at)
        summary.ticks += 1
        symbols[event.tick.symbol] = None
    if not summary.ticks:
        message = f"no market data in {path}: {summary.other} messages, none a trade, ticker or book update"
        raise DemoError(message)
    summary.seconds = max(0.0, last - first)
    summary.symbols = list(symbols)
    return summary
