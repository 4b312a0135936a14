"""The archive of crashes: packed and read back, within its quota, safe against links and damaged files."""

from __future__ import annotations

import gzip
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_trading import _layout as at
from otel_trading.errors import SegmentDirectoryError, SegmentError, SegmentForeignError
from otel_trading.forensics import archive
from otel_trading.forensics.archive import Archive, Kept

SECOND = 1_000_000_000
WHEN = 1_795_000_000 * SECOND


@pytest.fixture
def crashes(tmp_path: Path) -> Path:
    """Give a directory that is not there yet."""
    return tmp_path / "state" / "crashes"


def put(where: Archive, number: int = 0, segment: Path | None = None, report: Any = None) -> Kept:
    """Keep a death of the service "bot"."""
    made = {"number": number} if report is None else report
    return where.put("bot", 100 + number, WHEN + number * SECOND, made, None if segment is None else str(segment))


def made_segment(path: Path, size: int = 1 << 20, content: bytes | None = None) -> Path:
    """Make a file that can not be packed smaller."""
    path.write_bytes(os.urandom(size) if content is None else content)
    return path


def everything(directory: Path) -> int:
    """Give the bytes that the files of a directory take."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def test_what_is_kept_can_be_read_back(crashes: Path, tmp_path: Path) -> None:
    """Report and segment come back as they were, and are for their owner alone."""
    segment = made_segment(tmp_path / "a.seg", content=bytes(300_000) + os.urandom(70_000) + bytes(5))
    with Archive(str(crashes), 50e6) as where:
        kept = put(where, segment=segment)
    assert kept.stem == "bot-100-20261118T110640"
    assert archive.read_report(str(kept.report)) == {"number": 0}
    assert kept.segment is not None
    assert gzip.decompress(Path(kept.segment).read_bytes()) == segment.read_bytes()
    assert stat.S_IMODE(crashes.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in crashes.iterdir()} == {0o600}
    fd = archive.unpack(kept.segment)
    try:
        assert os.pread(fd, 1 << 20, 0)[:370_005] == segment.read_bytes()
    finally:
        os.close(fd)


def test_the_quota_is_never_exceeded(crashes: Path, tmp_path: Path) -> None:
    """The oldest go for the newest, report and segment together, and the sum stays below the quota."""
    segment = made_segment(tmp_path / "a.seg")
    with Archive(str(crashes), 3.5e6) as where:
        for number in range(6):
            kept = put(where, number, segment)
            assert kept.segment is not None
            os.utime(kept.segment, ns=(WHEN + number, WHEN + number))
            os.utime(str(kept.report), ns=(WHEN + number, WHEN + number))
            assert everything(crashes) <= 3.5e6
    assert [one.stem.split("-")[1] for one in archive.kept(str(crashes))] == ["103", "104", "105"]


def test_what_is_too_large_leaves_its_report(crashes: Path, tmp_path: Path) -> None:
    """A segment that has no room within the quota is left out; the report stays, and no piece is left behind."""
    with Archive(str(crashes), 0.5e6) as where:
        kept = put(where, segment=made_segment(tmp_path / "a.seg"))
    assert kept.segment is None
    assert [path.name for path in crashes.iterdir()] == [f"{kept.stem}.json"]


def test_a_quota_of_nothing_keeps_nothing(crashes: Path) -> None:
    """Where not even a report has room, that is an error, and nothing is there."""
    with Archive(str(crashes), 0.0) as where, pytest.raises(ValueError, match=r"forensics\.quota_mb"):
        put(where)
    assert list(crashes.iterdir()) == []


def test_flight_records_count(crashes: Path) -> None:
    """What programs write of themselves is part of the quota, and goes when it is the oldest."""
    crashes.mkdir(parents=True, mode=0o700)
    flight = made_segment(crashes / "bot-1-18ea.flight")
    os.utime(flight, ns=(1, 1))
    assert [one.segment for one in archive.kept(str(crashes))] == [str(flight)]
    with Archive(str(crashes), 0.1e6) as where:
        put(where)
    assert not flight.exists()


def test_same_names_do_not_clash(crashes: Path) -> None:
    """Two deaths of one name are kept beside each other."""
    with Archive(str(crashes), 1e6) as where:
        assert len({put(where).stem for _ in range(3)}) == 3


def test_names_are_harmless(crashes: Path) -> None:
    """A service's name can not lead anywhere else."""
    with Archive(str(crashes), 1e6) as where:
        kept = where.put("../../etc/bo t\x1b", 1, 1 << 100, {}, None)
    assert Path(str(kept.report)).parent == crashes
    assert [path.name for path in crashes.iterdir()] == ["_.._etc_bo_t_-1-unknown.json"]


def test_links_are_not_followed(crashes: Path, tmp_path: Path) -> None:
    """A directory that is a link is refused; links in it are neither read, nor counted, nor written through."""
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(SegmentDirectoryError):
        Archive(str(tmp_path / "link"), 1e6)
    with pytest.raises(SegmentDirectoryError):
        archive.kept(str(tmp_path / "link"))
    victim = tmp_path / "victim"
    victim.write_text("untouched", encoding="utf-8")
    crashes.mkdir(parents=True, mode=0o700)
    (crashes / "bot-100-20261118T110640.json").symlink_to(victim)
    (crashes / "bot-9-x.seg.gz").symlink_to(victim)
    assert archive.kept(str(crashes)) == []
    assert archive.read_report(str(crashes / "bot-100-20261118T110640.json")) is None
    with pytest.raises(SegmentForeignError):
        archive.unpack(crashes / "bot-9-x.seg.gz")
    with Archive(str(crashes), 1e6) as where:
        assert put(where).stem.endswith(".1")
    assert victim.read_text(encoding="utf-8") == "untouched"


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """A directory with the rights of others is not written to."""
    tmp_path.chmod(0o755)
    with pytest.raises(SegmentDirectoryError):
        Archive(str(tmp_path), 1e6)


def test_without_a_directory_there_is_nothing(crashes: Path) -> None:
    """A directory that is not there is an empty archive."""
    assert archive.kept(str(crashes)) == []


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The configuration's directory, else one below the user's state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert archive.directory_of(None) == f"{tmp_path}/otel-trading/crashes"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert archive.directory_of({}) == f"{tmp_path}/.local/state/otel-trading/crashes"
    assert archive.directory_of({"forensics.directory": "/somewhere"}) == "/somewhere"


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "\x00"])
def test_a_report_that_is_none(tmp_path: Path, text: str) -> None:
    """What is no JSON object is no report."""
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert archive.read_report(str(path)) is None


# ---- damaged files ----


def header(size: int) -> bytes:
    """Give the beginning of a segment that says that it has a size."""
    made = bytearray(2 * at.PAGE)
    made[0:8] = at.MAGIC.to_bytes(8, "little")
    made[at.OFF_HEADER_FILE_BYTES : at.OFF_HEADER_FILE_BYTES + 8] = size.to_bytes(8, "little")
    return bytes(made)


def unpacked(path: Path) -> int:
    """Unpack; gives the size."""
    fd = archive.unpack(path)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def test_what_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """A packed file without its end unpacks to the whole size, zeros where nothing is."""
    path = tmp_path / "cut.seg.gz"
    whole = gzip.compress(header(1 << 20) + os.urandom((1 << 20) - 2 * at.PAGE))
    path.write_bytes(whole[: len(whole) // 2])
    assert unpacked(path) == 1 << 20


def test_a_size_that_can_not_be_is_not_believed(tmp_path: Path) -> None:
    """A header that asks for more than any segment has gets nothing."""
    path = tmp_path / "huge.seg.gz"
    path.write_bytes(gzip.compress(header(1 << 62)))
    assert unpacked(path) == 2 * at.PAGE


def test_a_bomb_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros without end are refused at the limit, and never written anywhere."""
    monkeypatch.setattr(archive, "_LARGEST", 1 << 26)
    path = tmp_path / "bomb.seg.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(header(1 << 20))
    zeros = bytes(1 << 22)
    data += b"".join(packer.compress(zeros) for _ in range(20))
    path.write_bytes(data + packer.flush())
    with pytest.raises(SegmentError, match="more than any segment"):
        archive.unpack(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), at_byte=st.integers(0, 1 << 16), cut=st.integers(0, 1 << 16))
def test_damaged_files_are_refused_or_read(tmp_path: Path, data: bytes, at_byte: int, cut: int) -> None:
    """Whatever the bytes are, unpacking gives a file or a SegmentError."""
    path = tmp_path / "damaged.seg.gz"
    whole = bytearray(gzip.compress(header(40_000) + bytes(range(256)) * 100))
    place = at_byte % len(whole)
    whole[place : place + len(data)] = data
    path.write_bytes(whole[: cut % len(whole) if cut % 3 else None])
    try:
        assert unpacked(path) <= archive._LARGEST
    except SegmentError:
        return


def test_reports_are_strict_json(crashes: Path) -> None:
    """What JSON has no word for is refused, and leaves no half of a file."""
    with Archive(str(crashes), 1e6) as where:
        with pytest.raises(ValueError, match="JSON"):
            put(where, report={"x": float("nan")})
        put(where, report={"text": "\ud800 é"})
    (path,) = crashes.iterdir()
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "? é"}
