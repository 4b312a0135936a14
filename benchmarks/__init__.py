"""Measurements against other people's tools; ``otel-trading bench`` measures our own."""
