"""The one place that holds the version: packaging, ``__version__`` and the segment's resource all read it from here."""

__version__ = "0.1.0"
