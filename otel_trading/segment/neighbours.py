"""The order tables of the user's other segments in a directory: of living processes, and of ended ones."""

from __future__ import annotations

import os
from _thread import RLock
from time import monotonic

from otel_trading import _layout as at
from otel_trading.errors import SegmentError, SegmentNotFoundError
from otel_trading.segment.directory import default_directory, open_directory
from otel_trading.segment.files import attach, find, has_suffix, open_segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._native import OrderState, Reader

_MOST = 32  # segments that are looked into: the newest
_PERIOD = 0.05  # seconds between two scans of the directory

_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_WORD = (1 << 64) - 1


class Neighbours:
    """Finds orders in other segments.

    Segments stay attached, so that an order which is in one of them is found without a system call; the directory is
    listed again at most once in 50 ms, and of what is new there only the header is read.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._directory: str | None = None
        self._attached: dict[str, tuple[int, Reader]] = {}  # by file name: when it was made, Unix ns
        self._passed_over: set[str] = set()  # older than the newest 32
        self._next_scan = 0.0

    def renew(self) -> None:
        """Take a lock of our own, in a forked child."""
        self._lock = RLock()

    def find(
        self, key: str, directory: str | None, own: str | None
    ) -> tuple[OrderState, str, bool] | tuple[None, None, bool]:
        """Give an order's state, the segment it is in, and whether that is a living process's; newest segments first.

        ``own`` is the caller's own segment, which is not looked into.  Raises SegmentDirectoryError.
        """
        where = os.path.abspath(directory if directory is not None else default_directory())
        with self._lock:
            if where != self._directory:
                self.close()
                self._directory = where
            found = self._look(key, own)
            now = monotonic()
            if found is None and now >= self._next_scan:
                self._next_scan = now + _PERIOD
                self._scan(where, own)
                found = self._look(key, own)
        if found is None:
            return None, None, True
        state, name = found
        path = os.path.join(where, name)
        segment = find(path)
        return state, path, segment is not None and segment.alive

    def close(self) -> None:
        """Let all files go."""
        for _, reader in self._attached.values():
            reader.close()
        self._attached.clear()
        self._passed_over.clear()
        self._next_scan = 0.0

    def _look(self, key: str, own: str | None) -> tuple[OrderState, str] | None:
        own_name = None if own is None else os.path.basename(own)
        for name, (_, reader) in self._attached.items():
            state = None if name == own_name else reader.order(key)
            if state is not None:
                return state, name
        return None

    def _scan(self, where: str, own: str | None) -> None:
        try:
            directory_fd = open_directory(where)
        except SegmentNotFoundError:
            return
        try:
            names = {name for name in os.listdir(directory_fd) if has_suffix(name)}
        finally:
            os.close(directory_fd)
        for name in self._attached.keys() - names:  # removed: its orders have ended, or are too old
            self._attached.pop(name)[1].close()
        self._passed_over &= names
        own_name = None if own is None else os.path.basename(own)
        new = [
            segment
            for name in names - self._attached.keys() - self._passed_over - {own_name}
            if (segment := find(os.path.join(where, name))) is not None
        ]
        for segment in new:
            try:
                self._attached[os.path.basename(segment.path)] = segment.created_ns, attach(segment.path)
            except SegmentError:  # gone meanwhile, or not one that we read
                continue
        ordered = sorted(self._attached.items(), key=lambda item: item[1][0], reverse=True)
        for name, (_, reader) in ordered[_MOST:]:
            reader.close()
            self._passed_over.add(name)
        self._attached = dict(ordered[:_MOST])


def _hash(key: bytes) -> int:
    value = _FNV_BASIS
    for byte in key:
        value = (value ^ byte) * _FNV_PRIME & _WORD
    return value


def note_end(path: str, key: str, state: int) -> None:
    """Write into an ended process's segment that one of its orders has ended too.

    A segment that was kept for its open orders alone, after an orderly shutdown, is removed with the last one.
    Raises SegmentError and OSError.
    """
    segment = find(path)
    if segment is None or segment.alive:
        return
    fd = open_segment(path, os.O_RDWR)
    try:
        _write_state(fd, key.encode(), state)
    finally:
        os.close(fd)
    if segment.closed and not has_open_orders(path):
        os.unlink(path)


def has_open_orders(path: str) -> bool:
    """Tell whether a segment has an order that is neither filled, cancelled nor rejected.  Raises SegmentError."""
    reader = attach(path)
    try:
        return any(state[3] < at.ORDER_FILLED for _, state in reader.orders())
    finally:
        reader.close()


def _write_state(fd: int, key: bytes, state: int) -> None:
    header = os.pread(fd, at.SIZE_HEADER, 0)
    places = int.from_bytes(header[at.OFF_HEADER_MAX_ORDERS : at.OFF_HEADER_MAX_ORDERS + 4], "little")
    table = int.from_bytes(header[at.OFF_HEADER_ORDERS_OFFSET : at.OFF_HEADER_ORDERS_OFFSET + 8], "little")
    if not places or places & (places - 1) or table + places * at.SIZE_ORDER > os.fstat(fd).st_size:
        return
    first = _hash(key)
    for step in range(at.ORDER_PROBES + 1):
        offset = table + ((first + step) & (places - 1)) * at.SIZE_ORDER
        entry = os.pread(fd, at.SIZE_ORDER, offset)
        size = entry[at.OFF_ORDER_KEY_BYTES]
        if size == len(key) and entry[at.OFF_ORDER_KEY : at.OFF_ORDER_KEY + size] == key:
            # One byte, so no lock: its owner has ended, and readers see the old state or the new one.
            os.pwrite(fd, bytes([state]), offset + at.OFF_ORDER_STATE)
            return
