"""JSON lines between processes of which one may say anything."""

from __future__ import annotations

import json
import socket

import hypothesis
import pytest
from hypothesis import strategies as st

from otel_trading.agent.lines import GoneError, Lines

MOST = 1000


def pair() -> tuple[Lines, socket.socket]:
    """Give one end as Lines, and the other as it is."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return Lines(ours, MOST, 100_000), theirs


def test_objects_come_as_they_were_sent_however_they_are_cut() -> None:
    """A line that arrives in pieces is one object, and several in one piece are several."""
    lines, other = pair()
    with other:
        text = b'{"a":1}\n{"b":[2]}\n{"c":'
        for at in range(len(text)):
            other.send(text[at : at + 1])
            if text[at : at + 1] != b"\n":
                assert lines.read() == []
            else:
                assert len(lines.read()) == 1
        other.send(b"3}\n{}\n")
        assert lines.read() == [{"c": 3}, {}]
        lines.close()


@pytest.mark.parametrize(
    "rubbish", [b"nonsense\n", b"[1]\n", b"\xff\xfe\n", b"\n", b'"' + b"[" * 500 + b"\n", b"x" * 2000]
)
def test_rubbish_ends_the_conversation(rubbish: bytes) -> None:
    """What is no JSON object, or too long, is told as the end."""
    lines, other = pair()
    with other:
        other.send(rubbish)
        with pytest.raises(GoneError):
            lines.read()
        lines.close()


def test_the_end_is_told() -> None:
    """A connection that was closed is told, to who reads and to who writes."""
    lines, other = pair()
    other.close()
    with pytest.raises(GoneError):
        lines.read()
    with pytest.raises(GoneError):
        lines.send({"a": 1})
    lines.close()


def _send_without_end(lines: Lines) -> None:
    for _ in range(10_000):
        lines.send({"text": "x" * 1000})


def test_what_is_not_read_is_bounded() -> None:
    """One who does not read has so much kept for him, and no more."""
    lines, other = pair()
    with other, pytest.raises(GoneError):
        _send_without_end(lines)
    assert lines.waiting
    lines.close()


@hypothesis.given(st.binary(max_size=300))
def test_nothing_but_objects_or_the_end(data: bytes) -> None:
    """Whatever comes, what is given is dicts, or it is the end."""
    lines, other = pair()
    with other:
        other.send(data + b"\n")
        try:
            found = lines.read()
        except GoneError:
            found = []
        assert all(isinstance(one, dict) for one in found)
        json.dumps(found)
        lines.close()
