"""Tables with an end: names, values, probes and instruments past it go to "other", counted, and nothing breaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]


# More than the probes and instruments of all tests together, which are in the table from the start.
MANY = 3000
TOO_MANY = 3200


def test_attribute_keys_past_the_table(make_recorder: Callable[..., Recorder]) -> None:
    """Keys for which the table has no room are written with the attribute, counted, and none is lost."""
    recorder = make_recorder(names__max=MANY, ring__slots=4096, ring__arena_bytes=1 << 20)
    probe = ot.probe("names.keys")
    for number in range(TOO_MANY):
        with probe.span() as span:
            span.set_attribute(f"key{number}", number)
            span.set_attribute(f"key{number}", "x" * 100 if number % 2 else float(number))
    records = recorder.named("names.keys")
    assert recorder.info["names_refused"] >= TOO_MANY - MANY
    assert [record.attributes for record in records] == [
        {f"key{number}": "x" * 100 if number % 2 else float(number)} for number in range(TOO_MANY)
    ]


def test_the_key_other_is_itself(make_recorder: Callable[..., Recorder]) -> None:
    """A key "other" is one key, also next to keys that found no room, and wherever it stands."""
    recorder = make_recorder(names__max=16, ring__slots=4096)
    with ot.probe("names.other").span(other=1) as span:
        for key, value in (("a", 1), ("b", 2), ("other", 3), ("a", "x" * 100), ("other", 4), ("b", 5)):
            span.set_attribute(key, value)
    (record,) = recorder.records()
    assert list(record.attributes.items()) == [("a", "x" * 100), ("other", 4), ("b", 5)]


def test_values_leave_room_for_keys(make_recorder: Callable[..., Recorder]) -> None:
    """However many values there are, they fill half of the table, and a new key still finds a place."""
    recorder = make_recorder(names__max=8000, ring__slots=8192, ring__arena_bytes=1 << 20)
    probe = ot.probe("names.halves")
    for number in range(6000):
        with probe.span(order_id=f"order-{number}"):
            pass
    with probe.span() as span:
        span.set_attribute("names.halves.late", 1)
    assert recorder.info["names_refused"] == 0
    *rest, last = recorder.named("names.halves")
    assert last.attributes == {"names.halves.late": 1}
    assert [record.attributes for record in rest] == [{"order_id": f"order-{number}"} for number in range(6000)]


def test_values_past_the_table_are_kept_whole(make_recorder: Callable[..., Recorder]) -> None:
    """Short values for which the table has no room are written out, and none is lost."""
    recorder = make_recorder(names__max=MANY, ring__slots=4096)
    probe = ot.probe("names.values")
    for number in range(TOO_MANY):
        with probe.span(order_id=f"order-{number}"):
            pass
    assert [record.attributes for record in recorder.named("names.values")] == [
        {"order_id": f"order-{number}"} for number in range(TOO_MANY)
    ]


def test_exception_types_past_the_table(make_recorder: Callable[..., Recorder]) -> None:
    """An exception type for which the table has no room is an error named "other"."""
    recorder = make_recorder(names__max=MANY, ring__slots=4096)
    probe = ot.probe("names.errors")
    for number in range(TOO_MANY):
        kind = type(f"Error{number}", (Exception,), {})
        try:
            with probe:
                raise kind
        except Exception:  # noqa: BLE001, S110
            pass
    records = recorder.named("names.errors")
    assert [record.status for record in records] == [2] * TOO_MANY
    assert records[-1].error == "other"
    assert recorder.info["names_refused"] > 0


def test_the_table_begins_anew_with_each_segment(make_recorder: Callable[..., Recorder]) -> None:
    """A full table is no longer full after shutdown and configure."""
    probe = ot.probe("names.anew")
    for _ in range(2):
        recorder = make_recorder(names__max=MANY)
        with probe.span() as span:
            span.set_attribute("first", 1)
        assert recorder.only("names.anew").attributes == {"first": 1}
        for number in range(TOO_MANY):
            with probe.span() as span:
                span.set_attribute(f"key{number}", number)
        ot.shutdown()


def test_arena_that_comes_round(make_recorder: Callable[..., Recorder]) -> None:
    """Long values whose place was taken since are missing and counted; the records are all there."""
    recorder = make_recorder(ring__arena_bytes=4096 * 8)
    core.keep(1000)
    probe = ot.probe("names.arena")
    for number in range(500):
        with probe.span(number=number, text=f"{number}:" + "x" * 1000):
            pass
    records = recorder.named("names.arena")
    assert [record.attributes["number"] for record in records] == list(range(500))
    kept = [record for record in records if "text" in record.attributes]
    assert 10 < len(kept) < 40
    assert all(str(record.attributes["text"]).startswith(f"{record.attributes['number']}:") for record in kept)
    assert records[-1] == kept[-1]
    core.drain()
    assert core.snapshot()["segment"]["text_overwritten"] >= 460


def test_probes_past_the_table(run_python: Run) -> None:
    """Past 4,096 probes the spans of further ones count as one probe's, "other"."""
    done = run_python(
        """
import json
import otel_trading as ot
from otel_trading._backend import core
ot.configure("many", config={"ring.slots": 8192, "drain.period": 60, "names.max": 65535})
for number in range(5000):
    probe = ot.probe(f"probe{number}")
    probe.stop(probe.start())
stats = ot.stats()
print(json.dumps([len(stats), stats["probe0"]["count"], stats["other"]["count"],
                  core.snapshot()["segment"]["names_refused"], ot.accounts()[1]["recorded"]]))
"""
    )
    probes, first, other, refused, recorded = json.loads(done.stdout)
    assert (probes, first, other, recorded) == (4096, 1, 5000 - 4095, 5000)
    assert refused >= 5000 - 4095


def test_instruments_past_the_table(run_python: Run) -> None:
    """Past 1,024 instruments further ones do nothing, are counted, and never raise."""
    done = run_python(
        """
import json
import otel_trading as ot
from otel_trading._backend import core
ot.configure("many", config={"drain.period": 60})
for number in range(1200):
    ot.counter(f"counter{number}").add(1)
    ot.gauge(f"counter{number}").set(1)
    ot.histogram(f"counter{number}").record(1)
found = core.snapshot()["instruments"]
print(json.dumps([len(found), found[1]["value"] if found[1]["kind"] == 1 else 1]))
"""
    )
    count, first = json.loads(done.stdout)
    assert count == 1024
    assert first == 1


def test_huge_names(recorder: Recorder) -> None:
    """Names of any length neither raise nor fill the table's text for good; a key is cut to 4,096 bytes."""
    huge: Any = "n" * 5_000_000
    with ot.probe("names.huge").span() as span:
        span.set_attribute(huge, 1)
        span.set_attribute("small", 2)
    (record,) = recorder.named("names.huge")
    assert record.attributes == {"n" * 4096: 1, "small": 2}
    assert recorder.faults == 0
