"""What is installed: with a compiler, without one, and what a wheel holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import otel_trading
from otel_trading._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("otel_trading", "pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, so that a build leaves nothing in the checkout."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, copy / name)
    return copy


def build(tree: Path, hook: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call a hook of the build backend as pip does, into ``tree/out``."""
    (tree / "out").mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LD_PRELOAD"))}
    code = f"import setuptools.build_meta as backend; backend.{hook}('out')"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def wheel_of(tree: Path, **environment: str) -> zipfile.ZipFile:
    """Build a wheel, which must succeed, and open it."""
    done = build(tree, "build_wheel", **environment)
    assert done.returncode == 0, done.stderr
    (path,) = (tree / "out").glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_nothing_else(tree: Path) -> None:
    """A wheel has the modules, types, stub and format definition, and neither C sources nor tests."""
    with wheel_of(tree, OTEL_TRADING_BUILD="no") as wheel:
        names = set(wheel.namelist())
    assert {
        "otel_trading/__init__.py",
        "otel_trading/cli/main.py",
        "otel_trading/py.typed",
        "otel_trading/_native.pyi",
        "otel_trading/_native/segment.h",
    } <= names
    assert not [name for name in names if name.endswith((".c", ".so")) or name.startswith(("tests/", "benchmarks/"))]
    assert "otel_trading/_native/__init__.py" not in names


def test_wheel_tells_version_command_and_licence(tree: Path) -> None:
    """The wheel's metadata has the package's version, the command's entry point and the licence."""
    with wheel_of(tree, OTEL_TRADING_BUILD="no") as wheel:
        information = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
        metadata = wheel.read(information["METADATA"]).decode()
        commands = wheel.read(information["entry_points.txt"]).decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "LICENSE" in information
    assert "otel-trading = otel_trading.cli.main:main" in commands


def test_no_compiler_gives_a_pure_wheel(tree: Path) -> None:
    """Where the compiler fails, the package is still built, without the extension."""
    with wheel_of(tree, CC="false", LDSHARED="false") as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".so")]


def test_no_compiler_is_an_error_where_the_extension_is_demanded(tree: Path) -> None:
    """With OTEL_TRADING_BUILD=yes a compiler that fails fails the build."""
    assert build(tree, "build_wheel", CC="false", LDSHARED="false", OTEL_TRADING_BUILD="yes").returncode != 0


def test_source_distribution_holds_the_c_sources(tree: Path) -> None:
    """From a source distribution the extension can be built: every C file is in it."""
    done = build(tree, "build_sdist")
    assert done.returncode == 0, done.stderr
    (path,) = (tree / "out").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(file.relative_to(tree)) for file in (tree / "otel_trading" / "_native").glob("*.[ch]")}
    assert wanted
    assert wanted <= names


def test_version_is_one_and_a_version() -> None:
    """``otel_trading.__version__`` is the one of ``_version``, in the form major.minor.patch."""
    assert otel_trading.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", __version__)


def test_import_loads_nothing_heavy(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """``import otel_trading`` loads none of the modules that cost a trading process its start."""
    heavy = (
        "dataclasses",
        "inspect",
        "typing",
        "logging",
        "asyncio",
        "json",
        "opentelemetry",
        "rich",
        "prometheus_client",
    )
    done = run_python(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import otel_trading\n"
        f"print(sorted((set(sys.modules) - before) & set({heavy!r})))\n"
    )
    assert done.stdout.strip() == "[]"


def test_make_help_lists_every_phony_target() -> None:
    """Each target of the Makefile that a person calls has its line in ``make help``."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    documented = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(" ".join(targets).split()) == sorted(documented)
    assert {"demo", "test", "lint", "bench", "sanitize", "coverage", "clean", "format"} <= set(documented)
