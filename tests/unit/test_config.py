"""The configuration: defaults, what wins over what, and how mistakes are told."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.config import duration_ns, resolve, sdk_disabled
from otel_trading.config.keys import KEYS
from otel_trading.config.tiers import matcher
from otel_trading.errors import ConfigurationError


def mistakes(**arguments: Any) -> list[str]:
    """Resolve what can not be, and give the lines of the complaint."""
    with pytest.raises(ConfigurationError) as caught:
        resolve(**arguments)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


# ---- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "nanoseconds"),
    [
        ("5ms", 5_000_000),
        ("200us", 200_000),
        ("200\u00b5s", 200_000),
        ("200\u03bcs", 200_000),
        ("750ns", 750),
        ("1s", 1_000_000_000),
        ("1.5 ms", 1_500_000),
        (" 2e3us ", 2_000_000),
        (1, 1_000_000_000),
        (0.005, 5_000_000),
        (datetime.timedelta(milliseconds=5), 5_000_000),
    ],
)
def test_duration(given: object, nanoseconds: int) -> None:
    """Text with a unit, seconds, and timedeltas are times."""
    assert duration_ns(given) == nanoseconds


@pytest.mark.parametrize(
    "given",
    [
        *("", "5", "ms", "5 parsecs", "5m", "five ms", "-1ms", "0s", "nan", "nans", "infs", "1e400s", 0, -1, 10**400),
        *(float("nan"), float("inf"), None, True, [], datetime.timedelta(0), 1e-10, b"5ms"),
    ],
)
def test_wrong_duration(given: object) -> None:
    """Anything else is refused, with its own text in the message."""
    with pytest.raises(ValueError, match="is not a"):
        duration_ns(given)


@given(st.integers(1, 10**15))
def test_durations_in_nanoseconds_are_exact(number: int) -> None:
    """A whole number of nanoseconds comes back as it is."""
    assert duration_ns(f"{number}ns") == number


@given(st.text(max_size=20) | st.floats() | st.integers())
def test_any_duration_is_a_time_or_a_value_error(value: object) -> None:
    """No input makes anything but a number of nanoseconds in range, or ValueError."""
    try:
        assert 1 <= duration_ns(value) < 2**63
    except ValueError:
        pass


# ---- what wins ------------------------------------------------------------------------------------


def test_defaults() -> None:
    """Nothing given is the documented defaults."""
    settings = resolve()
    assert (settings.service, settings.directory) == (None, None)
    assert (settings.ring_slots, settings.ring_thread_slots) == (65_536, 8_192)
    assert (settings.ring_open_spans, settings.ring_arena_bytes, settings.names_max) == (4_096, 2 << 20, 16_384)
    assert (settings.drain_period, settings.export_queue, settings.shutdown_timeout) == (0.1, 32_768, 5.0)
    assert (settings.export_traces, settings.export_metrics) == ((), ())
    assert (settings.metrics_port, settings.metrics_host) == (None, "127.0.0.1")
    assert (settings.enabled, settings.export_enabled, settings.sampling_rate) == (True, True, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        {"ring": {"slots": 4096}, "shutdown": {"timeout": "250ms"}},
        {"ring.slots": 4096, "shutdown.timeout": 0.25},
        {"ring": {"slots": 4096}, "shutdown.timeout": datetime.timedelta(milliseconds=250)},
    ],
)
def test_nested_and_flat_keys(config: dict[str, Any]) -> None:
    """Keys may be nested or written with dots."""
    settings = resolve(config=config)
    assert (settings.ring_slots, settings.shutdown_timeout) == (4096, 0.25)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's variables are read."""
    monkeypatch.setenv("OTEL_TRADING_DIR", "/somewhere")
    monkeypatch.setenv("OTEL_TRADING_HOST", "embedded")
    monkeypatch.setenv("OTEL_TRADING_ENABLED", "false")
    monkeypatch.setenv("OTEL_TRADING_EXPORT_ENABLED", "0")
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "0.25")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp, console")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    settings = resolve()
    assert settings.directory == "/somewhere"
    assert (settings.enabled, settings.export_enabled, settings.sampling_rate) == (False, False, 0.25)
    assert (settings.export_traces, settings.export_metrics) == (("otlp", "console"), ())


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the program says wins."""
    monkeypatch.setenv("OTEL_TRADING_DIR", "/somewhere")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    settings = resolve(directory=tmp_path, config={"export": {"traces": ["console"], "metrics": "otlp"}})
    assert settings.directory == str(tmp_path)
    assert (settings.export_traces, settings.export_metrics) == (("console",), ("otlp",))


def test_none_is_the_default() -> None:
    """A key whose default is None may be given as None."""
    settings = resolve(config={"metrics.port": None, "export.traces": None})
    assert (settings.metrics_port, settings.export_traces) == (None, ())


@pytest.mark.parametrize(("text", "disabled"), [("true", True), ("TRUE", True), ("false", False), ("1", False)])
def test_sdk_disabled(monkeypatch: pytest.MonkeyPatch, text: str, disabled: bool) -> None:  # noqa: FBT001
    """``OTEL_SDK_DISABLED`` is as OpenTelemetry has it: only "true" disables."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", text)
    assert sdk_disabled() is disabled


def test_everything_that_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable reaches its key, and the key's source is the variable."""
    for key, described in KEYS.items():
        for variable in described.variables[:1]:
            monkeypatch.setenv(variable, SAID.get(key, "7"))
    settings = resolve()
    assert settings.service == "from the environment"
    assert settings.resource == {"region": "eu west", "x": "1"}
    assert settings.limits == (7, 7, 7, 7, 7, 7, 7)
    assert (settings.enabled, settings.export_enabled, settings.logs_correlation) == (False, True, True)
    assert (settings.sampling_rate, settings.host, settings.export_queue) == (0.5, "embedded", 7)
    assert settings.instrumentors_disabled == ("redis", "requests")
    assert {key: settings.sources[key] for key, one in KEYS.items() if one.variables} == {
        key: one.variables[0] for key, one in KEYS.items() if one.variables
    }


SAID = {
    "service": "from the environment",
    "resource": "region=eu%20west,x = 1,nonsense,=5",
    "directory": "/somewhere",
    "host": "Embedded",
    "enabled": "off",
    "sampling.rate": "0.5",
    "export.enabled": "ON",
    "export.traces": "none",
    "export.metrics": "none",
    "logs.correlation": "true",
    "mode": "Stressed",
    "budget.enabled": "no",
    "instrumentors.disabled": "redis , requests,redis",
}


@pytest.mark.parametrize(
    ("variables", "limits"),
    [
        ({}, (128, 128, 128, 128, 128, 0xFFFFFFFF, 0xFFFFFFFF)),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "5"}, (5, 128, 128, 5, 5, 0xFFFFFFFF, 0xFFFFFFFF)),
        (
            {"OTEL_ATTRIBUTE_COUNT_LIMIT": "5", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "none"},
            (0xFFFFFFFF, 128, 128, 5, 5, 0xFFFFFFFF, 0xFFFFFFFF),
        ),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0"}, (128, 128, 128, 128, 128, 0, 0)),
        (
            {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"},
            (128, 128, 128, 128, 128, 4, 9),
        ),
    ],
)
def test_limits(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], limits: tuple[int, int, int, int, int, int]
) -> None:
    """The SDK's variables for limits hold; the particular one wins over the general one."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert resolve().limits == limits


def test_the_order_of_what_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Defaults, then the file, then the environment, then the arguments; and each value's source is told."""
    file = tmp_path / "bot.yaml"
    file.write_text("sampling: {rate: 0.1}\nring:\n  slots: 64\nexport: {traces: [console]}\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(file))
    assert resolve().sampling_rate == 0.1
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "0.2")
    assert resolve().sampling_rate == 0.2
    settings = resolve(config={"sampling.rate": 0.3})
    assert (settings.sampling_rate, settings.ring_slots, settings.export_traces) == (0.3, 64, ("console",))
    assert settings.sources["sampling.rate"] == "argument"
    assert resolve().sources["sampling.rate"] == "OTEL_TRADING_SAMPLING_RATE"
    assert settings.sources["ring.slots"] == f"{file}, line 3"
    assert settings.sources["names.max"] == "default"


def test_a_file_as_argument_is_still_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path in place of a mapping replaces OTEL_TRADING_CONFIG, and the environment still wins over what it says."""
    (tmp_path / "a.yaml").write_text("service: a\nsampling.rate: 0.1\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("service: b\nsampling.rate: 0.2\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(tmp_path / "a.yaml"))
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "0.3")
    settings = resolve(config=tmp_path / "b.yaml")
    assert (settings.service, settings.sampling_rate) == ("b", 0.3)


def test_the_resource_is_put_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Attributes of the resource are merged one by one; its service.name is the service's name."""
    file = tmp_path / "bot.yaml"
    file.write_text("resource: {a: file, b: file, c: file, service.name: file}\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(file))
    assert resolve().service == "file"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "b=environment,c=environment,service.name=environment")
    assert resolve().service == "environment"
    settings = resolve(config={"resource": {"c": 5, "d": [1, 2]}})
    assert settings.resource == {"a": "file", "b": "environment", "c": 5, "d": [1, 2]}
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    assert resolve().service == "named"
    assert resolve("argument").service == "argument"
    assert resolve(config={"resource": {"service.name": "in it"}}).service == "in it"


def test_tiers_are_tried_in_order() -> None:
    """The first glob that matches a name gives its tier; without one there is none."""
    settings = resolve(config={"tiers": {"order.*": "P0", "o*": 3, "[ab]?": "p2"}})
    tier_of = matcher(settings.tiers)
    names = ["order.send", "other", "a1", "a12", "Order.send", ""]
    assert [tier_of(name) for name in names] == [0, 3, 2, None, None, None]
    assert matcher(())("order.send") is None


def test_what_is_not_given_costs_no_import(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Without a file, resolving loads neither PyYAML nor what only messages need."""
    done = run_python(
        "import sys\nimport otel_trading\nbefore = set(sys.modules)\n"
        "from otel_trading.config import resolve\nresolve(config={'ring.slots': 64})\n"
        "print([name for name in set(sys.modules) - before if not name.startswith('otel_trading')])"
    )
    assert done.stdout.strip() == "[]"


# ---- mistakes -------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake is a line with its full key, in the arguments and the environment alike."""
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "2")
    monkeypatch.setenv("OTEL_TRADING_ENABLED", "perhaps")
    config = {"ring": {"slots": 1000, "thread_slots": "many"}, "export": {"queue": 0}, "drain.period": "soon"}
    told = mistakes(service="", config=config)
    assert sorted(line.split(":")[0] for line in told) == [
        "OTEL_TRADING_ENABLED",
        "OTEL_TRADING_SAMPLING_RATE",
        "drain.period",
        "export.queue",
        "ring.slots",
        "ring.thread_slots",
        "service",
    ]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"ring": {"slot": 1024}}, "ring.slot: no such key; did you mean ring.slots?"),
        ({"rings.slots": 1024}, "rings.slots: no such key; did you mean ring.slots?"),
        ({"shutdown": {"timout": 1}}, "shutdown.timout: no such key; did you mean shutdown.timeout?"),
        ({"ring.slots": 1000}, "ring.slots: 1000 is not a power of two: 1024 is the next one"),
        ({"ring.slots": 8}, "ring.slots: 8 is not between 16 and 16777216"),
        ({"ring.slots": True}, "ring.slots: True is not a whole number"),
        ({"ring.slots": 1024.0}, "ring.slots: 1024.0 is not a whole number"),
        ({"ring.slots": None}, "ring.slots: None is not a whole number"),
        ({"metrics.port": 65536}, "metrics.port: 65536 is not between 0 and 65535"),
        ({"metrics": {"host": ""}}, "metrics.host: '' is not text"),
        ({"metrics.host": 5}, "metrics.host: 5 is not text"),
        (
            {"shutdown.timeout": False},
            "shutdown.timeout: False is not a time: give text such as '5ms', a number of seconds, or a timedelta",
        ),
        ({"enabled": "yes"}, "enabled: 'yes' is neither true nor false"),
        ({"sampling.rate": True}, "sampling.rate: True is not a number from 0 to 1"),
        ({"limits.events": "many"}, "limits.events: 'many' is not a number of 0 or more, nor 'none'"),
        ({"directory": 5}, "directory: 5 is not a path"),
        ({"tiers": ["order.*"]}, "tiers: ['order.*'] is not a mapping of globs to tiers"),
        ({"tiers": {"order.*": "P4"}}, "tiers.order.*: 'P4' is no tier: use P0, P1, P2 or P3"),
        ({"tiers": {"order.*": True}}, "tiers.order.*: True is no tier: use P0, P1, P2 or P3"),
        ({"tiers": {"": "P1"}}, "tiers.: globs are text of 1 to 255 characters"),
        ({"resource": {"a": [1, "b"]}}, "resource.a: [1, 'b'] is a list of several kinds"),
        ({"resource": {"a": None}}, "resource.a: None is neither text, a boolean, a number, nor a list of these"),
        ({"resource": {"a": 2**63}}, "resource.a: the number does not fit 64 bits"),
        ({"resource": {"a": float("inf")}}, "resource.a: inf is not finite"),
        ({"resource": 5}, "resource: 5 is not a mapping of attributes"),
        ({"instrumentors.disabled": 5}, "instrumentors.disabled: 5 is not a list of instrumentors' names"),
        ({"ring.slots": "x" * 500}, f"ring.slots: '{'x' * 98}… is not a whole number"),
        ({"shutdown.timeout": -1}, "shutdown.timeout: -1 is not a time between 1 ns and 292 years"),
        ({"export.traces": ["none", "otlp"]}, "export.traces: ['none', 'otlp'] says 'none' next to others"),
        ({"export.traces": 5}, "export.traces: 5 is not a list of exporters' names"),
        ({5: 1}, "5: keys are text"),
    ],
)
def test_mistake(config: dict[Any, Any], line: str) -> None:
    """A mistake is told by its key, with what is wrong and what would be right."""
    assert mistakes(config=config) == [line]


def test_a_group_is_no_value() -> None:
    """A number where a group of keys belongs is told with the group's keys."""
    (line,) = mistakes(config={"shutdown": 5})
    assert line == "shutdown: is a group of keys (shutdown.timeout), not a value"


def test_a_key_given_twice() -> None:
    """A key that is given both nested and flat is a mistake."""
    (line,) = mistakes(config={"ring": {"slots": 1024}, "ring.slots": 2048})
    assert line == "ring.slots: given twice"


def test_a_name_like_no_key() -> None:
    """A name that resembles none is told all keys there are."""
    (line,) = mistakes(config={"zzz": 1})
    assert "the keys are service, resource" in line


@pytest.mark.parametrize("config", [5, "", [("ring.slots", 5)], True])
def test_config_that_is_no_mapping(config: Any) -> None:
    """What is no mapping is told as such."""
    (line,) = mistakes(config=config)
    assert line.startswith("config: ")


def test_hosts_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the process itself and the agent can drain."""
    monkeypatch.setenv("OTEL_TRADING_HOST", "moon")
    (line,) = mistakes()
    assert "'moon' is no host" in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("alerts.webhook", "ftp://host/s3cret", "this is no address"),
        ("alerts.webhook", "http://", "this is no address"),
        ("alerts.webhook", "http://host:99999/", "this is no address"),
        ("alerts.alertmanager", 9093, "this is no address"),
        ("alerts.webhook_form", "teams", "'teams' is no form"),
        ("alerts.severity", "loud", "'loud' is no severity"),
        ("alerts.command", "notify 'half", "is no command"),
        ("alerts.command", [""], "is no command"),
        ("alerts.rate", -1, "a number a minute"),
        ("forensics.quota_mb", "much", "an amount in MB"),
        ("forensics.signal", "SIGKILL", "is no signal to use"),
        ("forensics.signal", "SIGNOTHING", "is no signal to use"),
        ("watchdog.late", 0, "watchdog.late"),
    ],
)
def test_mistakes_of_agent_and_alerts(key: str, value: object, said: str) -> None:
    """What can not be is told, and an address, which may hold a secret, is not shown."""
    (line,) = mistakes(config={key: value})
    assert line.startswith(f"{key}: ")
    assert said in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("alerts.command", "notify --title 'a bot'", ("notify", "--title", "a bot")),
        ("alerts.webhook_form", "Slack", "slack"),
        ("forensics.signal", "usr2", "SIGUSR2"),
        ("alerts.webhook", " https://host/x ", "https://host/x"),
        ("host", "Agent", "agent"),
    ],
)
def test_values_of_agent_and_alerts(key: str, value: object, read: object) -> None:
    """What can be is read as it is meant."""
    assert resolve(config={key: value}).values[key] == read


def test_directory_of_a_wrong_type() -> None:
    """A directory that is no path is told."""
    (line,) = mistakes(directory=5)
    assert line == "directory: 5 is not a path"


@pytest.mark.parametrize("rate", ["x", "-0.1", "1.1", "nan"])
def test_rates_out_of_range(monkeypatch: pytest.MonkeyPatch, rate: str) -> None:
    """A sampling rate is a number from 0 to 1."""
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", rate)
    (line,) = mistakes()
    assert line.startswith("OTEL_TRADING_SAMPLING_RATE: ")


def test_wrong_exporters_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contradiction in the standard variables is told by their names."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none,otlp")
    (line,) = mistakes()
    assert line.startswith("OTEL_TRACES_EXPORTER: ")


def test_zero_timeout() -> None:
    """A timeout may be zero: do what can be done at once."""
    assert resolve(config={"shutdown.timeout": 0}).shutdown_timeout == 0.0


def test_the_standard_queue_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_BSP_MAX_QUEUE_SIZE`` is the queue's size unless the configuration says another, and must be a size."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "99")
    assert resolve().export_queue == 99
    assert resolve(config={"export.queue": 7}).export_queue == 7
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    with pytest.raises(ConfigurationError, match=r"OTEL_BSP_MAX_QUEUE_SIZE: 'many' is not a whole number"):
        resolve()
