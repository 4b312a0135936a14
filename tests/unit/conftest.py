"""Fixtures that several of the unit tests share."""

from exporting import characters, segment, start

__all__ = ["characters", "segment", "start"]
