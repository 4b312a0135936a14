"""Fixtures that several of the unit tests share."""

from exporting import characters, segment, start
from keeping import keeping, make_keeping

__all__ = ["characters", "keeping", "make_keeping", "segment", "start"]
