"""The reader on well-formed segments, built by hand and recorded."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanContext, StatusCode
from segment_image import ARENA_BYTES, CAPACITY, EVENT, LINK, START, Image, busy

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.api import TracerProvider

if TYPE_CHECKING:
    from conftest import Recorder

    from otel_trading._native import Reader

Open = Callable[[Image], "Reader"]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Open]:
    """Give a function that writes an image to the test's file and reads that; again, where the image has changed."""
    path = tmp_path / "image.seg"
    readers: list[Reader] = []

    def attach(image: Image) -> Reader:
        path.touch()
        with path.open("r+b") as file:
            file.write(image.bytes)
        fd = os.open(path, os.O_RDONLY)
        try:
            readers.append(core.Reader(fd))
        finally:
            os.close(fd)
        return readers[-1]

    yield attach
    for each in readers:
        each.close()


NOTHING_MORE = (None, None, [], [], 0, 0)  # a state's last six


def rewrite(tmp_path: Path, image: Image) -> None:
    """Let the file that a reader has open become another image."""
    with (tmp_path / "image.seg").open("r+b") as file:
        file.write(image.bytes)


def test_a_record_is_read_as_it_was_written(reader: Open) -> None:
    """Each field of a slot arrives in its place, times in Unix ns."""
    image = Image()
    image.record(
        trace_hi=0x0123456789ABCDEF,
        trace_lo=0xFEDCBA9876543210,
        span_id=2**64 - 1,
        parent_id=77,
        start=5,
        end=9,
        probe=1,
        tier=3,
        status=at.STATUS_OK,
        flags=at.FLAG_LEAF | at.FLAG_REMOTE_PARENT,
    )
    (span,) = reader(image).read(10)
    trace = 0x0123456789ABCDEFFEDCBA9876543210
    flags = at.FLAG_LEAF | at.FLAG_REMOTE_PARENT
    times = START + 5, START + 9
    assert span == (1, 3, trace, 2**64 - 1, 77, *times, at.STATUS_OK, flags, None, None, {}, 0, *NOTHING_MORE)


def test_times_as_the_program_gave_them(reader: Open) -> None:
    """A start or an end in Unix ns is taken as it is, each for itself; one that no clock shows is some other."""
    image = Image()
    image.record(start=5, end=77, flags=at.FLAG_END_UNIX)
    image.record(start=77, end=9, flags=at.FLAG_START_UNIX)
    image.record(start=2**63, end=2**63 - 1, flags=at.FLAG_START_UNIX | at.FLAG_END_UNIX)
    image.open_span(0, start=78, flags=at.FLAG_START_UNIX)
    attached = reader(image)
    first, second, third = (span[5:7] for span in attached.read(10))
    assert (first, second, third[1]) == ((START + 5, 77), (77, START + 9), 2**63 - 1)
    assert 0 <= third[0] < 2**63
    assert [span[5:7] for span in attached.open_spans()] == [(78, 0)]


def test_attributes_of_every_type(reader: Open) -> None:
    """Inline and then arena attributes, with their types; a key that comes again stands at the end."""
    image = Image()
    names = [image.name(f"k{n}") for n in range(6)]
    value = image.name("v")
    double = struct.unpack("<Q", struct.pack("<d", -2.5))[0]
    arena = image.block(names[4], at.TYPE_TEXT, b"old")
    arena = image.block(names[4], at.TYPE_TEXT, "gr\u00fc\u00df".encode(), arena)
    arena = image.block(names[5], at.TYPE_DOUBLE, struct.pack("<d", 0.25), arena)
    arena = image.block(names[0], at.TYPE_TEXT, b"again", arena)
    arena = image.block(at.NAME_OTHER, at.TYPE_INT, struct.pack("<I3sq", 3, b"key", -1), arena)
    arena = image.block(names[1], at.TYPE_MESSAGE, b"\x2a\x00", arena)
    image.record(
        extra=1,
        count=4,
        key=tuple(names[:4]),
        type=(at.TYPE_INT, at.TYPE_BOOL, at.TYPE_DOUBLE, at.TYPE_NAME),
        value=(2**64 - 5, 1, double, value),
        arena=arena,
        dropped=3,
        error=image.name("ValueError"),
        tracestate=image.name("ot=th:8"),
    )
    (span,) = reader(image).read(10)
    assert span[9:11] == ("ValueError", "ot=th:8")
    assert list(span[11].items()) == [
        ("k2", -2.5),
        ("k3", "v"),
        ("k4", "gr\u00fc\u00df"),
        ("k5", 0.25),
        ("k0", "again"),
        ("key", -1),
        ("k1", b"\x2a\x00"),
    ]
    assert span[12:] == (3, *NOTHING_MORE)


def test_blocks_of_every_kind(reader: Open) -> None:
    """Events and links oldest first, the newest name and description; an empty description takes the older one away."""
    image = Image()
    arena = image.block(0, 0, b"first", kind=at.BLOCK_NAME)
    arena = image.block(0, 0, EVENT, arena, kind=at.BLOCK_EVENT, counts=1)
    arena = image.block(0, 0, b"why", arena, kind=at.BLOCK_STATUS, counts=1)
    arena = image.block(0, 0, LINK, arena, kind=at.BLOCK_LINK, counts=0x10001)
    arena = image.block(0, 0, b"two", arena, kind=at.BLOCK_EVENT, counts=0x10002)
    arena = image.block(0, 0, b"second", arena, kind=at.BLOCK_NAME, counts=0x10002)
    arena = image.block(0, 0, b"unknown", arena, kind=77, counts=0x10002)
    image.record(extra=1, arena=arena, status=at.STATUS_ERROR)
    arena = image.block(0, 0, b"", arena, kind=at.BLOCK_STATUS, counts=0x10002)
    image.record(extra=1, arena=arena, status=at.STATUS_ERROR)
    arena = image.block(0, 0, b"a=b", kind=at.BLOCK_TRACESTATE)
    image.record(extra=1, arena=arena)
    image.record(extra=1, arena=arena, tracestate=image.name("c=d"))
    first, second, third, fourth = reader(image).read(10)
    assert (first[10], third[10], fourth[10]) == (None, "a=b", "c=d")
    assert first[11:] == ({}, 0, "second", "why", [EVENT, b"two"], [LINK], 0, 0)
    assert second[11:] == ({}, 0, "second", None, [EVENT, b"two"], [LINK], 0, 0)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, at.NO_LIMIT])
def test_the_newest_within_the_limits(reader: Open, limit: int) -> None:
    """The segment's limits are applied: the newest count, the others and those that are gone are told as dropped."""
    image = Image(attribute_limit=limit, event_limit=limit, link_limit=limit)
    keys = [image.name(f"k{n}") for n in range(3)]
    arena = 0
    for n in range(3):
        arena = image.block(0, 0, b"e%d" % n, arena, kind=at.BLOCK_EVENT, counts=n * 0x10001 + 6)
        arena = image.block(0, 0, b"l%d" % n, arena, kind=at.BLOCK_LINK, counts=n * 0x10001 + 0x10006)
        arena = image.block(keys[n], at.TYPE_INT, struct.pack("<q", n), arena, counts=n * 0x10001 + 0x10006)
    image.record(extra=1, arena=arena, dropped=2)
    (span,) = reader(image).read(1)
    kept = min(limit, 3)
    assert span[11:13] == ({f"k{n}": n for n in range(3 - kept, 3)}, 2 + 3 - kept)
    assert span[15] == [b"e%d" % n for n in range(3 - kept, 3)]
    assert span[16] == [b"l%d" % n for n in range(3 - kept, 3)]
    assert span[17:] == (8 - kept, 3 - kept)


def test_orders(reader: Open) -> None:
    """Orders are found by their key in any of their places, and listed; free and changing entries are not."""
    image = Image()
    symbol = image.name("BTCUSDT")
    bits = {key: struct.unpack("<Q", struct.pack("<d", n))[0] for key, n in (("quantity", 2.0), ("price", 0.5))}
    image.order("mine", symbol=symbol, side=at.SIDE_SELL, state=at.ORDER_ACKED, trace_hi=3, flags=2, **bits)
    image.order("far", at.ORDER_PROBES - 1, filled=bits["quantity"], paid=bits["price"])
    image.order("too far", at.ORDER_PROBES)
    image.order("other", seq=3)
    attached = reader(image)
    mine = ((3 << 64) | 1, 2, False, at.ORDER_ACKED, START, START + 5, 2.0, 0.5, 0.0, 0.0, "BTCUSDT", at.SIDE_SELL)
    far = (1, 2, True, at.ORDER_SENT, START, START + 5, 0.0, 0.0, 2.0, 0.5, "", at.SIDE_NONE)
    assert attached.order("mine") == mine
    assert attached.order("far") == far
    for key in ("too far", "other", "nobody's", "", "x" * 65, "\ud800"):
        assert attached.order(key) is None
    assert {"mine": mine, "far": far}.items() <= dict(attached.orders()).items()
    assert sorted(key for key, _ in attached.orders()) == ["far", "mine", "too far"]


def test_the_second_line_counts_only_where_it_is_valid(reader: Open) -> None:
    """What an earlier record left in the second line is not this record's."""
    image = Image()
    image.record(extra=0, count=1, key=(1, 0, 0, 0), type=(at.TYPE_INT, 0, 0, 0), error=1, tracestate=1, dropped=9)
    (span,) = reader(image).read(1)
    assert span[9:] == (None, None, {}, 0, *NOTHING_MORE)


def test_unknown_ids_are_other(reader: Open) -> None:
    """Ids past the name table stand for a name that was not interned."""
    image = Image()
    image.record(
        extra=1, count=1, key=(60_000, 0, 0, 0), type=(at.TYPE_NAME, 0, 0, 0), value=(2**40, 0, 0, 0), error=2**31
    )
    (span,) = reader(image).read(1)
    assert (span[9], span[11]) == ("other", {"other": "other"})


def test_each_record_is_read_once(reader: Open, tmp_path: Path) -> None:
    """A reader goes on where it stopped, within its limit, and sees what is written later."""
    image = Image()
    for _ in range(5):
        image.record()
    attached = reader(image)
    assert attached.read(0) == []
    assert [span[3] for span in attached.read(2)] == [1, 2]
    assert [span[3] for span in attached.read(100)] == [3, 4, 5]
    assert attached.read(100) == []
    image.record()
    rewrite(tmp_path, image)
    assert [span[3] for span in attached.read(100)] == [6]
    assert attached.missed() == (0, 0)


@pytest.mark.parametrize("extra", [0, 1, 3, CAPACITY, 3 * CAPACITY + 1])
def test_a_wrapped_ring_starts_with_the_oldest_there_is(reader: Open, extra: int) -> None:
    """A full ring is read whole, and what it has overwritten is missed, to the record."""
    image = Image()
    for _ in range(CAPACITY + extra):
        image.record()
    attached = reader(image)
    assert [span[3] for span in attached.read(100)] == list(range(extra + 1, extra + CAPACITY + 1))
    assert attached.missed() == (extra, 0)


def test_a_slow_reader_knows_what_it_missed(reader: Open, tmp_path: Path) -> None:
    """Records that were overwritten between two calls are counted."""
    image = Image()
    image.record()
    attached = reader(image)
    assert len(attached.read(10)) == 1
    for _ in range(2 * CAPACITY):
        image.record()
    rewrite(tmp_path, image)
    assert len(attached.read(100)) == CAPACITY
    assert attached.missed() == (CAPACITY, 0)


@pytest.mark.parametrize("seq", [0, 1, 3, 5, 6, 2**64 - 1])
def test_a_record_with_another_number_is_left_out(reader: Open, seq: int) -> None:
    """A slot whose sequence number is not its record's is torn, and the rest is read."""
    image = Image()
    image.record()
    image.record(seq=seq)
    image.record()
    attached = reader(image)
    assert [span[3] for span in attached.read(10)] == [1, 3]
    assert attached.missed() == (0, 1)


def test_the_slot_that_is_being_overwritten_is_missed(reader: Open) -> None:
    """The oldest record of a full ring, when the writer is on its slot again, is one that was missed."""
    image = Image()
    for _ in range(CAPACITY):
        image.record()
    struct.pack_into("<Q", image.bytes, image.slot_offset(0), 2 * CAPACITY + 1)
    attached = reader(image)
    assert [span[3] for span in attached.read(100)] == list(range(2, CAPACITY + 1))
    assert attached.missed() == (1, 0)


def test_values_are_not_spans(reader: Open) -> None:
    """Observations of histograms, which share the ring, are passed over and not counted as lost."""
    image = Image()
    image.record(state=at.SLOT_VALUE)
    image.record()
    attached = reader(image)
    assert [span[3] for span in attached.read(1)] == [2]
    assert attached.missed() == (0, 0)


@pytest.mark.parametrize("damage", [{"tier": 4}, {"status": 3}, {"count": 5}, {"probe": 2}, {"state": 9}])
def test_a_record_that_can_not_be_right_is_left_out(reader: Open, damage: dict[str, int]) -> None:
    """What a reader gives can be used as an index without another check."""
    image = Image()
    image.record(**damage)
    image.record()
    attached = reader(image)
    assert [span[3] for span in attached.read(10)] == [2]
    assert attached.missed() == (0, 1)


def test_an_overwritten_arena_block_is_gone(reader: Open) -> None:
    """A block that the arena's next round has reached, or whose stamp is another's, is not this span's."""
    image = Image()
    key = image.name("key")
    first = image.block(key, at.TYPE_TEXT, b"first")
    image.record(extra=1, arena=first)
    image.ring(0, arena_head=ARENA_BYTES + 8)
    second = Image()
    block = second.block(second.name("key"), at.TYPE_TEXT, b"first")
    second.record(extra=1, arena=block + ARENA_BYTES)
    second.ring(0, arena_head=ARENA_BYTES + 64)
    for each in (image, second):
        (span,) = reader(each).read(1)
        assert span[11] == {}


def test_open_spans(reader: Open) -> None:
    """Entries that are open are given with end 0; free, reserved and changing ones are not."""
    image = Image(rings=2)
    image.open_span(0, ring=1, span_id=9, start=4, probe=1, tier=1, flags=at.FLAG_LEAF)
    image.open_span(0, span_id=10, state=at.SLOT_FREE)
    image.open_span(1, span_id=11, state=at.SLOT_RESERVED)
    image.open_span(2, span_id=12, seq=3)
    attached = reader(image)
    (span,) = attached.open_spans()
    assert span == (1, 1, 1, 9, 0, START + 4, 0, 0, at.FLAG_LEAF, None, None, {}, 0, *NOTHING_MORE)
    assert attached.open_spans() == [span]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0, 0.0, 1e300, -1e-300, 5e-324])
def test_an_absurd_clock_is_taken_as_1_ns_a_tick(reader: Open, rate: float) -> None:
    """Times stay numbers from 0 to 2**63 - 1 whatever the calibration says."""
    image = Image()
    image.record(start=100, end=2**63)
    image.set_control(ns_per_tick=struct.unpack("<Q", struct.pack("<d", rate))[0])
    (span,) = reader(image).read(1)
    assert span[5] == START + 100
    assert 0 <= span[6] < 2**63


def test_ticks_are_scaled_around_the_anchor(reader: Open) -> None:
    """A tick before the anchor is before its Unix time."""
    image = Image()
    image.set_control(anchor_ticks=1000, ns_per_tick=struct.unpack("<Q", struct.pack("<d", 2.5))[0])
    image.record(start=900, end=1100)
    (span,) = reader(image).read(1)
    assert (span[5], span[6]) == (START - 250, START + 250)


def test_info_probes_and_accounts(reader: Open) -> None:
    """The header, the tables and the rings' counts are told as they are."""
    image = busy()
    image.header(boot_id=0xA, process_start=9, faults=2, names_refused=3, closed=1, clock=at.CLOCK_TSC)
    image.ring(0, recorded=7)
    image.ring(1, recorded=5)
    struct.pack_into("<Q", image.bytes, image.accounts + at.OFF_ACCOUNTS_EXPORTED, 4)
    attached = reader(image)
    info = attached.info()
    assert json.loads(info["resource"]) == {"service.name": "image"}
    assert {key: info[key] for key in ("pid", "uid", "version", "backend", "clock", "closed")} == {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "version": at.VERSION,
        "backend": "pure",
        "clock": "tsc",
        "closed": True,
    }
    assert (info["created_ns"], info["process_start"], info["faults"], info["names_refused"]) == (START, 9, 2, 3)
    assert info["boot_id"] == f"{0xA:016x}" + "0" * 16
    assert (info["switches"], info["threshold"], tuple(info["tier_words"])) == (3, 0, (1, 1, 1, 1))
    assert isinstance(info["heartbeat_age_ns"], int)
    head = CAPACITY + 4
    ring = {"thread_id": 100, "capacity": CAPACITY, "head": head, "tail": 2, "backlog": head - 2, "backlog_max": 5}
    assert info["rings"] == [ring, {**ring, "thread_id": 101}]
    assert attached.probes() == [("first", 0, 0, False, 0, ""), ("second", 1, 5_000_000, True, 2, "")]
    accounts = attached.accounts()
    zero = dict.fromkeys(("recorded", "exported", "sampled_out", "overwritten", "refused", "pending"), 0)
    assert accounts == [{**zero, "recorded": 12, "exported": 4, "pending": 8}, zero, zero, zero]


def test_the_descriptor_is_duplicated_and_closed(tmp_path: Path) -> None:
    """The caller's descriptor stays the caller's; a closed reader finds nothing and raises nothing."""
    image = busy()
    path = tmp_path / "image.seg"
    path.write_bytes(image.bytes)
    fd = os.open(path, os.O_RDONLY)
    attached = core.Reader(fd)
    os.close(fd)
    assert len(attached.read(100)) > 0
    attached.close()
    attached.close()
    assert attached.read(100) == []
    assert attached.open_spans() == []


def test_a_recorded_segment(recorder: Recorder) -> None:
    """What this backend records, its reader gives back: spans, attributes, what is open."""
    import otel_trading as ot

    probe = ot.probe("reader.recorded", tier=ot.P2)
    long = "\u00e4" * 1000
    attributes: dict[str, Any] = {"a": 1, "b": 2.5, "c": True, "d": "text", "e": -(2**63), "f": long, "g": False}
    with probe.span(**attributes) as span:
        (opened,) = recorder.open_spans()
        assert (opened.name, opened.span_id, opened.end, opened.attributes) == (probe.name, span.span_id, 0, attributes)
    record = recorder.only(probe.name)
    assert (record.tier, record.span_id, record.attributes) == (2, span.span_id, attributes)
    assert opened.start == record.start <= record.end
    assert recorder.open_spans() == []
    assert recorder.info["pid"] == os.getpid()


def test_both_backends_read_alike(recorder: Recorder, tmp_path: Path) -> None:
    """What one backend has written, the readers of both give back the same."""
    import otel_trading as ot

    native = pytest.importorskip("otel_trading._native", reason="the C extension was not built")
    if not hasattr(native, "Reader"):
        pytest.skip("the C extension was not built")
    from otel_trading._pure.reader import Reader as PureReader

    TracerProvider()  # spans know the API's statuses from here on
    probe = ot.probe("reader.alike", tier=ot.P1)
    for number in range(1500):
        with probe.span(n=number, text="t" * (number % 120), x=number / 3, y="", z=-number, last=bool(number)) as span:
            if number % 3 == 0:
                span.add_event("event", {"n": number, "of": [1, None, {"a": "b"}]}, timestamp=number)
                span.add_link(SpanContext(1, 2, is_remote=True), {"n": number})
                span.update_name(f"name {number}")
                span.set_attribute("none", None)
                span.set_status(StatusCode.ERROR, "why")
    core.order_put("key", 1, 2, True, 1, 3, 4, 1.0, float("nan"), 0.0, 0.0, "BTCUSDT", 1)
    left_open = probe.start()
    ot.flush()
    copy = tmp_path / "copy.seg"
    shutil.copyfile(recorder.path, copy)  # a garbage collection records its pause, even during this test's reading
    probe.stop(left_open)
    fd = os.open(copy, os.O_RDONLY)
    readers = [native.Reader(fd), PureReader(fd)]
    os.close(fd)
    for call in ("probes", "accounts", "open_spans", "orders"):
        first, second = (getattr(reader, call)() for reader in readers)
        assert repr(first) == repr(second)  # a price may be NaN
    first, second = (reader.read(10_000) for reader in readers)
    assert len(first) > 1000
    assert first == second
    assert readers[0].missed() == readers[1].missed()
    first, second = ({**reader.info(), "heartbeat_age_ns": 0} for reader in readers)
    assert first == second
    for reader in readers:
        assert 0 <= reader.info()["heartbeat_age_ns"] < 60 * 10**9
        reader.close()
