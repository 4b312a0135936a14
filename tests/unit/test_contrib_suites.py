"""The tool that runs OpenTelemetry's own suites: what it calls a loss, and what it does where it cannot run."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

TOOL = Path(__file__).resolve().parents[2] / "tools" / "contrib_suites.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the tool by its path."""
    spec = importlib.util.spec_from_file_location("contrib_suites", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "contrib_suites", module)
    spec.loader.exec_module(module)
    return module


def test_a_loss_is_a_test_that_passes_on_the_stock_provider_only(tool: ModuleType) -> None:
    """Tests that fail or are skipped on both, and those that are missing on ours, are told apart."""
    stock = {"a": "passed", "b": "failed", "c": "skipped", "d": "passed", "e": "passed"}
    result = tool.Result("suite", stock, {"a": "passed", "b": "failed", "c": "skipped", "d": "failed"}, "log")
    assert result.lost == ["d", "e"]
    text = tool.table([result])
    assert "only on stock: d" in text
    assert tool.Result("suite", stock, stock, "log").lost == []


def test_the_table_is_bounded(tool: ModuleType) -> None:
    """A suite that fails as a whole does not fill the screen."""
    stock = {f"test {number}": "passed" for number in range(500)}
    assert len(tool.table([tool.Result("suite", stock, {}, "log")]).splitlines()) < 20


def test_a_cache_in_the_repository_is_refused(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written into the checkout."""
    assert tool.main(["--cache", str(TOOL.parent / "cache")]) == 2
    assert "outside" in capsys.readouterr().err
    assert not (TOOL.parent / "cache").exists()


def test_without_an_index_it_could_not_run(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing can be downloaded the exit code is 2, and the reason is told."""
    monkeypatch.setattr(tool, "environment", lambda _cache: Path(sys.executable))
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null" if name == "PIP_CONFIG_FILE" else str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert tool.main(["--only", "sqlite3", "--cache", str(tmp_path)]) == 2
    assert "cannot be downloaded" in capsys.readouterr().err


def test_a_suite_is_run_on_both_and_compared(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suite in the cache is run by pytest on the stock provider and on ours, in processes of their own."""
    tests = tmp_path / "sdists" / f"opentelemetry_instrumentation_sqlite3-{tool.VERSION}" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_one.py").write_text(
        "from opentelemetry.test.test_base import TestBase\n"
        "class TestIt(TestBase):\n"
        "    def test_spans(self):\n"
        "        self.tracer_provider.get_tracer('x').start_span('a').end()\n"
        "        assert [s.name for s in self.memory_exporter.get_finished_spans()] == ['a']\n"
        "    def test_stock_only(self):\n"
        "        assert type(self.tracer_provider).__module__ == 'opentelemetry.sdk.trace'\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(tool, "environment", lambda _cache: Path(sys.executable))
    backend = os.environ.get("OTEL_TRADING_BACKEND") or "native"
    assert tool.main(["--only", "sqlite3", "--cache", str(tmp_path), "--json", "--backend", backend]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert [test.rpartition("::")[2] for test in result["lost"]] == ["test_stock_only"]
    assert set(result["stock"].values()) == {"passed"}
