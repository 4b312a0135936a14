"""What can go wrong: one root, and each message says what was wrong, where, and what to do."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


class OtelTradingError(Exception):
    """The root of all errors of this package.

    ``exit_code`` is what a command that ends by it returns: 2, it could not run.
    """

    exit_code: int = 2


class ConfigurationError(OtelTradingError):
    """What ``configure``, its configuration or the environment asks for can not be."""


class BackendError(OtelTradingError):
    """The recorder that was asked for, or any, can not run here."""


class SegmentError(OtelTradingError):
    """A segment or its directory can not be used.

    ``where`` is its path, ``what`` the trouble, ``remedy`` what to do; their kinds are the subclasses.
    """

    remedy = "run the program that made it again"

    def __init__(self, where: str | os.PathLike[str], what: str, remedy: str | None = None) -> None:
        """Say ``what`` is wrong with ``where``, and the remedy where the kind's own does not fit."""
        super().__init__(where, what, remedy)  # all of them, so that the error can be pickled
        self.where = str(where)
        self.what = what
        if remedy is not None:
            self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Remedy: {self.remedy}."


class SegmentVersionError(SegmentError):
    """The segment has a format that this release does not read."""

    remedy = "read it with the release of otel-trading that wrote it"


class SegmentTruncatedError(SegmentError):
    """The file is shorter than the segment in it."""

    remedy = "copy the file again, whole; what was cut off is gone"


class SegmentForeignError(SegmentError):
    """The file is no segment, or not this user's."""

    remedy = "name a file that ends in .seg in the directory of the process that records"


class SegmentDamagedError(SegmentError):
    """The file says that it is a segment, but what it says of itself can not be."""

    remedy = "remove the file; the program makes a new one when it starts"


class SegmentSpaceError(SegmentError):
    """There is no room for a segment."""

    remedy = (
        "free some space there, name another directory with OTEL_TRADING_DIR, or make the rings smaller (ring.slots)"
    )


class SegmentDirectoryError(SegmentError):
    """The directory of the segments can not be made, or others could tamper with what is in it."""

    remedy = "name a directory of your own with OTEL_TRADING_DIR"


class SegmentNotFoundError(SegmentError):
    """There is no such segment."""

    remedy = "start the program that records, or look in the directory that its OTEL_TRADING_DIR names"


class ControlError(OtelTradingError):
    """A steering command that the control page does not take."""
