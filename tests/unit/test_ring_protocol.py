"""The ring's sequence lock in C, between processes and without the GIL."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from otel_trading._backend import backend

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the C program that writes with eight threads and reads with another process."""
    if backend != "native":
        pytest.skip("the program tests the C code; this run is of the pure backend")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) on PATH")
    program = tmp_path_factory.mktemp("torn") / "torn"
    includes = [f"-I{ROOT / 'otel_trading/_native'}", f"-I{sysconfig.get_path('include')}"]
    flags = ["-O2", "-std=gnu11", "-D_GNU_SOURCE", *includes, "-pthread"]
    subprocess.run([compiler, *flags, str(ROOT / "tests/native/torn.c"), "-o", str(program)], check=True)
    return program


def figures(output: str) -> dict[str, int]:
    """Parse "written W read R torn T overwritten O"."""
    words = output.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def test_no_torn_record_in_1e8(torn: Path) -> None:
    """Of 10^8 records written by eight threads, a reader in another process takes none that is a mixture."""
    done = subprocess.run([torn, "100000000"], capture_output=True, text=True, timeout=300, check=False)
    counts = figures(done.stdout)
    assert counts["torn"] == 0
    assert counts["written"] == 100_000_000 == counts["read"] + counts["overwritten"]
    assert counts["read"] > 0
    assert done.returncode == 0


def test_without_the_protocol_records_are_torn(torn: Path) -> None:
    """A reader that ignores the sequence numbers does meet mixtures, so the test above can fail."""
    done = subprocess.run([torn, "20000000", "unchecked"], capture_output=True, text=True, timeout=300, check=False)
    assert figures(done.stdout)["torn"] > 0
    assert done.returncode == 1
