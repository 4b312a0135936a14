"""The rings' sizes: smaller where monitoring takes more memory than it may, and back."""

from __future__ import annotations

from otel_trading import _layout as at
from otel_trading._pure.host import drain_now
from otel_trading._pure.keeping import keep_shrink
from otel_trading._pure.mapped import CONTROL, reserve
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.ring_size import LEAST, give_back, pages_between, resize, slots_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.writer import Writer

STEP = 2
"""A step leaves a quarter of the slots."""
_MOST = 24  # beyond that no ring has slots to lose
_USEFUL = 2048  # slots that the steps leave a large main ring: less saves nothing and loses records
_TRIES = 16
_ROUNDS = 4
_RESIZED = at.OFF_RING_RESIZED // 8
_ASKED = (CONTROL + at.OFF_CONTROL_BUFFERS) // 8
_NOW = (CONTROL + at.OFF_CONTROL_BUFFERS_NOW) // 8


class _Small:
    """Told by who could not let the rings grow, taken by the next tick."""

    def __init__(self) -> None:
        self.told = False

    def taken(self) -> bool:
        told, self.told = self.told, False
        return told


small = _Small()
"""The rings could not grow back for want of space: the step is in force again."""


class _Fitting:
    """One at a time."""

    busy = False


def forked() -> None:
    """Forget, in a child, what was going on in the parent."""
    _Fitting.busy = False


def asked(file: SegmentFile) -> int:
    """Give the shift of the rings' slots that the governor wants."""
    return min(file.words[_ASKED], _MOST)


def ask(file: SegmentFile, shift: int) -> None:
    """Have the rings get that."""
    file.words[_ASKED] = shift


def possible(file: SegmentFile, shift: int) -> bool:
    """Tell whether there is so much to be taken from the main ring."""
    slots = file.settings.main_slots
    return shift < _MOST and slots >> shift >= (_USEFUL if slots > 2 * _USEFUL else LEAST)


def ring_bytes(file: SegmentFile, shift: int) -> int:
    """Give the bytes of all rings' slots with that shift."""
    return at.SIZE_SLOT * sum(slots_left(_configured(file, writer), shift) for writer in list(drain.writers))


def fit_buffers() -> int:
    """Give the rings the size that the governor asks for; loses no record.  Bytes given back; negative: taken.

    Where the platform can not take pages back, or there is no space to grow into, that is 0.
    """
    if drain.adopted is not None:
        keep_shrink(asked(drain.adopted))  # the rings are the writer's
        return 0
    file = recorder.file
    if file is None or _Fitting.busy or not drain.drains:
        return 0
    shift = asked(file)
    if shift == file.words[_NOW]:
        return 0
    _Fitting.busy = True
    try:
        return _fit(file, shift)
    finally:
        _Fitting.busy = False


def fit_unattended(*, on: bool) -> None:
    """Have the writers themselves see to the rings' sizes from here on, while another process drains; or no longer."""
    for writer in list(recorder.writers):
        writer.turn = _turn if on else None
    recorder.turn = _turn if on else None


def _turn() -> None:
    """Fit the rings, in the middle of recording: what does not fit any more is overwritten, and counted so."""
    file = recorder.file
    if file is None or drain.drains or _Fitting.busy:
        return
    shift = asked(file)
    writers = list(recorder.writers)
    if shift == file.words[_NOW]:
        return
    sizes = [(writer, writer.capacity, slots_left(_configured(file, writer), shift)) for writer in writers]
    _Fitting.busy = True
    try:
        if not _reserved(file, sizes):
            file.words[_ASKED] = file.words[_NOW]
            return
        for writer, before, slots in sizes:
            if before != slots and resize(writer, slots, writer.head, 1) and slots < before:
                give_back(writer, slots, before)
        if all(writer.capacity == slots for writer, _, slots in sizes):
            file.words[_NOW] = shift
    finally:
        _Fitting.busy = False


def _fit(file: SegmentFile, shift: int) -> int:
    given = 0
    for _ in range(_ROUNDS):  # another thread may make a ring meanwhile
        sizes = [
            (writer, writer.capacity, slots_left(_configured(file, writer), shift)) for writer in list(recorder.writers)
        ]
        if all(before == slots for _, before, slots in sizes):
            break
        if not _reserved(file, sizes):
            file.words[_ASKED] = file.words[_NOW]
            small.told = True
            return given
        drain_now(True)  # so that little waits
        given += sum(_resize(*one) for one in sizes)
    else:
        return given  # the next try finds it calmer
    file.words[_NOW] = shift
    keep_shrink(shift)
    return given


def _resize(writer: Writer, before: int, slots: int) -> int:
    """Give a ring its size, for which there is space; bytes given back, negative: taken."""
    for _ in range(_TRIES):
        with drain.lock:
            if before == slots or not writer.map:
                return 0
            progress = drain.cursor(writer).progress
            if resize(writer, slots, progress.done):
                progress.resized(slots, writer.ring[_RESIZED])
                return give_back(writer, slots, before) if slots < before else -pages_between(writer, before, slots)[1]
        drain_now(True)
    return 0


def _reserved(file: SegmentFile, sizes: list[tuple[Writer, int, int]]) -> bool:
    """Have the space for those that grow; False, and all as it was, where there is none."""
    done: list[tuple[Writer, int, int]] = []
    for writer, before, slots in sizes:
        start, size = pages_between(writer, before, slots)
        if slots <= before or not size:
            continue
        try:
            reserve(file.fd, writer.piece.start + start, size)
        except OSError:
            for one in (*done, (writer, before, slots)):
                give_back(*one)
            return False
        done.append((writer, before, slots))
        writer.piece.populate(writer.piece.start + start, size)
    return True


def _configured(file: SegmentFile, writer: Writer) -> int:
    return file.settings.thread_slots if writer.index else file.settings.main_slots
