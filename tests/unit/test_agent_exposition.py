"""Several expositions made one."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from otel_trading.agent.exposition import Exposition


def parsed(text: str) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    """Read an exposition as Prometheus' own parser does."""
    return {
        family.name: [(sample.name, dict(sample.labels), sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def made(value: float, *observed: float) -> str:
    """Make the exposition of a program that counts and observes."""
    registry = CollectorRegistry()
    Counter("orders", "Orders.", ["side"], registry=registry).labels("buy").inc(value)
    Histogram("latency_seconds", "How long.", buckets=(1.0, 2.0), registry=registry)
    for one in observed:
        registry._names_to_collectors["latency_seconds"].observe(one)  # type: ignore[attr-defined]
    return generate_latest(registry).decode()


def test_families_are_grouped_and_series_told_apart() -> None:
    """Each family is there once, and each series has the labels of where it comes from."""
    both = Exposition()
    both.add(made(1.0, 0.5), {"service_name": "a", "service_instance_id": "1"})
    both.add(made(2.0, 1.5), {"service_name": "b", "service_instance_id": "2"})
    text = both.text()
    assert text.count("# TYPE latency_seconds histogram") == text.count("# TYPE orders_total counter") == 1
    orders = {sample[1]["service_name"]: sample for sample in parsed(text)["orders"] if sample[0] == "orders_total"}
    assert orders["a"][2] == 1.0
    assert orders["b"][2] == 2.0
    assert orders["b"][1] == {"side": "buy", "service_name": "b", "service_instance_id": "2"}
    counts = [sample for sample in parsed(text)["latency_seconds"] if sample[0] == "latency_seconds_count"]
    assert [sample[2] for sample in counts] == [1.0, 1.0]
    assert both.left_out == 0


def test_labels_that_are_there_stay() -> None:
    """A series that has the label already keeps it, once."""
    one = Exposition()
    one.add('# HELP x X.\n# TYPE x gauge\nx{service_name="own"} 1\nx 2\nx{} 3\n', {"service_name": "added"})
    found = parsed(one.text())["x"]
    assert [(labels["service_name"], value) for _, labels, value in found] == [
        ("own", 1.0), ("added", 2.0), ("added", 3.0)]  # fmt: skip


def test_another_kind_of_the_same_name_is_left_out_and_counted() -> None:
    """A name is a counter or a gauge; the first one says which."""
    one = Exposition()
    one.add("# HELP x X.\n# TYPE x gauge\nx 1\n", {"from": "a"})
    one.add("# HELP x X.\n# TYPE x counter\nx 2\n", {"from": "b"})
    assert parsed(one.text())["x"] == [("x", {"from": "a"}, 1.0)]
    assert one.left_out == 1


def test_values_of_labels_are_escaped() -> None:
    """A service may have any name."""
    one = Exposition()
    name = 'a"b\\c\nd'
    one.add("# TYPE x gauge\nx 1\n", {"service_name": name})
    one.series("own", "gauge", "Ours.", [({"service_name": name}, 2.5)])
    found = parsed(one.text())
    assert found["x"] == [("x", {"service_name": name}, 1.0)]
    assert found["own"] == [("own", {"service_name": name}, 2.5)]


@hypothesis.given(st.text(max_size=200), st.text(max_size=20))
def test_whatever_a_segment_says_the_rest_is_readable(text: str, name: str) -> None:
    """What is no exposition is left out; what others say is there as before."""
    one = Exposition()
    one.add("# TYPE good gauge\ngood 1\n", {"service_name": name})
    one.add("# TYPE other gauge\nother 1\n" + text, {"service_name": "bad"})
    assert "good" in one.text()
