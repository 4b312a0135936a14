"""Pieces for programs that keep OpenTelemetry's own SDK: sampler, span processor, ids, propagator, resource detector.

Loading this package loads nothing; each piece is a module of its own, with an entry point.
"""
