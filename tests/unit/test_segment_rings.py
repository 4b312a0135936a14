"""The rings' headers are found in a good segment, and nothing is believed of a damaged one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading.segment.files import word
from otel_trading.segment.rings import ring_headers

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Recorder


def copied(path: Path, into: Path) -> int:
    """Copy a file, and open the copy."""
    into.write_bytes(path.read_bytes())
    return os.open(into, os.O_RDWR)


def test_each_ring_once(recorder: Recorder, tmp_path: Path) -> None:
    """The main thread's ring is there, with what it holds."""
    with ot.probe("rings.work"):
        pass
    fd = copied(recorder.path, tmp_path / "copy")
    try:
        found = list(ring_headers(fd))
    finally:
        os.close(fd)
    assert len({place for place, _ in found}) == len(found) >= 1
    assert sum(word(ring, at.OFF_RING_HEAD, 8) for _, ring in found) >= 1
    assert all(len(ring) == at.SIZE_RING for _, ring in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rings=st.integers(0, (1 << 64) - 1), count=st.integers(0, (1 << 32) - 1), size=st.integers(0, 1 << 16))
def test_damaged_headers(recorder: Recorder, tmp_path: Path, rings: int, count: int, size: int) -> None:
    """Whatever the header says of place and number, and wherever the file ends: whole headers, or none."""
    fd = copied(recorder.path, tmp_path / "damaged")
    try:
        os.pwrite(fd, rings.to_bytes(8, "little"), at.OFF_HEADER_RINGS_OFFSET)
        os.pwrite(fd, count.to_bytes(4, "little"), at.OFF_HEADER_RING_COUNT)
        os.ftruncate(fd, size)
        found = list(ring_headers(fd))
    finally:
        os.close(fd)
    assert len(found) <= at.MAX_RINGS
    for place, ring in found:
        assert place + at.SIZE_RING <= size
        assert len(ring) == at.SIZE_RING
