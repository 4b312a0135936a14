"""The archive: what is kept of processes that died, in a directory of the user's own, within a quota.

Of each death ``SERVICE-PID-TIME.json``, the report, and ``SERVICE-PID-TIME.seg.gz``, the segment; ``*.flight`` are the
flight records that programs write of themselves.  Files have mode 0600, the directory 0700; links are never followed.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading import _layout as at
from otel_trading.errors import SegmentDamagedError, SegmentNotFoundError, SegmentTruncatedError
from otel_trading.segment.directory import open_directory, prepare_directory
from otel_trading.segment.files import open_segment

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKED, REPORT, FLIGHT, UNFINISHED = ".seg.gz", ".json", ".flight", ".part"
_CHUNK = 1 << 20
_PIECE = 1 << 16
_NOTHING = bytes(_PIECE)
_GZIP = 31  # zlib's window bits for a gzip stream
_LARGEST = 2 << 30  # bytes of a segment that is unpacked
_LARGEST_REPORT = 16 << 20
_BLOCK = 512  # of st_blocks
_TRIES = 100
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Kept(NamedTuple):
    """What the archive has of one process."""

    stem: str
    """The names without their ends."""
    segment: str | None
    """Path of the packed segment, or of a flight record."""
    report: str | None
    """Path of the report."""
    bytes: int
    """What it takes on the disk."""
    unix_ns: int
    """When it was kept."""


def default_directory() -> str:
    """Give the directory below the user's state directory; it need not be there."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "otel-trading", "crashes")


def directory_of(values: Mapping[str, object] | None) -> str:
    """Give the directory that a configuration's values name, else the default."""
    told = (values or {}).get("forensics.directory")
    return os.path.abspath(str(told)) if told else default_directory()


def kept(directory: str) -> list[Kept]:
    """List what is there, oldest first; nothing where there is no such directory.

    Raises SegmentDirectoryError where it is not safe.
    """
    try:
        directory_fd = open_directory(directory)
    except SegmentNotFoundError:
        return []
    try:
        return _listed(directory_fd, directory)
    finally:
        os.close(directory_fd)


def _listed(directory_fd: int, directory: str) -> list[Kept]:
    groups: dict[str, dict[str, os.stat_result]] = {}
    for name in os.listdir(directory_fd):
        end = next((end for end in (PACKED, REPORT, FLIGHT) if name.endswith(end)), None)
        if end is None:
            continue
        try:
            status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except OSError:  # gone meanwhile
            continue
        if stat.S_ISREG(status.st_mode):
            groups.setdefault(name.removesuffix(end), {})[end] = status
    found = []
    for stem, files in groups.items():
        paths = {end: os.path.join(directory, stem + end) for end in files}
        taken = sum(status.st_blocks * _BLOCK for status in files.values())
        newest = max(status.st_mtime_ns for status in files.values())
        found.append(Kept(stem, paths.get(PACKED) or paths.get(FLIGHT), paths.get(REPORT), taken, newest))
    return sorted(found, key=lambda one: (one.unix_ns, one.stem))


def read_report(path: str) -> dict[str, Any] | None:
    """Read a report of the archive; None where it is none, or can not be read."""
    try:
        fd = os.open(path, _READ)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_REPORT:
            return None
        found = json.loads(os.read(fd, _LARGEST_REPORT))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)
    return found if isinstance(found, dict) else None


# ---- keeping ---------------------------------------------------------------------------------------


class Archive:
    """The archive, to put something in; usable as ``with``.

    Raises SegmentDirectoryError where the directory is not safe or can not be made, SegmentSpaceError without room.
    """

    def __init__(self, directory: str, quota_bytes: float) -> None:
        """Open it, made where it is not there."""
        self.directory = directory
        self._quota = quota_bytes
        self._fd = prepare_directory(directory)

    def __enter__(self) -> Archive:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the directory go.  Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def put(self, service: str, pid: int, unix_ns: int, report: Mapping[str, Any], segment: str | None) -> Kept:
        """Keep a report, and the segment at a path, packed; the oldest ones go for it.

        A segment that finds no room within the quota is left out, and the report stays.  Raises OSError where not even
        that can be written, ValueError where the quota is too small for it.
        """
        data = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1).encode("utf-8", "replace")
        stem, fd = self._create(_stem(service, pid, unix_ns))
        try:
            if not self._make_room(stem, _on_disk(len(data))):
                raise ValueError(f"forensics.quota_mb is too small for a report of {len(data)} bytes")
            _write(fd, data)
        except BaseException:
            self._unlink(stem + REPORT)
            raise
        finally:
            os.close(fd)
        packed = None if segment is None else self._pack(stem, segment)
        found = [one for one in _listed(self._fd, self.directory) if one.stem == stem]
        if found:
            return found[0]
        return Kept(stem, packed, os.path.join(self.directory, stem + REPORT), len(data), unix_ns)

    def _create(self, wanted: str) -> tuple[str, int]:
        for number in range(_TRIES):
            stem = f"{wanted}.{number}" if number else wanted
            try:
                return stem, os.open(stem + REPORT, _NEW, 0o600, dir_fd=self._fd)
            except FileExistsError:
                continue
        raise FileExistsError(errno.EEXIST, "all names for the report are taken", wanted)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._fd)
        except OSError:  # somebody else tidies up as well
            return

    def _make_room(self, stem: str, needed: float) -> bool:
        """Remove the oldest until ``needed`` bytes more fit; False where they do not."""
        there = _listed(self._fd, self.directory)
        taken = sum(one.bytes for one in there)
        for one in there:
            if taken + needed <= self._quota:
                break
            if one.stem != stem:
                for end in (PACKED, FLIGHT, REPORT):
                    self._unlink(one.stem + end)
                taken -= one.bytes
        return taken + needed <= self._quota

    def _pack(self, stem: str, path: str) -> str | None:
        """Pack a segment beside its report; None where there is no room for it."""
        name = stem + PACKED
        fd = os.open(name + UNFINISHED, _NEW, 0o600, dir_fd=self._fd)
        whole = False
        try:
            source = open_segment(path, os.O_RDONLY)
            try:
                whole = self._stream(stem, source, fd)
            finally:
                os.close(source)
        except OSError:  # the disk is full: the report has to do
            whole = False
        finally:
            os.close(fd)
            if whole:
                os.rename(name + UNFINISHED, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            else:
                self._unlink(name + UNFINISHED)
        return os.path.join(self.directory, name) if whole else None

    def _stream(self, stem: str, source: int, target: int) -> bool:
        packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        size, offset, written = min(os.fstat(source).st_size, _LARGEST), 0, 0
        while offset < size:
            chunk = os.pread(source, min(_CHUNK, size - offset), offset)
            if not chunk:
                break
            offset += len(chunk)
            packed = packer.compress(chunk) if offset < size else packer.compress(chunk) + packer.flush()
            if packed:
                written += len(packed)
                if not self._make_room(stem, _on_disk(written)):
                    return False
                _write(target, packed)
        return offset >= size > 0


def _on_disk(size: int) -> int:
    return -(-size // at.PAGE) * at.PAGE


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _stem(service: str, pid: int, unix_ns: int) -> str:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in service[:64]).lstrip(".") or "_"
    try:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(unix_ns // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        stamp = "unknown"
    return f"{safe}-{pid}-{stamp}"


# ---- reading back ----------------------------------------------------------------------------------


def unpack(path: str | os.PathLike[str]) -> int:
    """Unpack a segment of the archive into memory; gives a file descriptor, the caller's to close.

    What is cut off at its end is told by whoever reads it.  Zeros take no memory; at most 2 GB are unpacked.  Raises a
    SegmentError where it can not be read, or is no such file.
    """
    where = os.fsdecode(path)
    source = open_segment(path, os.O_RDONLY)
    try:
        target = _nameless()
        try:
            _unpack(source, target, where)
        except BaseException:
            os.close(target)
            raise
    finally:
        os.close(source)
    return target


def _nameless() -> int:
    """Make a file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("otel-trading-forensics", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _unpack(source: int, target: int, where: str) -> None:
    unpacker = zlib.decompressobj(_GZIP)
    offset = 0
    try:
        while not unpacker.eof:
            data = unpacker.unconsumed_tail or os.read(source, _PIECE)
            if not data:
                break
            chunk = unpacker.decompress(data, _CHUNK)
            for begin in range(0, len(chunk), _PIECE):
                piece = chunk[begin : begin + _PIECE]
                if piece != _NOTHING[: len(piece)]:
                    os.pwrite(target, piece, offset + begin)
            offset += len(chunk)
            if offset > _LARGEST:
                raise SegmentDamagedError(where, "unpacks to more than any segment has", "remove the file")
    except zlib.error as error:
        if offset < at.SIZE_HEADER:
            raise SegmentDamagedError(where, f"is no packed segment ({error})", "name another file") from error
    if offset < at.SIZE_HEADER:
        raise SegmentTruncatedError(where, "the file ends within the header")
    # A segment that was cut off is read as far as it goes: the rest is zeros.
    size = int.from_bytes(os.pread(target, 8, at.OFF_HEADER_FILE_BYTES), "little")
    os.ftruncate(target, max(offset, size if size <= _LARGEST else 0))
