"""Make, find, attach and steer segments: the files in shared memory that the recorder writes.

A program that only records never needs this by name; ``configure`` does.  The format is in ``_native/segment.h``.
"""

from __future__ import annotations

from otel_trading.segment.control import Control
from otel_trading.segment.directory import default_directory, prepare_directory
from otel_trading.segment.files import FoundSegment, attach, segments
from otel_trading.segment.making import CreatedSegment, create
from otel_trading.segment.remains import release
from otel_trading.segment.resource import resource_json, service_name
from otel_trading.segment.shared import shared_file

__all__ = [
    "Control",
    "CreatedSegment",
    "FoundSegment",
    "attach",
    "create",
    "default_directory",
    "prepare_directory",
    "release",
    "resource_json",
    "segments",
    "service_name",
    "shared_file",
]
