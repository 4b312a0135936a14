"""What all tests share: a recorder in a directory of the test's own, and Python processes to try things in."""

from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# How long an example takes says more of the machine's neighbours than of the code.
hypothesis.settings.register_profile("otel-trading", deadline=None)
hypothesis.settings.load_profile("otel-trading")

ROOT = Path(__file__).resolve().parent.parent

# Small, so that tests meet the ends of things; the drain passes when a test says so.
SMALL: dict[str, object] = {
    "ring.slots": 1024,
    "ring.thread_slots": 256,
    "ring.open_spans": 256,
    "ring.arena_bytes": 1 << 18,
    "names.max": 2048,
    "drain.period": 60,
}


class Record(NamedTuple):
    """A span as a reader gives it, with its probe's name in place of the id."""

    name: str
    tier: int
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    end: int
    status: int
    flags: int
    error: str | None
    tracestate: str | None
    attributes: dict[str, bool | int | float | str]
    dropped: int
    own_name: str | None
    description: str | None
    events: list[bytes]
    links: list[bytes]
    events_dropped: int
    links_dropped: int


class Segment:
    """A segment file, read as any other process would."""

    def __init__(self, path: Path) -> None:
        """Attach to the file, which may go away meanwhile."""
        from otel_trading._backend import core

        fd = os.open(path, os.O_RDONLY)
        try:
            self.reader = core.Reader(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let the file go."""
        self.reader.close()

    def records(self, limit: int = 1_000_000) -> list[Record]:
        """Give the records that this reader has not given yet."""
        return self._named(self.reader.read(limit))

    def open_spans(self) -> list[Record]:
        """Give the spans that are open now."""
        return self._named(self.reader.open_spans())

    def named(self, name: str) -> list[Record]:
        """Give the new records of one probe."""
        return [record for record in self.records() if record.name == name]

    def _named(self, states: list[tuple[object, ...]]) -> list[Record]:
        names = [probe[0] for probe in self.reader.probes()]
        return [Record(names[state[0]], *state[1:]) for state in states]


class Recorder:
    """A recorder that is running in this process, and its segment."""

    def __init__(self, directory: Path) -> None:
        """Expect one segment in ``directory``."""
        self.directory = directory
        self.faults_expected = 0
        self.segment = Segment(self.path)
        self.records = self.segment.records
        self.open_spans = self.segment.open_spans
        self.named = self.segment.named

    @property
    def path(self) -> Path:
        """The segment's file."""
        from otel_trading import lifecycle

        assert lifecycle._host.path is not None
        return Path(lifecycle._host.path)

    @property
    def info(self) -> Mapping[str, object]:
        """The segment's own account of itself."""
        return self.segment.reader.info()

    @property
    def faults(self) -> int:
        """Misuse counted so far."""
        return int(self.info["faults"])

    def accounts(self) -> dict[int, dict[str, int]]:
        """Give the accounts, which must be balanced."""
        import otel_trading as ot

        accounts = ot.accounts()
        assert_balanced(accounts)
        return accounts

    def only(self, name: str) -> Record:
        """Give the one new record of a probe."""
        (record,) = self.named(name)
        return record


def assert_balanced(accounts: Mapping[int, Mapping[str, int]]) -> None:
    """Demand that what was recorded is accounted for, to the span."""
    for tier, account in accounts.items():
        parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
        assert account["recorded"] == sum(account[part] for part in parts), (tier, account)


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.002)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Run each test in a context of its own, so that a span which one leaves current does not spoil the next."""

    def call() -> None:
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
        if "otel_trading._backend" in sys.modules:
            assert sys.modules["otel_trading._backend"].core.current() is None, "the test has left a span current"

    contextvars.copy_context().run(call)
    return True


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test an environment without OpenTelemetry's variables, and leave no recorder behind.

    What belongs to the user's state, crash reports for one, goes to the test's own directory.

    Without the budget, too: else a machine that is busy with tests would have tiers switched off in the middle of one.
    """
    for name in [name for name in os.environ if name.startswith("OTEL_") and name != "OTEL_TRADING_BACKEND"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_TRADING_BUDGET_ENABLED", "false")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # Coverage's tracer runs between any two statements, where the pure backend counts on nothing running; a collection
    # in there would record its pause in the middle of another record.
    traced = sys.gettrace() is not None and os.environ.get("OTEL_TRADING_BACKEND") == "pure"
    if traced:
        gc.disable()
    yield
    if traced:
        gc.enable()
    if "otel_trading.lifecycle" in sys.modules:
        from otel_trading import faults, lifecycle

        lifecycle.shutdown(1.0)
        lifecycle._host.enabled = lifecycle._host.mode = None
        faults.forget()


@pytest.fixture
def _budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the budget at work by default, as it is without the tests' own environment."""
    monkeypatch.delenv("OTEL_TRADING_BUDGET_ENABLED")


@pytest.fixture
def until() -> Callable[..., None]:
    """Give the function that waits for a condition, with a deadline."""
    return wait_until


@pytest.fixture
def make_recorder(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Give a function that configures recording in the test's directory, with small rings unless told otherwise.

    At the test's end the accounts must be balanced, and the faults must be those that the test expects.
    """
    import otel_trading as ot

    made: list[Recorder] = []

    def make(service: str = "test", **changes: object) -> Recorder:
        config = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
        ot.configure(service, tmp_path, config)
        recorder = Recorder(tmp_path)
        made.append(recorder)
        return recorder

    yield make
    for recorder in made:
        if recorder is made[-1]:
            assert_balanced(ot.accounts())
        assert recorder.faults == recorder.faults_expected
        recorder.segment.close()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep the collector from running meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def recorder(make_recorder: Callable[..., Recorder]) -> Recorder:
    """Give a recorder with small rings."""
    return make_recorder()


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs Python code in a process of its own, segments in the test's directory."""

    def run(code: str, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script), *arguments],
            env=child_environment(tmp_path, **environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
        )
        assert not check or done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def child_environment(directory: Path, **changes: str) -> dict[str, str]:
    """Give the environment of a child that finds this package and makes its segments in ``directory``."""
    import otel_trading

    package = str(Path(otel_trading.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OTEL_TRADING_DIR": str(directory), **changes}


def uncovered(directory: Path, **changes: str) -> dict[str, str]:
    """Give that without what measures coverage, for children that can not write its figures, or have no time for it."""
    return {
        name: value for name, value in child_environment(directory, **changes).items() if not name.startswith("COV")
    }
