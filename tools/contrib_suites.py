"""Run the tests that OpenTelemetry's own instrumentations ship on the stock tracer provider and on ours, and compare.

    python tools/contrib_suites.py [--only sqlite3 …] [--backend native|pure] [--cache DIR] [--json]

Every test that passes on the stock provider must pass on ours.  The source distributions and an environment with what
their tests need are kept in a directory outside the repository (~/.cache/otel-trading/contrib, or where --cache
points), so a second run needs no network, and does not run the stock provider again.

Exit codes: 0 as many pass on ours, 1 a test passes on the stock provider only, 2 the suites could not be run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

VERSION = "0.66b1"
SUITES = ("requests", "httpx", "aiohttp-client", "sqlite3", "redis", "logging", "asyncio", "threading", "dbapi")

# What the tests import, and what our package needs beside OpenTelemetry.
REQUIREMENTS = (
    "opentelemetry-api==1.45.1",
    "opentelemetry-sdk==1.45.1",
    f"opentelemetry-test-utils=={VERSION}",
    *(f"opentelemetry-instrumentation-{suite}=={VERSION}" for suite in SUITES),
    "aiohttp>=3.14,<4",
    "fakeredis>=2.38,<3",
    "http-server-mock>=1.7,<2",
    "httpx>=0.28,<1",
    "mocket>=3.14,<4",
    "prometheus-client>=0.26,<1",
    "pytest>=9.2,<10",
    "pytest-asyncio>=1.3,<2",
    "pyyaml>=6.0,<7",
    "redis>=8.1,<9",
    "requests>=2.34,<3",
    "respx>=0.23,<1",
)

# Loaded by pytest before any test: the base class of all the suites makes its provider with this name.
PLUGIN = '''\
"""Puts the tracer provider that is asked for under the tests, and writes how each test ended."""
import json
import os

if os.environ["CONTRIB_PROVIDER"] == "ours":
    import opentelemetry.test.test_base as base
    from otel_trading.api import TracerProvider

    base.TracerProvider = TracerProvider

outcomes = {}


def pytest_runtest_logreport(report):
    worst = outcomes.get(report.nodeid)
    if report.failed:
        outcomes[report.nodeid] = "failed"
    elif worst is None and (report.when == "call" or report.skipped):
        outcomes[report.nodeid] = "skipped" if report.skipped else "passed"


def pytest_sessionfinish():
    with open(os.environ["CONTRIB_OUTCOMES"], "w") as file:
        json.dump(outcomes, file)
'''

SET_UP_SECONDS = 420
SUITE_SECONDS = 120
SHOWN = 10


class CannotRunError(Exception):
    """The suites could not be run: no network, no environment, no tests."""


class Result(NamedTuple):
    """How one suite ended on both providers: test → passed, failed, skipped."""

    suite: str
    stock: dict[str, str]
    ours: dict[str, str]
    log: str

    @property
    def lost(self) -> list[str]:
        """The tests that pass on the stock provider and not on ours."""
        return sorted(test for test, how in self.stock.items() if how == "passed" and self.ours.get(test) != "passed")


def run(command: list[str], seconds: float, what: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in bounded time; raises CannotRunError where it takes longer."""
    try:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotRunError(f"{what} took more than {seconds:.0f} s") from error


def environment(cache: Path) -> Path:
    """Return the Python of an environment with all requirements, made where it is not there yet."""
    text = "\n".join((sys.version, *REQUIREMENTS))
    home = cache / f"venv-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    done = home / "complete"
    if done.exists():
        return python
    for old in cache.glob("venv-*"):
        shutil.rmtree(old, ignore_errors=True)
    print("== an environment for the suites", file=sys.stderr, flush=True)
    venv.create(home, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", *REQUIREMENTS]
    installed = run(pip, SET_UP_SECONDS, "installing the suites' requirements")
    if installed.returncode:
        raise CannotRunError(f"the suites' requirements cannot be installed:\n{installed.stdout[-2000:]}")
    done.touch()
    return python


def sources(cache: Path, python: Path, suite: str) -> Path:
    """Return the directory of a suite's tests, downloaded where it is not there yet."""
    name = f"opentelemetry_instrumentation_{suite.replace('-', '_')}-{VERSION}"
    home = cache / "sdists"
    tests = home / name / "tests"
    if tests.is_dir():
        return tests
    archive = home / f"{name}.tar.gz"
    if not archive.exists():
        home.mkdir(parents=True, exist_ok=True)
        print(f"== {name}", file=sys.stderr, flush=True)
        requirement = f"opentelemetry-instrumentation-{suite}=={VERSION}"
        quiet = ("-q", "--disable-pip-version-check", "--no-input")
        source = ("--no-deps", "--no-binary", ":all:", "-d", str(home))
        command = [str(python), "-m", "pip", "download", *quiet, *source, requirement]
        fetched = run(command, SET_UP_SECONDS, f"downloading {requirement}")
        if fetched.returncode or not archive.exists():
            raise CannotRunError(f"{requirement} cannot be downloaded:\n{fetched.stdout[-2000:]}")
    with tempfile.TemporaryDirectory(dir=home) as scratch, tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
        os.replace(Path(scratch) / name, home / name)
    if not tests.is_dir():
        raise CannotRunError(f"{archive} has no tests")
    return tests


def outcomes(cache: Path, python: Path, suite: str, provider: str, backend: str | None) -> tuple[dict[str, str], Path]:
    """Run a suite on one provider; gives test → outcome, and the file with pytest's output."""
    tests = sources(cache, python, suite)
    plugins = cache / "plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "contrib_provider.py").write_text(PLUGIN, encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="contrib-") as scratch:
        written = Path(scratch) / "outcomes.json"
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
        variables["OTEL_TRADING_BUDGET_ENABLED"] = "false"  # a busy machine would have us leave spans out
        variables |= {
            "PYTHONPATH": os.pathsep.join([str(plugins), str(ROOT)]),
            "CONTRIB_PROVIDER": provider,
            "CONTRIB_OUTCOMES": str(written),
            "OTEL_TRADING_DIR": str(Path(scratch) / "segments"),
        }
        if backend:
            variables["OTEL_TRADING_BACKEND"] = backend
        command = [str(python), "-m", "pytest", "-q", "-p", "contrib_provider", "-p", "no:cacheprovider", "--tb=short"]
        done = run([*command, "."], SUITE_SECONDS, f"{suite} on {provider}", cwd=tests, env=variables)
        log = cache / f"{suite}-{provider}.log"
        log.write_text(done.stdout, encoding="utf-8")
        if not written.exists():
            raise CannotRunError(f"{suite} on {provider}: pytest did not come to an end, see {log}")
        found: dict[str, str] = json.loads(written.read_text(encoding="utf-8"))
    if not found:
        raise CannotRunError(f"{suite} on {provider}: no tests were found, see {log}")
    return found, log


def on_stock(cache: Path, python: Path, suite: str) -> dict[str, str]:
    """Give a suite's outcomes on the stock provider: those of an earlier run where there is one."""
    kept = python.parent.parent / f"{suite}.json" if (python.parent.parent / "complete").exists() else None
    if kept is not None and kept.exists():
        found: dict[str, str] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    found, _ = outcomes(cache, python, suite, "stock", None)
    if kept is not None:
        kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def table(results: list[Result]) -> str:
    """Write the results as text."""
    lines = [f"{'suite':16} {'tests':>6} {'stock passed':>13} {'ours passed':>12} {'lost':>5}"]
    for result in results:
        stock = sum(how == "passed" for how in result.stock.values())
        ours = sum(how == "passed" for how in result.ours.values())
        lines.append(f"{result.suite:16} {len(result.stock):6} {stock:13} {ours:12} {len(result.lost):5}")
        lines += [f"    only on stock: {test}" for test in result.lost[:SHOWN]]
        if len(result.lost) > SHOWN:
            lines.append(f"    and {len(result.lost) - SHOWN} more")
        if result.lost:
            lines.append(f"    see {result.log}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=SUITES, metavar="SUITE", help=f"one of {', '.join(SUITES)}")
    parser.add_argument("--backend", choices=("native", "pure"), help="which recorder; default: what is installed")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-trading" / "contrib"
    parser.add_argument("--cache", type=Path, default=home, help=f"default: {home}")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args(arguments)
    cache: Path = options.cache.resolve()
    if cache.is_relative_to(ROOT):
        print(f"the cache {cache} is in the repository: name a directory outside", file=sys.stderr)
        return 2
    results = []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        python = environment(cache)
        for suite in options.only or SUITES:
            print(f"== {suite}", file=sys.stderr, flush=True)
            stock = on_stock(cache, python, suite)
            ours, log = outcomes(cache, python, suite, "ours", options.backend)
            results.append(Result(suite, stock, ours, str(log)))
    except (CannotRunError, OSError, tarfile.TarError) as error:
        print(f"the suites could not be run: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([{**result._asdict(), "lost": result.lost} for result in results], indent=1))
    else:
        print(table(results))
    return 1 if any(result.lost for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
