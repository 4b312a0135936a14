"""What a damaged or planted segment tells of its process: results that hold, or fewer, never a crash or a hang."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segment_image import CAPACITY, NAN, START, Image, busy

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from otel_trading._native import Reader

HUGE = [2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
INFINITE = 0x7FF0000000000000
ONES = 2**64 - 1


@pytest.fixture(scope="module")
def scratch() -> Iterator[int]:
    """Give a file without a name, to be filled again and again."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def attach(scratch: int, data: bytes | bytearray) -> Reader:
    """Read bytes as a file."""
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, data, 0)
    return core.Reader(scratch)


def whole(value: object, bits: int = 64) -> bool:
    """Is this a number of so many bits?"""
    return type(value) is int and 0 <= value < 1 << bits


def real(value: object) -> bool:
    """Is this a finite float, or None?"""
    return value is None or (type(value) is float and abs(value) != float("inf") and value == value)  # noqa: PLR0124


def check_life(life: dict[str, Any]) -> None:
    """Hold it against what the interface promises."""
    assert len(life["beats"]) <= at.BEATS
    for beat in life["beats"]:
        assert set(beat) == {"name", "age_ns", "unix_ns", "late_ns", "late"}
        assert type(beat["name"]) is str
        assert beat["age_ns"] is None or whole(beat["age_ns"])
        assert beat["unix_ns"] is None or whole(beat["unix_ns"], 63)
        assert whole(beat["late_ns"])
        assert type(beat["late"]) is bool
        assert not (beat["late"] and beat["age_ns"] is None)
    ending = life["ending"]
    assert set(ending) == {"kind", "code", "unix_ns", "name"}
    assert ending["kind"] in range(4)
    assert -(1 << 63) <= ending["code"] < 1 << 63
    assert whole(ending["unix_ns"], 63)
    assert ending["name"] is None or type(ending["name"]) is str
    assert life["queue"] is None or type(life["queue"]) is str
    assert all(whole(life[key]) for key in ("open_orders", "host", "host_now", "drained_by", "vitals", "pulses"))
    assert type(life["drain_missing"]) is bool


def check_vital(event: dict[str, Any]) -> None:
    """Hold a critical event against what the interface promises."""
    assert event["kind"] in range(1, 4)
    assert event["state"] in range(7)
    assert type(event["name"]) is type(event["key"]) is str
    assert len(event["key"]) <= at.VITAL_KEY_BYTES
    assert whole(event["unix_ns"], 63)
    assert whole(event["active_orders"], 32)
    assert event["market_age_ms"] is None or whole(event["market_age_ms"], 32)
    assert event["resident"] is None or whole(event["resident"])
    assert whole(event["trace_id"], 128)
    assert all(real(event[key]) for key in ("queue", "memory_load", "cpu_load", "latency"))


def check_pulse(pulse: dict[str, Any]) -> None:
    """Hold a pulse against what the interface promises."""
    assert whole(pulse["unix_ns"], 63)
    assert all(real(pulse[key]) for key in ("process_cpu", "cpu_load", "memory_load", "queue"))
    assert all(whole(pulse[key]) for key in ("spans", "orders", "rejects", "updates"))
    assert all(whole(pulse[key], 32) for key in ("active_orders", "late_beats"))
    assert pulse["market_age_ms"] is None or whole(pulse["market_age_ms"], 32)
    assert all(pulse[key] is None or whole(pulse[key]) for key in ("resident", "threads", "major_faults", "swap"))


def exercise(scratch: int, data: bytes | bytearray) -> None:
    """Call all there is on a file, if it is taken for a segment at all."""
    try:
        reader = attach(scratch, data)
    except ValueError:
        return
    check(reader)
    reader.close()


def check(reader: Reader) -> None:
    """Call all there is."""
    check_life(reader.life())
    assert len(reader.vitals(7)) <= 7
    assert len(reader.pulses(7)) <= 7
    events, looks = reader.vitals(2**40), reader.pulses()
    assert len(events) <= at.VITALS
    assert len(looks) <= at.PULSES
    for event in events:
        check_vital(event)
    for pulse in looks:
        check_pulse(pulse)
    instruments = reader.instruments()
    assert len(instruments) <= at.MAX_INSTRUMENTS
    for instrument in instruments:
        assert instrument["kind"] in range(1, 4)
        assert instrument["tier"] in range(at.TIERS)
        assert all(type(instrument[key]) is str for key in ("name", "unit", "attributes"))
        assert whole(instrument["updates"])
        assert type(instrument["value"]) is int or real(instrument["value"])
    markets = reader.markets()
    assert len(markets) <= at.MARKETS
    for market in markets:
        assert type(market["symbol"]) is str
        assert all(whole(market[key]) for key in ("exchange_ns", "received_ns", "updates"))
        assert real(market["price"])
        assert type(market["volume"]) is float
        assert real(market["volume"])
    assert type(reader.settled()) is bool


# ---- what is right is read ----


def test_all_that_an_image_has(scratch: int) -> None:
    """Without damage everything is there."""
    reader = attach(scratch, busy().bytes)
    check(reader)
    life = reader.life()
    assert life["ending"] == {"kind": at.ENDING_EXCEPTION, "code": 1, "unix_ns": START, "name": "KeyError"}
    assert life["queue"] == "long"
    assert life["vitals"] == life["pulses"] == at.VITALS + 3
    assert [event["unix_ns"] - START for event in reader.vitals()] == list(range(at.VITALS - 3, at.VITALS + 3))
    assert [pulse["unix_ns"] - START for pulse in reader.pulses(2)] == [at.PULSES + 1, at.PULSES + 2]
    assert [(i["name"], i["value"]) for i in reader.instruments()] == [("symbol", 2), ("long", 1.5), ("a=b", None)]
    assert [(m["symbol"], m["price"]) for m in reader.markets()] == [("BTCUSDT", 1.5)]
    reader.close()


def test_what_is_not_known(scratch: int) -> None:
    """NaN, infinity, and the numbers that stand for nothing are None."""
    image = Image()
    doubles = {"queue": NAN, "memory_load": INFINITE, "cpu_load": INFINITE | 1 << 63}
    image.vital(0, latency=NAN, resident=0, **doubles)
    image.pulse(0, resident=0, threads=0, major_faults=ONES, swap=ONES, market_age_ms=2**32 - 1, **doubles)
    image.instrument(0, image.name("gauge"), at.INSTRUMENT_GAUGE)
    image.instrument(1, image.name("counter"), at.INSTRUMENT_COUNTER, sum_int=2, value=0x3FE0000000000000)
    image.market(0, image.name("symbol"), volume=NAN)
    reader = attach(scratch, image.bytes)
    event, pulse = reader.vitals()[0], reader.pulses()[0]
    names = ("queue", "memory_load", "cpu_load", "resident", "market_age_ms")
    assert {event[key] for key in (*names, "latency")} == {None}
    assert {pulse[key] for key in (*names, "process_cpu", "threads", "major_faults", "swap")} == {None}
    assert [i["value"] for i in reader.instruments()] == [None, 2.5]
    assert [(m["price"], m["volume"]) for m in reader.markets()] == [(None, 0.0)]
    reader.close()


# ---- what is not right is left out ----


@pytest.mark.parametrize(
    "damage",
    [
        {"seq": 0},
        {"seq": 1},
        {"seq": 3},
        {"seq": 2**64 - 1},
        {"kind": 0},
        {"kind": 4},
        {"state": 7},
        {"key_bytes": 41},
        {"key_bytes": 255},
        {"unix_ns": 2**63},
    ],
)
def test_events_that_can_not_be(scratch: int, damage: dict[str, int]) -> None:
    """Torn ones, and those that no recorder wrote, are left out; the others are there."""
    image = Image()
    for n in range(3):
        image.vital(n, **(damage if n == 1 else {}))
    reader = attach(scratch, image.bytes)
    assert [event["unix_ns"] - START for event in reader.vitals()] == [0, 2]
    reader.close()


@pytest.mark.parametrize("damage", [{"seq": 0}, {"seq": 1}, {"seq": 3}, {"seq": 2**64 - 1}, {"unix_ns": 2**63}])
def test_pulses_that_can_not_be(scratch: int, damage: dict[str, int]) -> None:
    """The same of pulses."""
    image = Image()
    for n in range(3):
        image.pulse(n, **(damage if n == 1 else {}))
    reader = attach(scratch, image.bytes)
    assert [pulse["unix_ns"] - START for pulse in reader.pulses()] == [0, 2]
    reader.close()


@pytest.mark.parametrize("count", [at.VITALS + 4, *HUGE])
def test_counts_that_are_too_high(scratch: int, count: int) -> None:
    """What the count says is there and is not is left out."""
    image = Image()
    for n in range(3):
        image.vital(n)
        image.pulse(n)
    image.set_life(vital_count=count, pulse_count=count, beat_count=count, queue=count)
    reader = attach(scratch, image.bytes)
    check(reader)
    assert reader.vitals() == reader.pulses() == []
    assert reader.life()["vitals"] == count
    assert reader.life()["queue"] is None
    assert len(reader.life()["beats"]) == at.BEATS
    reader.close()


def test_keys_that_are_not_text(scratch: int) -> None:
    """Bytes that are no UTF-8 are replaced."""
    image = Image()
    image.vital(0, b"a\xff\xfeb")
    reader = attach(scratch, image.bytes)
    assert reader.vitals()[0]["key"] == "a\ufffd\ufffdb"
    reader.close()


@pytest.mark.parametrize("number", [0, 5, 2**32 - 1])
def test_names_from_nowhere(scratch: int, number: int) -> None:
    """An id that is none is "other", and 0 is nothing."""
    image = Image()
    image.vital(0, name=number)
    image.beat(0, number, 1, 1)
    image.set_life(ending=at.ENDING_EXCEPTION, ending_name=number)
    image.names = 5
    image.header(name_count=5)
    reader = attach(scratch, image.bytes)
    assert reader.vitals()[0]["name"] == reader.life()["beats"][0]["name"] == ("other" if number else "")
    assert reader.life()["ending"]["name"] == ("other" if number else None)
    reader.close()


@pytest.mark.parametrize("kind", [4, 255, 2**32, 2**64 - 1])
def test_endings_that_are_none(scratch: int, kind: int) -> None:
    """An unknown kind is as if nothing had been told."""
    image = Image()
    image.set_life(ending=kind, ending_code=3, ending_ns=START, ending_name=1)
    reader = attach(scratch, image.bytes)
    assert reader.life()["ending"] == {"kind": 0, "code": 0, "unix_ns": 0, "name": None}
    reader.close()


def test_beats_from_the_future(scratch: int) -> None:
    """A beat that is yet to come is no age old, and not late."""
    image = Image()
    image.beat(0, image.name("main"), 2**64 - 1, 1)
    image.beat(1, image.name("other"), 2**63, 2**64 - 1)
    reader = attach(scratch, image.bytes)
    assert [(beat["age_ns"], beat["late"]) for beat in reader.life()["beats"]] == [(0, False), (0, False)]
    reader.close()


def test_beats_of_an_earlier_boot(scratch: int) -> None:
    """They are as old as they were at the last that is known of the process, not as this machine's clock says."""
    image = Image(boot_id=7)
    image.set_control(anchor_mono_ns=10_000)
    image.beat(0, image.name("main"), 4_000, 5_000)
    image.beat(1, image.name("other"), 11_000, 5_000)
    reader = attach(scratch, image.bytes)
    assert [(beat["age_ns"], beat["late"]) for beat in reader.life()["beats"]] == [(7_000, True), (0, False)]
    assert [beat["unix_ns"] for beat in reader.life()["beats"]] == [START - 6_000, START + 1_000]
    reader.close()


@pytest.mark.parametrize("damage", [{"kind": 0}, {"kind": 4}, {"tier": 4}])
def test_instruments_that_can_not_be(scratch: int, damage: dict[str, int]) -> None:
    """They are left out, and are no queue."""
    image = Image()
    image.instrument(0, image.name("first"), at.INSTRUMENT_GAUGE)
    image.instrument(1, image.name("second"), **{"kind": at.INSTRUMENT_GAUGE, **damage})
    image.set_life(queue=2)
    reader = attach(scratch, image.bytes)
    assert [instrument["name"] for instrument in reader.instruments()] == ["first"]
    assert reader.life()["queue"] is None
    reader.close()


def test_a_queue_that_is_no_gauge(scratch: int) -> None:
    """A counter is no queue."""
    image = Image()
    image.instrument(0, image.name("first"), at.INSTRUMENT_COUNTER)
    image.set_life(queue=1)
    reader = attach(scratch, image.bytes)
    assert reader.life()["queue"] is None
    reader.close()


@pytest.mark.parametrize("count", [at.MARKETS + 1, 2**32 - 1])
def test_more_symbols_than_there_are(scratch: int, count: int) -> None:
    """The table is as long as the format says."""
    image = Image()
    image.market(0, image.name("symbol"))
    image.header(market_count=count)
    reader = attach(scratch, image.bytes)
    assert len(reader.markets()) == at.MARKETS
    reader.close()


# ---- settled ----


def settled(scratch: int, image: Image) -> bool:
    """Ask a reader."""
    reader = attach(scratch, image.bytes)
    answer = reader.settled()
    reader.close()
    return answer


def test_nothing_recorded_is_settled(scratch: int) -> None:
    """Where no span has ended nothing is left to do, open ones or not."""
    image = Image()
    image.open_span(1)
    assert settled(scratch, image)


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_before_the_mark_is_settled(scratch: int, side: int) -> None:
    """``done`` of the side in force counts."""
    image = Image()
    for _ in range(5):
        image.record()
    assert not settled(scratch, image)
    image.settled(4, side=side)
    assert not settled(scratch, image)
    image.settled(5, side=side)
    assert settled(scratch, image)
    image.settled(2**64 - 1, side=side)
    assert settled(scratch, image)


@pytest.mark.parametrize("mark", [at.MARK_DROPPED, at.MARK_SENT, at.MARK_EXPORTED, at.MARK_REFUSED])
def test_marks(scratch: int, mark: int) -> None:
    """Every span after ``done`` has to have a mark, of its own lap; values need none."""
    image = Image()
    for _ in range(CAPACITY + 3):
        image.record()
    image.record(state=at.SLOT_VALUE)
    image.settled(6)
    for n in range(6, CAPACITY + 3):
        assert not settled(scratch, image)
        image.mark(n, mark)
    assert settled(scratch, image)
    image.mark(CAPACITY + 1, mark, lap=0)
    assert not settled(scratch, image)
    image.mark(CAPACITY + 1, at.MARK_NONE)
    assert not settled(scratch, image)


def test_every_ring_counts(scratch: int) -> None:
    """One span in the last ring is enough."""
    image = Image(rings=3)
    for ring in range(3):
        image.record(ring)
        image.mark(0, at.MARK_EXPORTED, ring)
    assert settled(scratch, image)
    image.record(2)
    assert not settled(scratch, image)


def test_what_a_drain_still_holds(scratch: int) -> None:
    """Spans whose slots are taken may still be with the drain; while there is one, the accounts tell."""
    image = Image()
    image.record()
    image.settled(1)
    struct.pack_into("<Q", image.bytes, image.rings + at.OFF_RING_RECORDED, 1)
    image.set_control(drained_by=1)
    assert not settled(scratch, image)
    struct.pack_into("<Q", image.bytes, image.accounts + at.OFF_ACCOUNTS_EXPORTED, 1)
    assert settled(scratch, image)


def test_marks_outside_the_file(scratch: int) -> None:
    """They can not be told, so it is not settled."""
    for offset in (*HUGE, 2**64 - 8):
        image = Image()
        image.record()
        image.ring(0, marks_offset=offset)
        assert not settled(scratch, image)


# ---- any change ----

WHOLE = busy()


def made_right(data: bytearray) -> None:
    """Set the counts of the life page as they were."""
    for offset in (at.OFF_LIFE_VITAL_COUNT, at.OFF_LIFE_PULSE_COUNT):
        struct.pack_into("<Q", data, WHOLE.life + offset, at.VITALS + 3)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change(scratch: int, data: st.DataObject) -> None:
    """However what is told of the process is changed, what is read holds."""
    image = bytearray(WHOLE.bytes)
    tables = (WHOLE.life, WHOLE.vitals, WHOLE.pulses, WHOLE.instruments, WHOLE.markets, WHOLE.progress)
    for _ in range(data.draw(st.integers(1, 8))):
        offset = data.draw(st.sampled_from(tables)) + 8 * data.draw(st.integers(0, 60))
        word = data.draw(st.sampled_from([0, 1, 2, 3, NAN, INFINITE, *HUGE]) | st.integers(0, ONES))
        struct.pack_into("<Q", image, offset, word)
    exercise(scratch, image)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_content(scratch: int, data: st.DataObject) -> None:
    """Whatever stands in an entry whose number is right, what is read holds."""
    image = bytearray(WHOLE.bytes)
    for table, size in ((WHOLE.vitals, at.SIZE_VITAL), (WHOLE.pulses, at.SIZE_PULSE)):
        content = data.draw(st.binary(min_size=size - 8, max_size=size - 8))
        image[table + 8 : table + size] = content
    content = data.draw(st.binary(min_size=at.SIZE_LIFE, max_size=at.SIZE_LIFE))
    image[WHOLE.life : WHOLE.life + at.SIZE_LIFE] = content
    made_right(image)
    exercise(scratch, image)


def test_a_file_that_shrinks_under_the_reader(scratch: int) -> None:
    """What is gone is missing; nothing else happens."""
    data = busy().bytes
    for size in (len(data) - 5000, 40 * at.PAGE, 4 * at.PAGE, at.PAGE, 10, 0):
        reader = attach(scratch, data)
        os.ftruncate(scratch, size)
        check(reader)
        reader.close()


def test_a_closed_reader(scratch: int) -> None:
    """It knows nothing, and does not fall over."""
    reader = attach(scratch, busy().bytes)
    reader.close()
    check(reader)
