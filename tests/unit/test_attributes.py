"""Attributes of spans: every type and size, what is kept, cut, dropped, and counted."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot

if TYPE_CHECKING:
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


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, object(), b"x", 1j])
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


def test_later_values_replace_earlier_ones(recorder: Recorder) -> None:
    """Setting a key again replaces its value, inline or not, whatever the types."""
    long = "x" * 300
    with ot.probe("probe.replaced").span(a=1, b=2, c=3, d=4, e=5) as span:
        for key, value in (("a", "one"), ("e", long), ("b", long), ("c", 3.5), ("e", 50)):
            span.set_attribute(key, value)
    got = recorder.only("probe.replaced").attributes
    assert got == {"a": "one", "b": long, "c": 3.5, "d": 4, "e": 50}


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


@pytest.mark.parametrize("size", [100, 4096])
def test_long_text_is_kept(recorder: Recorder, size: int) -> None:
    """Text up to 4,096 bytes is kept whole."""
    with ot.probe("probe.long").span(value="x" * size):
        pass
    assert recorder.only("probe.long").attributes == {"value": "x" * size}


@pytest.mark.parametrize("character", ["x", "é", "日", "🚀"])
def test_huge_text_is_cut_between_characters(recorder: Recorder, character: str) -> None:
    """Longer text is cut to 4,096 bytes, never within a character."""
    with ot.probe("probe.huge").span(value=character * 1_000_000):
        pass
    got = recorder.only("probe.huge").attributes["value"]
    assert got == character * (4096 // len(character.encode()))


def test_many_attributes(recorder: Recorder) -> None:
    """All attributes are kept, the fifth and those after it too."""
    given = {f"key{i}": i for i in range(100)}
    with ot.probe("probe.many").span(**given):
        pass
    record = recorder.only("probe.many")
    assert (record.attributes, record.dropped) == (given, 0)


def test_too_many_attributes_are_counted(recorder: Recorder) -> None:
    """Past 128 attributes are dropped, and the record says how many."""
    given = {f"key{i}": i for i in range(200)}
    with ot.probe("probe.toomany").span(**given):
        pass
    record = recorder.only("probe.toomany")
    assert len(record.attributes) == 128
    assert record.dropped == 72
    assert all(given[key] == value for key, value in record.attributes.items())


def test_set_attribute_wants_text_as_the_key(recorder: Recorder) -> None:
    """A key that is not text is a TypeError, as for any function."""
    with ot.probe("probe.key").span() as span, pytest.raises(TypeError):
        span.set_attribute(1, 2)
    assert recorder.only("probe.key").attributes == {}
