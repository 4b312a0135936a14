"""The trace for Perfetto, decoded again by the field numbers of its published .proto files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_evidence import NOW, SECOND, calm, span

from otel_trading.forensics import perfetto, protobuf

# Message → field number → (name, kind), of the .proto files that are named as the messages
SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    "Trace": {1: ("packet", "TracePacket")},
    "TracePacket": {
        6: ("clock_snapshot", "ClockSnapshot"),
        8: ("timestamp", "int"),
        10: ("trusted_packet_sequence_id", "int"),
        11: ("track_event", "TrackEvent"),
        12: ("interned_data", "InternedData"),
        13: ("sequence_flags", "int"),
        60: ("track_descriptor", "TrackDescriptor"),
    },
    "ClockSnapshot": {1: ("clocks", "Clock")},
    "Clock": {1: ("clock_id", "int"), 2: ("timestamp", "int")},
    "TrackEvent": {
        3: ("category_iids", "int"),
        4: ("debug_annotations", "DebugAnnotation"),
        9: ("type", "int"),
        10: ("name_iid", "int"),
        11: ("track_uuid", "int"),
        44: ("double_counter_value", "double"),
        47: ("flow_ids", "fixed64"),
        48: ("terminating_flow_ids", "fixed64"),
    },
    "InternedData": {
        1: ("event_categories", "Interned"),
        2: ("event_names", "Interned"),
        3: ("debug_annotation_names", "Interned"),
    },
    "Interned": {1: ("iid", "int"), 2: ("name", "text")},
    "DebugAnnotation": {
        1: ("name_iid", "int"),
        2: ("bool_value", "int"),
        4: ("int_value", "int"),
        5: ("double_value", "double"),
        6: ("string_value", "text"),
    },
    "TrackDescriptor": {
        1: ("uuid", "int"),
        2: ("name", "text"),
        3: ("process", "ProcessDescriptor"),
        4: ("thread", "ThreadDescriptor"),
        5: ("parent_uuid", "int"),
        8: ("counter", "CounterDescriptor"),
    },
    "ProcessDescriptor": {1: ("pid", "int"), 6: ("process_name", "text")},
    "ThreadDescriptor": {1: ("pid", "int"), 2: ("tid", "int"), 5: ("thread_name", "text")},
    "CounterDescriptor": {3: ("unit", "int"), 6: ("unit_name", "text")},
}
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4

Message = dict[str, list[Any]]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; gives it and where the next field is."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def decode(data: bytes, kind: str = "Trace") -> Message:
    """Decode a message; every field has to be one of the schema, with its wire type."""
    found: Message = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        name, content = SCHEMA[kind][tag >> 3]
        wire = {"int": 0, "fixed64": 1, "double": 1}.get(content, 2)
        assert tag & 7 == wire, (kind, name)
        value: Any
        if wire == 0:
            value, at = varint(data, at)
        elif wire == 1:
            (value,) = struct.unpack_from("<Q" if content == "fixed64" else "<d", data, at)
            at += 8
        else:
            length, at = varint(data, at)
            part = data[at : at + length]
            assert len(part) == length
            at += length
            value = part.decode() if content == "text" else decode(part, content)
        found.setdefault(name, []).append(value)
    return found


class Trace:
    """A decoded trace, its strings put in place of their numbers."""

    def __init__(self, data: bytes) -> None:
        """Follow the packets in their order, as the trace processor does."""
        self.packets = decode(data)["packet"]
        self.tracks = {
            t["uuid"][0]: t for (t,) in (p["track_descriptor"] for p in self.packets if "track_descriptor" in p)
        }
        self.events: list[dict[str, Any]] = []
        strings: dict[tuple[str, int], str] = {}
        for packet in self.packets:
            for data_ in packet.get("interned_data", []):
                for field, entries in data_.items():
                    strings.update({(field, one["iid"][0]): one["name"][0] for one in entries})
            for event in packet.get("track_event", []):
                told = {"timestamp": packet["timestamp"][0], "type": event["type"][0], "track": event["track_uuid"][0]}
                if "name_iid" in event:
                    told["name"] = strings["event_names", event["name_iid"][0]]
                if "category_iids" in event:
                    told["category"] = strings["event_categories", event["category_iids"][0]]
                told["value"] = event.get("double_counter_value", [None])[0]
                told["flows"] = event.get("flow_ids", [])
                told["ends"] = event.get("terminating_flow_ids", [])
                told["annotations"] = {
                    strings["debug_annotation_names", one["name_iid"][0]]: next(
                        value[0] for name, value in one.items() if name != "name_iid"
                    )
                    for one in event.get("debug_annotations", [])
                }
                self.events.append(told)

    def slices(self) -> list[tuple[int, str, int, int, int]]:
        """Give (track, name, begin, end, depth) of the slices; those of a track have to nest."""
        stacks: dict[int, list[tuple[str, int]]] = {}
        found = []
        for event in self.events:
            stack = stacks.setdefault(event["track"], [])
            if event["type"] == BEGIN:
                stack.append((event["name"], event["timestamp"]))
            elif event["type"] == END:
                name, begin = stack.pop()
                found.append((event["track"], name, begin, event["timestamp"], len(stack)))
        assert not any(stacks.values()), "a slice does not end"
        return found


def test_what_is_in_it() -> None:
    """Process, thread, counters and critical events have tracks; spans are slices with annotations."""
    found = calm(5)
    found.spans = [
        span("tick", 1.0, 0.5, span_id=11, attributes={"symbol": "BTCUSDT", "n": -3, "x": 0.5, "ok": True, "b": b"12"}),
        span("send", 1.1, 0.2, span_id=12, parent_id=11, error=True, exception="TimeoutError"),
    ]
    found.open_spans = [span("session", 4.0, open=True, span_id=13)]
    trace = Trace(perfetto.trace(found, {11: 7, 12: 7, 13: 7}))
    process, main = trace.tracks[1], trace.tracks[100]
    assert process["process"] == [{"pid": [7], "process_name": ["bot"]}]
    assert main["thread"] == [{"pid": [7], "tid": [7], "thread_name": ["main"]}]
    assert {name for t in trace.tracks.values() for name in t.get("name", [])} >= {
        "memory",
        "CPU",
        "queue",
        "critical events",
    }
    assert {(name, depth) for track, name, _, _, depth in trace.slices() if track == 100} == {
        ("session", 0),
        ("tick", 1),
        ("send", 2),
    }
    begun = {event["name"]: event for event in trace.events if event["type"] == BEGIN}
    assert begun["tick"]["annotations"] == {
        "trace_id": f"{1:032x}",
        "span_id": f"{11:016x}",
        "symbol": "BTCUSDT",
        "n": 2**64 - 3,
        "x": 0.5,
        "ok": 1,
        "b": "2 bytes",
    }
    assert begun["send"]["annotations"]["error"] == "TimeoutError"
    assert begun["session"]["annotations"]["open"] == 1
    assert begun["tick"]["category"] == "P1"
    memory = next(uuid for uuid, track in trace.tracks.items() if track.get("name") == ["memory"])
    assert [event["value"] for event in trace.events if event["track"] == memory] == [60e6] * 6
    instants = [event for event in trace.events if event["type"] == INSTANT]
    assert instants[0]["name"] == "order acked BTCUSDT"


def test_the_sequence_stands_by_itself() -> None:
    """The first packet clears what was before, the others need it; time is the wall's, and never goes back."""
    trace = Trace(perfetto.trace(calm(5)))
    assert trace.packets[0]["sequence_flags"] == [1]
    assert {clock["clock_id"][0] for clock in trace.packets[0]["clock_snapshot"][0]["clocks"]} == {1, 6}
    times = [packet["timestamp"][0] for packet in trace.packets if "timestamp" in packet]
    assert times == sorted(times)
    assert all(packet["sequence_flags"] == [2] for packet in trace.packets if "track_event" in packet)
    assert {packet["trusted_packet_sequence_id"][0] for packet in trace.packets} == {1}


def test_what_overlaps_is_beside_each_other() -> None:
    """Tasks of one thread have tracks of their own, and flows lead from the parent to them."""
    found = calm(5)
    found.spans = [
        span("first", 1.0, 1.0, span_id=1),
        span("second", 0.5, 1.0, span_id=2),
        span("child", 0.6, 0.5, span_id=3, parent_id=1),
    ]
    trace = Trace(perfetto.trace(found, {1: 7, 2: 7, 3: 7}))
    tracks = {name: track for track, name, *_ in trace.slices()}
    assert len({tracks["first"], tracks["second"]}) == 2
    begun = {event["name"]: event for event in trace.events if event["type"] == BEGIN}
    assert tracks["child"] != tracks["first"]
    assert begun["first"]["flows"] == begun["child"]["ends"] == [3]
    assert begun["second"]["flows"] == []
    assert [t["name"] for t in trace.tracks.values() if t.get("name", [""])[0].startswith("tasks")] == [
        ["tasks 1 of thread 7"]
    ]


def test_only_the_last_seconds() -> None:
    """What ended earlier is left out; what is open is in it whenever it began."""
    found = calm(60)
    found.open_spans = [span("session", 50.0, open=True)]
    trace = Trace(perfetto.trace(found, last=2.0))
    names = [name for _, name, *_ in trace.slices()]
    assert names.count("tick") == 21
    assert names.count("session") == 1
    assert min(event["timestamp"] for event in trace.events if event["type"] == COUNTER) >= NOW - 2 * SECOND


SPANS = st.lists(
    st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 5.0), st.integers(1, 3), st.integers(0, 12)), max_size=40
)


@given(SPANS)
def test_slices_always_nest(spans: list[tuple[float, float, int, int]]) -> None:
    """However spans lie to each other, the slices of a track nest, and none is lost."""
    found = calm(1)
    found.vitals = found.pulses = []
    found.spans = sorted(
        (
            span(f"s{number}", ago, seconds, span_id=number + 1, parent_id=parent)
            for number, (ago, seconds, _, parent) in enumerate(spans)
        ),
        key=lambda one: one.end,
    )
    trace = Trace(perfetto.trace(found, {number + 1: one[2] for number, one in enumerate(spans)}))
    assert sorted(name for _, name, *_ in trace.slices()) == sorted(one.name for one in found.spans)


@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (lambda: protobuf.uint(1, 0), b"\x08\x00"),
        (lambda: protobuf.uint(16, 300), b"\x80\x01\xac\x02"),
        (lambda: protobuf.uint(1, -1), b"\x08" + b"\xff" * 9 + b"\x01"),
        (lambda: protobuf.text(2, "\ud800é"), b"\x12\x03?\xc3\xa9"),
        (lambda: protobuf.fixed64(1, 1), b"\x09\x01" + bytes(7)),
        (lambda: protobuf.double(1, 1.0), b"\x09" + struct.pack("<d", 1.0)),
        (lambda: protobuf.message(3, b""), b"\x1a\x00"),
    ],
)
def test_the_wire_format(encode: Callable[[], bytes], expected: bytes) -> None:
    """Each kind of field is encoded as protobuf's documentation says."""
    assert encode() == expected
