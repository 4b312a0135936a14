"""Instrumentation scopes: from the JSON that the recorder keeps, without the SDK and as its objects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_trading._version import __version__
from otel_trading.drain import scopes, sdk_scopes

parts = st.fixed_dictionaries(
    {"name": st.text(max_size=8)},
    optional={
        "version": st.one_of(st.none(), st.text(max_size=8)),
        "schema_url": st.one_of(st.none(), st.text(max_size=8)),
        "attributes": st.one_of(
            st.none(),
            st.dictionaries(
                st.text(max_size=4), st.one_of(st.booleans(), st.integers(), st.text(max_size=4)), max_size=3
            ),
        ),
    },
)


@given(parts)
def test_both_kinds_are_the_same(found: dict[str, object]) -> None:
    """A scope has what its JSON says, and what the SDK makes of it."""
    text = json.dumps(found)
    light, sdk = scopes.Scopes()[text], sdk_scopes.Scopes()[text]
    assert sdk == InstrumentationScope(**found)  # type: ignore[arg-type]
    assert (light.name, light.version, light.schema_url) == (sdk.name, sdk.version, sdk.schema_url)
    assert (light.attributes or {}) == sdk.attributes


@pytest.mark.parametrize("text", ["{", "[]", "1", '"name"', '{"version": 1, "schema_url": [], "attributes": 3}'])
def test_what_is_no_scope_has_no_name(text: str) -> None:
    """A damaged segment's text gives an empty scope."""
    light, sdk = scopes.Scopes()[text], sdk_scopes.Scopes()[text]
    assert (light.name, light.version, light.schema_url, light.attributes) == ("", None, "", None)
    assert sdk == InstrumentationScope("")


def test_ours_has_our_name() -> None:
    """The empty text is our own scope."""
    assert scopes.Scopes()[""] is scopes.SCOPE
    assert sdk_scopes.Scopes()[""] is sdk_scopes.SCOPE
    assert InstrumentationScope("otel_trading", __version__) == sdk_scopes.SCOPE


@pytest.mark.parametrize("known", [scopes.Scopes(), sdk_scopes.Scopes()])
def test_memory_is_bounded(known: scopes.Scopes | sdk_scopes.Scopes) -> None:
    """One scope is one object, and of any number no more than the limit are kept."""
    text = '{"name": "first"}'
    assert known[text] is known[text]
    for number in range(scopes.Scopes.most + 10):
        assert known[f'{{"name": "n{number}"}}'].name == f"n{number}"
    assert len(known._known) <= scopes.Scopes.most
    assert known[""].name == "otel_trading"
