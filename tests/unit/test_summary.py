"""The text, dict, and JSON summaries of a snapshot."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from otel_trading.drain import summary, units
from otel_trading.drain.histogram import ExponentialHistogram

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EMPTY = ExponentialHistogram().state()
SECOND = 1_000_000_000


def probe(name: str, durations: list[float], **changes: Any) -> dict[str, Any]:
    """Return a probe as it is in a snapshot, all durations in every window."""
    state = ExponentialHistogram.of(durations).state()
    return {
        "name": name,
        "tier": 1,
        "kind": 0,
        "sla_ns": 0,
        "count": len(durations),
        "errors": 0,
        "sla_breaches": 0,
        "total": state,
        "windows": {"1s": state, "5s": state, "1m": state},
        "exemplars": [],
        **changes,
    }


def instrument(name: str, kind: int, value: float | None, **changes: Any) -> dict[str, Any]:
    """Return an instrument as it is in a snapshot."""
    return {
        "name": name,
        "kind": kind,
        "value": value,
        "tier": 1,
        "unit": "",
        "description": "",
        "attributes": "",
        "updates": 1,
        **changes,
    }


def histogram(name: str, values: list[float], **changes: Any) -> dict[str, Any]:
    """Return a histogram instrument as it is in a snapshot."""
    state = ExponentialHistogram.of(values).state()
    windows = {"1s": EMPTY, "5s": EMPTY, "1m": state}
    return instrument(name, 3, None, total=state, windows=windows, exemplars=[], **changes)


def snapshot(*probes: dict[str, Any], instruments: tuple[dict[str, Any], ...] = (), **segment: int) -> dict[str, Any]:
    """Return a snapshot of 100 s."""
    return {
        "unix_ns": 1_800_000_100 * SECOND,
        "start_unix_ns": 1_800_000_000 * SECOND,
        "probes": list(probes),
        "instruments": list(instruments),
        "rings": [{"thread_id": 1, "capacity": 16, "head": 9, "tail": 7, "backlog": 2, "backlog_max": 5}],
        "drain": {"passes": 1000, "cpu_ns": 12_000_000, "period_ms": 100},
        "segment": {
            "bytes": 20 << 20,
            "ring_bytes": 16 << 20,
            "resident_bytes": 5 << 20,
            "names_refused": 0,
            "faults": 0,
            "text_overwritten": 0,
            "values_overwritten": 0,
            "attributes_dropped": 0,
            "open_spans": 0,
            "clock": "tsc",
            **segment,
        },
    }


def accounts(**of_p1: int) -> list[dict[str, int]]:
    """Return the accounts, with spans in P1 only."""
    none = dict.fromkeys(("recorded", "exported", "sampled_out", "overwritten", "refused", "pending"), 0)
    return [none, {**none, **of_p1}, none, none]


def test_stats_has_whole_nanoseconds_and_the_names_of_the_contract() -> None:
    """Each probe has its count, quantiles, and breaches, as integers and under the agreed names."""
    found = summary.stats(snapshot(probe("a", [1e-6] * 99 + [1e-3], sla_breaches=1)))
    assert found == {
        "a": {
            "count": 100,
            "p50_ns": pytest.approx(1_000, rel=0.01),
            "p95_ns": pytest.approx(1_000, rel=0.01),
            "p99_ns": pytest.approx(1_000, rel=0.01),
            "p999_ns": 1_000_000,
            "max_ns": 1_000_000,
            "sla_breaches": 1,
        }
    }
    assert all(type(value) is int for value in found["a"].values())


def test_stats_of_a_silent_probe_are_zeros() -> None:
    """A probe that recorded nothing is there, with zeros."""
    assert set(summary.stats(snapshot(probe("a", [])))["a"].values()) == {0}


def test_stats_takes_probes_of_one_name_together() -> None:
    """Two probes of one name (made past the public API) are one line, and nothing is lost."""
    found = summary.stats(snapshot(probe("a", [1e-6], sla_breaches=1), probe("a", [1.0], sla_breaches=2)))
    assert (found["a"]["count"], found["a"]["max_ns"], found["a"]["sla_breaches"]) == (2, SECOND, 3)


def test_text_shows_what_a_trader_asks_for() -> None:
    """Stages with quantiles, SLA, rates; instruments; pauses; accounts; losses: each is in the text."""
    text = summary.text(
        snapshot(
            probe("order.execute", [1e-6] * 60, tier=0, errors=3, sla_ns=5_000_000, sla_breaches=2),
            probe("never.run", []),
            instruments=(
                instrument("orders.rejected", 1, 1234567, unit="{order}", attributes='{"venue":"gate"}'),
                instrument("queue.depth", 2, 3.5),
                instrument("unset", 2, None, updates=0),
                histogram("slippage", [1.25, 2.5], unit="bps"),
                histogram("wait", [0.001], unit="s"),
                histogram("gc.pause", [0.001, 0.003], unit="s"),
            ),
        ),
        accounts(recorded=60, exported=58, refused=2),
    )
    lines = text.splitlines()
    head = "stage tier count p50 p95 p99 p99.9 max errors SLA breaches"
    assert " ".join(lines[0].split()) == head
    figures = ["order.execute", "P0", "60", *["1.00", "µs"] * 5, "3", "5.00", "ms", "2"]
    assert lines[1].split() == figures
    assert lines[2] == "without a span: never.run"
    assert lines[5].split()[:4] == ["order.execute", "60/s", "12/s", "1/s"]
    assert "orders.rejected{venue=gate}" in text
    assert "1,234,567  {order}" in text
    assert "unset" not in text
    assert "slippage" in text
    assert "1.00 ms" in text
    assert "GC pauses: 2, p50 1.00 ms, p99 3.00 ms, max 3.00 ms, together 4.00 ms, 0.00% of the time" in text
    assert lines[-1] == "losses: 2 spans that the exporters or their queue did not take"
    assert "backlog 2 records (longest met 5); drain 12.0 ms of CPU in 1,000 passes" in text
    assert text.endswith("\n")


def test_text_of_an_empty_snapshot_says_so() -> None:
    """Without spans there is a sentence and no empty table."""
    text = summary.text(snapshot(), accounts())
    assert text.startswith("no spans recorded\n")
    assert text.endswith("losses: none\n")


def test_text_names_every_loss() -> None:
    """Each kind of loss has a word of its own."""
    text = summary.text(
        snapshot(names_refused=1, faults=2, text_overwritten=3, values_overwritten=4, attributes_dropped=5),
        accounts(recorded=7, overwritten=7),
    )
    losses = text.splitlines()[-1]
    assert losses.startswith("losses: 7 spans overwritten")
    for words in (
        "1 names beyond",
        "2 misuses",
        "3 attributes overwritten",
        "4 histogram values",
        "5 attributes beyond",
    ):
        assert words in losses


def test_text_sums_the_accounts_of_several_tiers() -> None:
    """With more than one tier in use there is a line for all."""
    of = accounts(recorded=10, exported=10)
    of[0] = {**of[0], "recorded": 5, "pending": 5}
    text = summary.text(snapshot(), of)
    (line,) = [line for line in text.splitlines() if line.startswith("all")]
    assert line.split() == [
        "all",
        "15",
        "10",
        "0",
        "0",
        "0",
        "5",
    ]


def test_document_is_json_with_a_versioned_schema() -> None:
    """The document survives strict JSON, names its schema, and holds every part."""
    document = summary.document(
        snapshot(
            probe("a", [0.002], exemplars=[(0.002, 0xABC, 0xDEF, 5)]),
            probe("silent", []),
            instruments=(
                instrument("g", 2, float("inf")),
                histogram("h", [1.0]),
                histogram("empty", []),
            ),
        ),
        accounts(recorded=1, pending=1),
    )
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert again["schema"] == "otel-trading/summary/1"
    stage, silent = again["stages"]
    assert (stage["name"], stage["count"], stage["max_ns"], stage["sla_ns"]) == ("a", 1, 2_000_000, None)
    assert stage["exemplars"] == [
        {"ns": 2_000_000, "trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}", "unix_ns": 5}
    ]
    assert stage["windows"]["5s"]["rate"] == 0.2
    assert (silent["count"], silent["mean_ns"], silent["p99_ns"]) == (0, 0, 0)
    values = {entry["name"]: entry for entry in again["instruments"]}
    assert values["g"]["value"] is None
    assert values["h"]["p99"] == 1.0
    assert values["empty"]["max"] is None
    assert again["accounts"]["P1"]["pending"] == 1


def test_write_json_is_private_and_replaces_what_was_there(tmp_path: Path) -> None:
    """The file is readable by its owner alone, and a link in its place is replaced, not followed."""
    target = tmp_path / "elsewhere"
    target.write_text("untouched", encoding="utf-8")
    path = tmp_path / "summary.json"
    path.symlink_to(target)
    summary.write_json(path, snapshot(probe("a", [1.0])), accounts())
    assert json.loads(path.read_text(encoding="utf-8"))["stages"][0]["name"] == "a"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert target.read_text(encoding="utf-8") == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "summary.json"]


def test_write_json_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    """Where the name is taken by a directory, the error comes through and the temporary file is gone."""
    path = tmp_path / "taken"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        summary.write_json(path, snapshot(), accounts())
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (units.seconds, 0.0, "0 s"),
        (units.seconds, float("nan"), "\N{EN DASH}"),
        (units.seconds, 1e-12, "0.00100 ns"),
        (units.seconds, 85e-9, "85.0 ns"),
        (units.seconds, 850e-9, "850 ns"),
        (units.seconds, 999.9e-9, "1.00 µs"),
        (units.seconds, 0.0123, "12.3 ms"),
        (units.seconds, 1.5, "1.50 s"),
        (units.seconds, 1234.5, "1234 s"),
        (units.number, 0.0, "0"),
        (units.number, 99_999.0, "99999"),
        (units.number, 1_230_000.0, "1.23M"),
        (units.number, -0.5, "-0.500"),
        (units.number, 1e-9, "1e-09"),
        (units.number, float("inf"), "∞"),
        (units.number, float("-inf"), "-∞"),
        (units.number, float("nan"), "\N{EN DASH}"),
        (units.rate, 12_500.0, "12500/s"),
        (units.size, 512.0, "512 B"),
        (units.size, float(20 << 20), "20.0 MiB"),
        (units.size, float(3 << 30), "3.00 GiB"),
    ],
)
def test_numbers_are_short_and_say_their_unit(show: Callable[[float], str], value: float, text: str) -> None:
    """Three digits and a unit; what does not exist is a dash."""
    assert show(value) == text
