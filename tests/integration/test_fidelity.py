"""The same program on the SDK's provider and on ours: what is exported is equal but for ids and times."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment

if TYPE_CHECKING:
    from types import ModuleType

FIDELITY = Path(__file__).resolve().parent.parent / "fidelity"

SAMPLERS = {
    "always_on": {},
    "always_off": {},
    "parentbased_always_on": {},
    "parentbased_always_off": {},
    "traceidratio": {"OTEL_TRACES_SAMPLER_ARG": "0.5"},
    "traceidratio all": {"OTEL_TRACES_SAMPLER_ARG": "1"},
    "traceidratio none": {"OTEL_TRACES_SAMPLER_ARG": "0"},
    "parentbased_traceidratio": {"OTEL_TRACES_SAMPLER_ARG": "0.3"},
}

LIMITS = {
    "counts": {
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "5",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "4",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "3",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "2",
        "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "1",
    },
    "one count for all": {"OTEL_ATTRIBUTE_COUNT_LIMIT": "3"},
    "length": {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "7"},
    "another length for spans": {
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
    },
    "nothing": {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_SPAN_EVENT_COUNT_LIMIT": "0"},
}


def module(name: str) -> ModuleType:
    """Import a file of the fidelity directory."""
    spec = importlib.util.spec_from_file_location(f"fidelity_{name}", FIDELITY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


receiver = module("receiver")


class Run:
    """One run of the program: what it exported, and what it saw."""

    def __init__(self, directory: Path, which: str, *arguments: str, **environment: str) -> None:
        """Run it to its end."""
        listening = receiver.Receiver()
        try:
            done = subprocess.run(
                [sys.executable, str(FIDELITY / "program.py"), which, *arguments],
                env=child_environment(
                    directory,
                    OTEL_EXPORTER_OTLP_ENDPOINT=listening.endpoint,
                    OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
                    OTEL_TRACES_EXPORTER="otlp",
                    OTEL_METRICS_EXPORTER="none",
                    OTEL_SERVICE_NAME="fidelity",
                    OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,text=a%20b",
                    **environment,
                ),
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        finally:
            listening.close()
        assert done.returncode == 0, done.stderr[-4000:]
        self.seen: dict[str, Any] = json.loads(done.stdout)
        self.errors = done.stderr
        self.spans: dict[str, Any] = receiver.comparable(listening.requests)
        self.resources: list[dict[str, Any]] = receiver.resources(listening.requests)


def assert_equal(ours: Run, stock: Run) -> None:
    """Demand that both runs exported and saw the same."""
    assert ours.seen == stock.seen
    assert sorted(ours.spans) == sorted(stock.spans)
    different = {
        name: {key: (ours.spans[name][key], span[key]) for key in span if ours.spans[name][key] != span[key]}
        for name, span in stock.spans.items()
        if ours.spans[name] != span
    }
    assert not different, f"ours and the stock SDK's: {different}"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Give the program's run on the SDK's provider."""
    return Run(tmp_path_factory.mktemp("stock"), "stock")


def test_the_whole_api_exports_the_same(stock: Run, tmp_path: Path) -> None:
    """A program that uses all of the tracing API exports equal spans, scopes, events, links and statuses."""
    ours = Run(tmp_path, "ours")
    assert len(stock.spans) > 100
    assert_equal(ours, stock)


def test_the_resource_has_what_the_sdk_says(stock: Run, tmp_path: Path) -> None:
    """The exported resource has every attribute that the SDK's has, but for the instance's own id."""
    ours = Run(tmp_path, "ours", "ids")
    (theirs,), (own,) = stock.resources, ours.resources
    theirs.pop("service.instance.id", None)
    assert {key: own.get(key) for key in theirs} == theirs


@pytest.mark.parametrize("limits", LIMITS)
def test_limits_are_the_same(limits: str, tmp_path: Path) -> None:
    """The standard variables' limits leave the same attributes, events and links, and count the same as dropped."""
    ours, stock = (Run(tmp_path, which, **LIMITS[limits]) for which in ("ours", "stock"))
    assert_equal(ours, stock)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_decide_the_same(sampler: str, tmp_path: Path) -> None:
    """The standard samplers take the same of traces with the same ids, those of remote parents included."""
    environment = {"OTEL_TRACES_SAMPLER": sampler.split(" ", maxsplit=1)[0], **SAMPLERS[sampler]}
    ours, stock = (Run(tmp_path, which, "ids", **environment) for which in ("ours", "stock"))
    assert_equal(ours, stock)
