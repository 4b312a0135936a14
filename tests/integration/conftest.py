"""Fixtures that several of the integration tests share."""

from exporting import characters, segment, start

__all__ = ["characters", "segment", "start"]
