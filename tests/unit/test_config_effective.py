"""What is in force, as ``config check`` and ``info`` show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_trading.cli import main
from otel_trading.config.effective import Effective, plain_settings
from otel_trading.config.keys import KEYS
from otel_trading.config.masking import MASK, is_secret, masked


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer s3cret,x-key=5", f"authorization={MASK},x-key={MASK}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:s3cret@host:4318/p?k=s3cret", f"https://{MASK}@host:4318/p?{MASK}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:4318", "http://host:4318"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,api.key=s3cret", f"a=1,api.key={MASK}"),
        ("OTEL_SOMETHING_TOKEN", "s3cret", MASK),
        ("resource", {"a": 1, "db.password": "s3cret"}, {"a": 1, "db.password": MASK}),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000", "5000"),
        ("alerts.webhook", "https://me:s3cret@host/hooks/s3cret?k=s3cret", f"https://{MASK}@host/{MASK}"),
        ("alerts.command", ["notify", "--key", "s3cret"], ["notify", MASK]),
        ("alerts.command", ["notify"], ["notify"]),
    ],
)
def test_masking(name: str, value: object, shown: object) -> None:
    """Headers, users in URLs, and what is called a secret are not shown."""
    assert masked(name, value) == shown


@pytest.mark.parametrize("name", ["apiKey", "API-KEY", "client_secret", "Signature", "auth_token", "passphrase"])
def test_names_of_secrets(name: str) -> None:
    """However it is written, a secret's name is known."""
    assert is_secret(name)


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run ``config check``; gives the exit code and what it printed."""
    code = main.main(["config", "check", *arguments])
    return code, capsys.readouterr().out


def test_check_shows_every_value_and_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each key is a line with its value and where that came from; secrets are masked, the next command is last."""
    file = tmp_path / "bot.yaml"
    file.write_text("service: bot\ntiers: {order.*: P0}\nresource: {api_key: s3cret, a: 1}\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "0.5")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret")
    code, shown = check(capsys, str(file))
    assert code == 0
    assert "s3cret" not in shown
    lines = {line.split()[0]: line.split(None, 2)[1:] for line in shown.splitlines() if line.split()}
    assert set(KEYS) <= set(lines)
    assert lines["service"] == ["bot", f"{file}, line 1"]
    assert lines["tiers"] == ["order.*=P0", f"{file}, line 2"]
    assert lines["sampling.rate"] == ["0.5", "OTEL_TRADING_SAMPLING_RATE"]
    assert lines["limits.text"] == ["none", "default"]
    assert f"OTEL_EXPORTER_OTLP_HEADERS=authorization={MASK}" in shown
    assert shown.splitlines()[-1] == "Next: otel-trading doctor"


def test_check_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The same is one JSON object."""
    (tmp_path / "bot.yaml").write_text("ring.slots: 64\n", encoding="utf-8")
    code, shown = check(capsys, str(tmp_path / "bot.yaml"), "--json")
    found: dict[str, Any] = json.loads(shown)
    assert (code, found["ok"], found["exit_code"], found["problems"]) == (0, True, 0, [])
    assert found["values"]["ring.slots"] == {"value": 64, "source": f"{tmp_path / 'bot.yaml'}, line 1"}
    assert set(found["values"]) == set(KEYS)


def test_check_tells_all_mistakes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Mistakes are told with their lines, and give 1; a file that can not be read gives 2."""
    file = tmp_path / "bot.yaml"
    file.write_text("ring.slots: 5\nexport.queu: 1\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(file))
    code, shown = check(capsys)
    assert code == 1
    assert f"ring.slots: 5 is not between 16 and 16777216 ({file}, line 1)" in shown
    assert f"export.queu: no such key; did you mean export.queue? ({file}, line 2)" in shown
    assert shown.splitlines()[-1] == "Next: otel-trading config check"
    code, shown = check(capsys, "--json")
    assert [problem["line"] for problem in json.loads(shown)["problems"]] == [1, 2]
    code, shown = check(capsys, str(tmp_path / "none.yaml"))
    assert (code, "No such file" in shown) == (2, True)


def test_exporters_that_are_not_there_are_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that no package has, and a protocol that none speaks, are told by what named them."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,zzz")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus,otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier/pigeon")
    traces, metrics = Effective().problems
    assert (traces.key, metrics.key) == ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER")
    assert "zzz is no exporter that is installed" in traces.message
    assert "carrier/pigeon" in metrics.message


def test_variables_and_instrumentors_that_are_unknown_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks mistyped but may belong to another release or machine is a note, not a mistake."""
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RAT", "1")
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "websocket,*")
    found = Effective()
    assert found.problems == []
    assert found.notes == [
        "OTEL_TRADING_SAMPLING_RAT: no such variable; did you mean OTEL_TRADING_SAMPLING_RATE?",
        "instrumentors.disabled: no instrumentor 'websocket' is installed; did you mean websockets?",
    ]


def test_a_declarative_file_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the file of OTEL_CONFIG_FILE is told, once."""
    file = tmp_path / "otel.yaml"
    file.write_text('file_format: "9.0"\n', encoding="utf-8")
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(file))
    (problem,) = Effective().problems
    assert (problem.key, problem.file) == ("OTEL_CONFIG_FILE", str(file))
    assert caplog.records == []
    file.write_text('file_format: "1.0"\n', encoding="utf-8")
    assert Effective().problems == []


def test_plain_settings_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults can be had whatever the environment says."""
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "nonsense")
    settings = plain_settings()
    assert settings.values == {key: described.default for key, described in KEYS.items()}
    assert set(settings.sources.values()) == {"default"}
