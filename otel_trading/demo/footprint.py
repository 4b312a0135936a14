"""How much memory this process uses, as far as the system tells."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def private_bytes() -> int:
    """Resident memory without what is shared with others (a segment is counted by itself).

    From ``/proc``; elsewhere the highest resident size so far, which is too high rather than too low.
    """
    try:
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return 1024 * (_kilobytes(fields["VmRSS"]) - _kilobytes(fields.get("RssShmem", "0 kB")))
    except (OSError, KeyError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0])
