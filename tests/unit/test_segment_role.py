"""The drain's role: one process at a time has it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_trading import _layout as at
from otel_trading.errors import SegmentError
from otel_trading.segment import role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder


def test_the_process_itself_has_it_while_it_drains(recorder: Recorder) -> None:
    """It is taken with the segment, and the control page says that it can be taken back."""
    path = str(recorder.path)
    assert role.is_held(path)
    assert role.claim(path) is None
    fd = os.open(path, os.O_RDONLY)
    try:
        found = role.hosts(fd, path)
    finally:
        os.close(fd)
    assert found.host == at.HOST_EMBEDDED
    assert found.can_take_back


def test_it_is_free_after_the_end(make_recorder: Callable[..., Recorder]) -> None:
    """A segment that stays for its orders has nobody to drain it."""
    import otel_trading as ot

    recorder = make_recorder()
    ot.order("o-1", symbol="BTCUSDT", side="buy", qty=1.0, price=2.0)
    path = str(recorder.path)
    ot.shutdown()
    assert os.path.exists(path)
    assert not role.is_held(path)


def test_a_dead_process_has_it_no_more(recorder: Recorder, until: Callable[..., None], tmp_path: Path) -> None:
    """The kernel takes it back from one that was killed."""
    copy = tmp_path / "copy.seg"
    copy.write_bytes(recorder.path.read_bytes())
    code = (
        "import sys, time\nfrom otel_trading.segment import role\n"
        "print(role.claim(sys.argv[1]), flush=True)\ntime.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(copy)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip().isdigit()
        assert role.is_held(str(copy))
    finally:
        child.kill()
        child.communicate()
    until(lambda: not role.is_held(str(copy)))


def test_no_link_is_followed(tmp_path: Path, recorder: Recorder) -> None:
    """A planted link is refused."""
    link = tmp_path / "link.seg"
    link.symlink_to(recorder.path)
    with pytest.raises(SegmentError):
        role.claim(str(link))
    assert not role.is_held(str(tmp_path / "none.seg"))
