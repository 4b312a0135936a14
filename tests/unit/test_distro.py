"""The distro: what it sets, what it loads, and that nothing of it stops a program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment
from opentelemetry.instrumentation.dependencies import DependencyConflict, DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_trading.distro import OtelTradingConfigurator, OtelTradingDistro
from otel_trading.run import checklist, defaults, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from conftest import Recorder


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[outcomes.Outcomes]:
    """Give a distro that has done nothing yet, and leave the environment as it was."""
    before = dict(os.environ)
    fresh = outcomes.Outcomes()
    monkeypatch.setattr(outcomes, "current", fresh)
    yield fresh
    os.environ.clear()
    os.environ.update(before)


def set_by_distro() -> dict[str, str]:
    """Configure the distro; gives the variables that it has set."""
    before = set(os.environ)
    OtelTradingDistro().configure()
    return {name: value for name, value in os.environ.items() if name not in before}


def test_defaults() -> None:
    """Where nothing is set, spans and metrics go to OTLP over http, and provider and configurator are ours."""
    assert set_by_distro() == {
        "OTEL_PYTHON_CONFIGURATOR": "otel_trading",
        "OTEL_PYTHON_TRACER_PROVIDER": "otel_trading",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
    }


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is set is changed."""
    given = {
        "OTEL_PYTHON_CONFIGURATOR": "theirs",
        "OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert set_by_distro() == {}
    assert {name: os.environ[name] for name in given} == given


def test_exporters_of_the_file_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exporters that our file names are not overruled by a default."""
    (tmp_path / "bot.yaml").write_text("export: {traces: [console]}\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(tmp_path / "bot.yaml"))
    assert "OTEL_TRACES_EXPORTER" not in set_by_distro()
    assert outcomes.current.settings is not None
    assert outcomes.current.settings.export_traces == ("console",)
    assert outcomes.current.settings.export_metrics == ("otlp",)


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        (None, "http/protobuf"),
        ("http://localhost:4317", "grpc"),
        ("collector:4317", "grpc"),
        ("https://collector.example", "grpc"),
        ("http://localhost:4318", "http/protobuf"),
        ("http://localhost:4318/", "http/protobuf"),
        ("https://collector.example/v1/traces", "http/protobuf"),
        ("http://localhost:nonsense", "http/protobuf"),
    ],
)
def test_the_protocol_of_an_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str | None, protocol: str) -> None:
    """An endpoint without a protocol is spoken to as the stock distro would, unless it is plainly one of http."""
    if endpoint is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert set_by_distro()["OTEL_EXPORTER_OTLP_PROTOCOL"] == protocol


def test_without_an_exporter_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no OTLP exporter is installed, the default names none: a mistake would be made of a default."""
    monkeypatch.setattr(defaults, "_is_there", lambda _package: False)
    assert set(set_by_distro()) == {"OTEL_PYTHON_CONFIGURATOR", "OTEL_PYTHON_TRACER_PROVIDER"}
    monkeypatch.undo()


def test_a_declarative_file_says_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """With OTEL_CONFIG_FILE, neither exporters nor a provider are set."""
    monkeypatch.setenv("OTEL_CONFIG_FILE", "otel.yaml")
    assert set_by_distro() == {"OTEL_PYTHON_CONFIGURATOR": "otel_trading"}


def test_twice_is_once() -> None:
    """Configuring again changes nothing."""
    set_by_distro()
    assert set_by_distro() == {}


def test_mistakes_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, told: outcomes.Outcomes
) -> None:
    """A wrong configuration is logged once; nothing is set, configured, or instrumented."""
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "lots")
    distro = OtelTradingDistro()
    assert set_by_distro() == {}
    OtelTradingConfigurator().configure(auto_instrumentation_version="1")
    distro.load_instrumentor(point("good"), skip_dep_check=True)
    (record,) = caplog.records
    assert "OTEL_TRADING_SAMPLING_RATE: 'lots' is not a number from 0 to 1" in record.message
    assert "otel-trading config check" in record.message
    assert told.skipped == {"good": "the configuration has mistakes"}
    assert "nothing is instrumented: the configuration has mistakes" in checklist.text()


# ---- instrumentors --------------------------------------------------------------------------------


class Good(BaseInstrumentor):
    """One that does what it should."""

    seen: dict[str, Any]

    def instrumentation_dependencies(self) -> Collection[str]:
        """Ask for nothing."""
        return []

    def _instrument(self, **kwargs: Any) -> None:
        type(self).seen = kwargs

    def _uninstrument(self, **kwargs: Any) -> None:
        pass


class Missing(Good):
    """One whose library is not there."""

    def _instrument(self, **_kwargs: Any) -> None:
        raise ModuleNotFoundError("No module named 'lib'", name="lib")


class Nameless(Good):
    """One that says it in its own words."""

    def _instrument(self, **_kwargs: Any) -> None:
        raise ModuleNotFoundError("lib must be installed")


class Conflicting(Good):
    """One whose library has the wrong version."""

    def _instrument(self, **_kwargs: Any) -> None:
        raise DependencyConflictError(DependencyConflict("lib >= 2", "lib 1"))


class Broken(Good):
    """One that fails."""

    def _instrument(self, **_kwargs: Any) -> None:
        raise ZeroDivisionError("division by zero")


def point(name: str, called: str | None = None) -> EntryPoint:
    """Give the entry point of a class of this file, under another name where it is ``called`` so."""
    module = __name__

    class Local(EntryPoint):
        def load(self) -> Any:
            return globals()[self.value.partition(":")[2]]

    return Local(called or name, f"{module}:{name.capitalize()}", "opentelemetry_instrumentor")


def test_one_that_fails_does_not_stop_the_rest(told: outcomes.Outcomes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an instrumentor raises, the next is loaded, and each outcome is remembered with its reason."""
    distro = OtelTradingDistro()
    distro.configure()
    for name in ("missing", "nameless", "conflicting", "broken", "good"):
        distro.load_instrumentor(point(name), skip_dep_check=True)
    assert told.instrumented == ["good"]
    assert told.failed == {"broken": "ZeroDivisionError: division by zero"}
    assert told.skipped["missing"] == "lib is not installed"
    assert told.skipped["nameless"] == "lib must be installed"
    assert "lib >= 2" in told.skipped["conflicting"]
    assert [record.name for record in caplog.records] == ["otel_trading"]
    assert Good.seen == {}
    Good().uninstrument()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("instrumentors: {disabled: [good]}", "disabled by {file}, line 1"),
        ("instrumentors: {disabled: ['*']}", "disabled by {file}, line 1"),
        ("instrumentors: {enabled: [redis]}", "not among instrumentors.enabled of {file}, line 1"),
    ],
)
def test_switched_off_by_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: outcomes.Outcomes, text: str, reason: str
) -> None:
    """Our file can leave instrumentors out, and the reason names it."""
    file = tmp_path / "bot.yaml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(file))
    distro = OtelTradingDistro()
    distro.configure()
    distro.load_instrumentor(point("good"), skip_dep_check=True)
    assert told.skipped == {"good": reason.format(file=file)}


def test_the_files_options_reach_the_instrumentor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: outcomes.Outcomes
) -> None:
    """What our file says of websockets is what their instrumentor is called with; others are called as ever."""
    file = tmp_path / "bot.yaml"
    file.write_text(
        "websockets: {venues: {'127.0.0.1:9001': paper}, propagate: [127.0.0.1], current_after_receive: false}",
        encoding="utf-8",
    )
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(file))
    distro = OtelTradingDistro()
    distro.configure()
    distro.load_instrumentor(point("good", "websockets"), skip_dep_check=True)
    assert told.instrumented == ["websockets"]
    assert Good.seen == {
        "venues": {"127.0.0.1:9001": "paper"},
        "propagate": ("127.0.0.1",),
        "current_after_receive": False,
    }
    Good().uninstrument()


def test_switched_off_by_the_variable(monkeypatch: pytest.MonkeyPatch, told: outcomes.Outcomes) -> None:
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS is honoured, and told for what the loader passed over."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "good, websockets")
    distro = OtelTradingDistro()
    distro.configure()
    distro.load_instrumentor(point("good"), skip_dep_check=True)
    reasons = {name: reason for name, _, reason in told.rows()}
    assert reasons["good"] == reasons["websockets"] == "disabled by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    assert outcomes.switched_off("good", None) == reasons["good"]
    assert outcomes.switched_off("other", None) is None


class Distribution:
    """A package with requirements."""

    def __init__(self, *requires: str) -> None:
        """Take them."""
        self.requires = requires


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        ((), None),
        (('pytest>=1; extra == "instruments"',), None),
        (('zzz>=1; extra == "instruments"',), "zzz>=1 is not installed"),
        (('zzz; extra == "instruments-any"', 'yyy; extra == "instruments-any"'), "zzz or yyy is not installed"),
    ],
)
def test_conflicts(requires: tuple[str, ...], reason: str | None) -> None:
    """A library that is missing is named."""
    assert outcomes.conflict(Distribution(*requires)) == reason


def test_a_wrong_version_is_told() -> None:
    """A library of another version is told with both."""
    found = outcomes.conflict(Distribution('pytest>=999; extra == "instruments"'))
    assert found is not None
    assert found.startswith("needs pytest>=999; pytest ")
    assert found.endswith("is installed")


def test_the_checklist(told: outcomes.Outcomes, recorder: Recorder) -> None:
    """The checklist has the segment, the exporters, and each instrumentor with its outcome."""
    recorder.faults_expected = 1
    distro = OtelTradingDistro()
    distro.configure()
    for name in ("good", "missing", "broken"):
        distro.load_instrumentor(point(name), skip_dep_check=True)
    Good().uninstrument()
    first, *rest = checklist.text().splitlines()
    assert f"pid {os.getpid()} records" in first
    assert str(recorder.path) in first
    assert first.endswith("spans go to otlp")
    assert "\u2713 good" in rest[0]
    assert "\u2717 broken: ZeroDivisionError" in rest[1]
    assert any("- missing: lib is not installed" in line for line in rest)
    assert told.instrumented == ["good"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "the recorder did not start"),
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is true"),
    ],
)
def test_a_checklist_without_recording(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    """Where nothing is recorded, the checklist says why."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert "our distro was not loaded" in checklist.text()
    OtelTradingDistro().configure()
    assert said in checklist.text()


# ---- the configurator: each in a process of its own, as the global providers can be set once -------


SHOW = """
import os, sys
from opentelemetry import trace, metrics
from opentelemetry._logs import get_logger_provider
from otel_trading.distro import OtelTradingConfigurator, OtelTradingDistro
OtelTradingDistro().configure()
OtelTradingConfigurator().configure(auto_instrumentation_version="9.9")
OtelTradingConfigurator().configure()
import otel_trading as ot
def name(thing):
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
"""


def test_the_providers(run_python: Callable[..., Any]) -> None:
    """The tracer provider is ours, with the SDK's resource; what no exporter is named for is not even imported."""
    run_python(
        SHOW
        + """
provider = trace.get_tracer_provider()
assert name(provider).startswith("otel_trading.api."), name(provider)
attributes = provider.resource.attributes
assert attributes["service.name"] == "bot" and attributes["a"] == "1", attributes
assert attributes["telemetry.auto.version"] == "9.9"
assert attributes["telemetry.sdk.language"] == "python"
assert attributes["telemetry.distro.name"] == "otel-trading"
from otel_trading import lifecycle, segment
import json
reader = segment.attach(lifecycle._host.path)
stored = json.loads(reader.info()["resource"])
assert stored["telemetry.auto.version"] == "9.9" and stored["service.name"] == "bot", stored
assert "opentelemetry.sdk.metrics" not in sys.modules and "opentelemetry.sdk._logs" not in sys.modules
assert "OTEL_PYTHON_TRACER_PROVIDER" not in os.environ  # a child of another Python could not load it
with trace.get_tracer("x").start_as_current_span("y") as span:
    assert span.is_recording()
ot.flush()
assert ot.stats()["y"]["count"] == 1
""",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_SERVICE_NAME="bot",
        OTEL_RESOURCE_ATTRIBUTES="a=1",
    )


def test_metrics_and_logs_of_the_stock_sdk(run_python: Callable[..., Any]) -> None:
    """Where exporters are named, the SDK's providers are set, with the same resource."""
    done = run_python(
        SHOW
        + """
assert name(metrics.get_meter_provider()) == "opentelemetry.sdk.metrics._internal.MeterProvider"
assert name(get_logger_provider()).startswith("opentelemetry.sdk._logs.")
assert get_logger_provider().resource.attributes["telemetry.auto.version"] == "9.9"
metrics.get_meter("mine").create_counter("of.the.api").add(1)
""",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="console,prometheus",
        OTEL_LOGS_EXPORTER="console",
        OTEL_EXPORTER_PROMETHEUS_PORT="0",
    )
    assert "of.the.api" in done.stdout


def test_an_exit_does_not_wait_for_a_collector_that_hangs(tmp_path: Path) -> None:
    """A server that takes connections and never answers holds the exit up no longer than the timeout allows."""
    (tmp_path / "bot.yaml").write_text("shutdown.timeout: 1\n", encoding="utf-8")
    program = (
        SHOW
        + """
metrics.get_meter("mine").create_counter("c").add(1)
trace.get_tracer("x").start_span("y").end()
"""
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = child_environment(
            tmp_path,
            OTEL_TRADING_CONFIG=str(tmp_path / "bot.yaml"),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_TIMEOUT="300",  # seconds; the SDK's own reader would wait for 30
        )
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=25)


def test_the_stock_sdks_provider(run_python: Callable[..., Any]) -> None:
    """With OTEL_PYTHON_TRACER_PROVIDER=sdk_tracer_provider its spans go through our processor, exported once."""
    done = run_python(
        SHOW
        + """
assert name(trace.get_tracer_provider()) == "opentelemetry.sdk.trace.TracerProvider"
with trace.get_tracer("x").start_as_current_span("of the sdk"):
    pass
ot.flush()
assert ot.stats()["of the sdk"]["count"] == 1
""",
        OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider",
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
    )
    assert done.stdout.count('"name": "of the sdk"') == 1


def test_an_exporter_that_is_not_there(run_python: Callable[..., Any]) -> None:
    """A mistake that shows only when exporters are made is told once, and the API's calls go nowhere, harmlessly."""
    done = run_python(
        SHOW
        + """
with trace.get_tracer("x").start_as_current_span("y") as span:
    assert not span.is_recording()
""",
        OTEL_TRACES_EXPORTER="zzz",
    )
    assert done.stderr.count("zzz") == 1
    assert "The program runs without telemetry" in done.stderr


def test_logs_that_can_not_be_exported(run_python: Callable[..., Any]) -> None:
    """An exporter of logs that is not there is told, and the spans are recorded all the same."""
    done = run_python(
        SHOW
        + """
with trace.get_tracer("x").start_as_current_span("y") as span:
    assert span.is_recording()
""",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="zzz",
    )
    assert "logs that libraries make with OpenTelemetry's API go nowhere" in done.stderr


def test_the_programs_own_provider_stays(run_python: Callable[..., Any]) -> None:
    """A tracer provider that is set before us is left alone, and that is said."""
    done = run_python(
        """
from opentelemetry import trace
class Theirs(trace.NoOpTracerProvider):
    pass
trace.set_tracer_provider(Theirs())
"""
        + SHOW
        + "assert name(trace.get_tracer_provider()) == '__main__.Theirs'\n",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    )
    assert "has set a tracer provider of its own" in done.stderr
