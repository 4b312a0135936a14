"""Attributes of spans: every type and size, what is kept, cut, dropped, and counted."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.api import TracerProvider
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder


def test_attributes_of_every_type(recorder: Recorder) -> None:
    """Text, whole numbers, floats and booleans come back as they were, with their types."""
    given = {"text": "BTCUSDT", "int": -42, "float": 1.5, "true": True, "false": False, "zero": 0, "empty": ""}
    with ot.probe("probe.types").span(**given):
        pass
    got = recorder.only("probe.types").attributes
    assert got == given
    assert {key: type(value) for key, value in got.items()} == {key: type(value) for key, value in given.items()}


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0.0, -0.0, 5e-324, 1.7976931348623157e308])
def test_numbers_at_the_ends_of_their_range(recorder: Recorder, value: float) -> None:
    """The extremes of 64 bits are kept exactly."""
    with ot.probe("probe.extreme").span(value=value):
        pass
    assert recorder.only("probe.extreme").attributes == {"value": value}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_floats_that_are_no_numbers(recorder: Recorder, value: float) -> None:
    """Infinities and NaN are kept."""
    with ot.probe("probe.inf").span(value=value):
        pass
    got = recorder.only("probe.inf").attributes["value"]
    assert got == value or (math.isnan(value) and math.isnan(got))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
def test_integers_past_64_bits_become_text(recorder: Recorder, value: int) -> None:
    """An integer that does not fit is kept, as text."""
    with ot.probe("probe.big").span(value=value):
        pass
    assert recorder.only("probe.big").attributes == {"value": str(value)}


def test_numbers_of_other_types(recorder: Recorder) -> None:
    """A Decimal, as trading programs use them, becomes a float."""
    with ot.probe("probe.decimal").span(price=Decimal("27123.25")):
        pass
    assert recorder.only("probe.decimal").attributes == {"price": 27123.25}


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, iter("x")])
def test_values_of_no_attribute_type_are_faults(recorder: Recorder, value: object) -> None:
    """What can not be an attribute is left out and counts a fault; the span is recorded."""
    with ot.probe("probe.wrong").span(right=1, wrong=value):
        pass
    assert recorder.only("probe.wrong").attributes == {"right": 1}
    recorder.faults_expected = 1


def test_values_whose_conversion_fails(recorder: Recorder) -> None:
    """A value whose own code raises is a fault, and the exception stays inside."""

    class Angry:
        def __float__(self) -> float:
            raise RuntimeError

    with ot.probe("probe.angry").span(value=Angry()):
        pass
    assert recorder.only("probe.angry").attributes == {}
    recorder.faults_expected = 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (b"", b""),
        (b"\x00\xff", b"\x00\xff"),
        ([], ()),
        ([1, "a", 2.5, True, None, b"x"], (1, "a", 2.5, True, None, b"x")),
        ((("",), [[]], -1), (("",), ((),), -1)),
        (range(3), (0, 1, 2)),
        (bytearray(b"ab"), (97, 98)),
        ({}, {}),
        ({"a": 1, "b": {"c": [None]}}, {"a": 1, "b": {"c": (None,)}}),
        ({"": 1, 5: "five", None: 0, "kept": Decimal("1.5")}, {"5": "five", "kept": 1.5}),
    ],
)
def test_values_of_many_parts(recorder: Recorder, given: object, kept: object) -> None:
    """None, bytes, sequences and mappings are kept, cleaned as the SDK cleans them."""
    with ot.probe("probe.parts").span(value=given, after=1):
        pass
    got = recorder.only("probe.parts").attributes
    assert type(got["value"]) is bytes
    assert messages.value(got["value"]) == kept
    assert got["after"] == 1


def test_values_that_contain_themselves(recorder: Recorder) -> None:
    """Nesting ends, and what is too deep is empty."""
    endless: list[object] = [1]
    endless.append(endless)
    with ot.probe("probe.endless").span(value=endless):
        pass
    value = messages.value(recorder.only("probe.endless").attributes["value"])
    depth = 0
    while value is not None:
        assert value[0] == 1  # of plain values nothing is lost
        value, depth = value[1], depth + 1
    assert depth == 32


def test_values_too_large_for_a_block_are_dropped(recorder: Recorder) -> None:
    """A sequence that no arena block can hold is left out whole and counted; however long it says it is."""
    with ot.probe("probe.large").span(value=range(10**12), right=1):
        pass
    record = recorder.only("probe.large")
    assert (record.attributes, record.dropped) == ({"right": 1}, 1)


def test_values_that_change_what_they_are_in(recorder: Recorder) -> None:
    """A value whose own code ends the span, or changes the list it is in, harms nothing."""
    span = ot.probe("probe.changing").span()

    class Ending:
        def __float__(self) -> float:
            span.finish()
            return 1.0

    items: list[object] = [1, 2]

    class Clearing:
        def __float__(self) -> float:
            items.clear()
            return 2.0

    items.append(Clearing())
    span.begin()
    span.set_attribute("list", items)
    span.set_attribute("value", Ending())
    record = recorder.only("probe.changing")
    assert messages.value(record.attributes["list"]) == (1, 2, 2.0)
    assert "value" not in record.attributes
    recorder.faults_expected = recorder.faults


def test_order_is_that_of_the_last_set(recorder: Recorder) -> None:
    """A key that is set again replaces its value and moves to the end, inline or not, whatever the types."""
    long = "x" * 300
    with ot.probe("probe.replaced").span(a=1, b=2, c=3, d=4) as span:
        span.set_attribute("b", 5)
        span.set_attribute("a", "one")
        (opened,) = recorder.open_spans()
        assert list(opened.attributes.items()) == [("c", 3), ("d", 4), ("b", 5), ("a", "one")]
        for key, value in (("e", 5), ("c", 3.5), ("d", long), ("e", long), ("a", 1)):
            span.set_attribute(key, value)
    got = recorder.only("probe.replaced").attributes
    assert list(got.items()) == [("b", 5), ("c", 3.5), ("d", long), ("e", long), ("a", 1)]


@pytest.mark.parametrize("text", ["µs", "日本語", "🚀" * 20, "é", "\0nul", "line\nend", "\u202e"])
def test_unicode(recorder: Recorder, text: str) -> None:
    """Any text that UTF-8 can write comes back, as a key and as a value."""
    with ot.probe("probe.unicode").span(value=text) as span:
        span.set_attribute(text, text)
    assert recorder.only("probe.unicode").attributes == {"value": text, text: text}


def test_unicode_names(recorder: Recorder) -> None:
    """A probe's name may be any text."""
    with ot.probe("プローブ.🚀"):
        pass
    assert len(recorder.named("プローブ.🚀")) == 1


def test_text_that_utf8_cannot_write(recorder: Recorder) -> None:
    """A lone surrogate does not raise; the span is recorded."""
    with ot.probe("probe.surrogate").span(value="\ud800", right=1):
        pass
    assert recorder.only("probe.surrogate").attributes["right"] == 1
    recorder.faults_expected = recorder.faults


@pytest.mark.parametrize("size", [100, 4096, 65_536])
def test_long_text_is_kept(make_recorder: Callable[..., Recorder], size: int) -> None:
    """Text up to 64 KiB is kept whole where the arena has room for it."""
    recorder = make_recorder(ring__arena_bytes=1 << 20)
    with ot.probe("probe.long").span(value="x" * size):
        pass
    assert recorder.only("probe.long").attributes == {"value": "x" * size}


@pytest.mark.parametrize("character", ["x", "é", "日", "🚀"])
@pytest.mark.parametrize(("arena", "most"), [(1 << 20, 65_536), (1 << 18, 65_536 - 32), (4096, 1024 - 32)])
def test_huge_text_is_cut_between_characters(
    make_recorder: Callable[..., Recorder], character: str, arena: int, most: int
) -> None:
    """Longer text is cut to 64 KiB, or to what a quarter of the arena holds, never within a character, and counted."""
    recorder = make_recorder(ring__arena_bytes=arena)
    with ot.probe("probe.huge").span(value=character * 1_000_000):
        pass
    record = recorder.only("probe.huge")
    assert record.attributes["value"] == character * (most // len(character.encode()))
    assert record.dropped == 0
    assert core.snapshot()["segment"]["attributes_dropped"] == 1


def test_many_attributes(recorder: Recorder) -> None:
    """All attributes are kept, the fifth and those after it too."""
    given = {f"key{i}": i for i in range(100)}
    with ot.probe("probe.many").span(**given):
        pass
    record = recorder.only("probe.many")
    assert (record.attributes, record.dropped) == (given, 0)


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 5, 128])
def test_the_newest_attributes_count(make_recorder: Callable[..., Recorder], limit: int) -> None:
    """Past the limit the oldest go, and the record says how many."""
    recorder = make_recorder(limits__attributes=limit)
    given = {f"key{i}": i for i in range(200)}
    with ot.probe("probe.toomany").span(**given):
        pass
    record = recorder.only("probe.toomany")
    assert record.attributes == dict(list(given.items())[200 - limit :])
    assert record.dropped == 200 - limit


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.binary(max_size=20),
)
NESTED = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=6,
)


SETS = st.lists(st.tuples(st.sampled_from("abcdefghij"), NESTED), max_size=30)


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 7, 128])
def test_any_sets_give_what_the_sdk_has(
    make_recorder: Callable[..., Recorder], caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    """Attributes set in any order and of any type: keys, order, values and the number dropped are the SDK's."""
    caplog.set_level(logging.CRITICAL, logger="opentelemetry.attributes")  # the SDK warns of each that it drops
    recorder = make_recorder(limits__attributes=limit)

    @settings(deadline=None, max_examples=60)
    @given(sets=SETS)
    def check(sets: list[tuple[str, object]]) -> None:
        expected = BoundedAttributes(maxlen=limit, immutable=False)
        with ot.probe("probe.any").span() as span:
            for key, value in sets:
                span.set_attribute(key, value)
                expected[key] = value
            (opened,) = recorder.open_spans()
        for each in (opened, recorder.only("probe.any")):
            got = {key: messages.value(v) if type(v) is bytes else v for key, v in each.attributes.items()}
            assert repr(list(got.items())) == repr(list(expected.items()))  # True is not 1, nor -0.0 0.0
            assert each.dropped == expected.dropped

    check()


ODD = st.one_of(NESTED, st.decimals(allow_nan=False), st.just(object), st.complex_numbers(), st.frozensets(VALUES))


@pytest.mark.parametrize(("limit", "length"), [(128, 3), (3, 0xFFFF_FFFF), (6, 1)])
def test_any_sets_of_an_api_span_give_what_the_sdk_has(
    make_recorder: Callable[..., Recorder], caplog: pytest.LogCaptureFixture, limit: int, length: int
) -> None:
    """The same for a tracer's span, whose texts are cut and whose odd values become text as the SDK's do."""
    caplog.set_level(logging.CRITICAL, logger="opentelemetry.attributes")
    recorder = make_recorder(limits__attributes=limit, limits__text=length)
    tracer = TracerProvider().get_tracer("test")

    @settings(deadline=None, max_examples=60)
    @given(sets=st.lists(st.tuples(st.sampled_from("abcdefghij"), ODD), max_size=20))
    def check(sets: list[tuple[str, object]]) -> None:
        expected = BoundedAttributes(
            maxlen=limit, immutable=False, max_value_len=None if length == 0xFFFF_FFFF else length
        )
        with tracer.start_as_current_span("api.any") as span:
            for key, value in sets:
                span.set_attribute(key, value)
                expected[key] = value
        record = recorder.only("api.any")
        got = {key: messages.value(v) if type(v) is bytes else v for key, v in record.attributes.items()}
        assert repr(list(got.items())) == repr(list(expected.items()))
        assert record.dropped == expected.dropped

    check()


@pytest.mark.parametrize("key", ["", 5, None, b"x"])
def test_keys_that_are_none(recorder: Recorder, key: Any) -> None:
    """An empty key, or one that is no text, is left out and counted, as the SDK counts it; nothing is raised."""
    with TracerProvider().get_tracer("test").start_as_current_span("api.key") as span:
        span.set_attribute(key, 2)
        span.set_attribute("right", 1)
    record = recorder.only("api.key")
    assert (record.attributes, record.dropped) == ({"right": 1}, 1)
