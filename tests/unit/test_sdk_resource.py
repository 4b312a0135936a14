"""The resource detector: what it tells, and what it must not."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource

from otel_trading.sdk.resource import TradingResourceDetector, command_line, trading_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "s3cr3tV4lue9hX2kQ7wPz81LmN0b"  # noqa: S105  what must not come out


def test_it_tells_process_host_and_what_is_traded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attributes are the semantic conventions', and the environment's under ``trading.``."""
    monkeypatch.setenv("OTEL_TRADING_RESOURCE", "venue=gateio, trading.strategy = maker%20one ,broken,=x")
    found = TradingResourceDetector().detect().attributes
    assert found["process.pid"] == os.getpid()
    assert found["host.name"] == platform.node()
    assert found["os.type"] == platform.system().lower()
    assert found["process.runtime.name"] == "cpython"
    assert {key: value for key, value in found.items() if key.startswith("trading.")} == {
        "trading.venue": "gateio",
        "trading.strategy": "maker one",
    }
    assert TradingResourceDetector().is_process_dependent()


def test_the_sdk_finds_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=trading adds it to the SDK's resource."""
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "trading")
    monkeypatch.setenv("OTEL_TRADING_RESOURCE", "venue=gateio")
    assert Resource.create({}).attributes["trading.venue"] == "gateio"


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--api-key={SECRET}"],
        ["--api-key", SECRET],
        ["--secret", SECRET],
        ["--gateio-passphrase", SECRET],
        ["-token", SECRET],
        [f"API_SECRET={SECRET}"],
        [f"anything={SECRET}"],
        [f"redis://user:{SECRET}@localhost:6379/0"],
        [f"https://{SECRET}@example.com"],
        ["-c", f"connect('{SECRET}')"],
        [SECRET],
        ["--venue", SECRET],
    ],
)
def test_a_command_line_has_no_secrets(arguments: list[str]) -> None:
    """A value in any of the usual places is left out, and what stands around it is not."""
    found = command_line(["python", "bot.py", *arguments, "--symbol", "BTC_USDT"])
    assert SECRET not in " ".join(found)
    assert found[:2] == ["python", "bot.py"]
    assert found[-2:] == ["--symbol", "BTC_USDT"]


def test_secrets_are_no_attributes() -> None:
    """A key that is named like a secret is left out of the environment's attributes too."""
    assert trading_attributes(f"api_key={SECRET},venue=x,account.password={SECRET}") == {"trading.venue": "x"}


def test_a_process_tells_no_secret_of_its_own(run_python: Callable[..., Any]) -> None:
    """A real process with a key on its command line does not have it in its resource."""
    done = run_python(
        "from otel_trading.sdk.resource import TradingResourceDetector\n"
        "print(dict(TradingResourceDetector().detect().attributes))\n",
        "--api-key",
        SECRET,
        f"--secret={SECRET}",
        OTEL_TRADING_RESOURCE=f"token={SECRET}",
    )
    assert SECRET not in done.stdout
    assert "script.py" in done.stdout


@given(st.lists(st.text(max_size=3000), max_size=200))
def test_any_command_line_is_bounded(arguments: list[str]) -> None:
    """Whatever the arguments are, what is told of them is bounded text."""
    found = command_line(arguments)
    assert len(found) <= 64
    assert all(len(item) <= 1024 for item in found)
    assert trading_attributes(",".join(arguments)) is not None
