"""Fixtures that several of the integration tests share."""

from exporting import segment, start

__all__ = ["segment", "start"]
