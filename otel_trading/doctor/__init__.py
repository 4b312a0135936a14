"""Checks of everything that recording and exporting need, each with what to do where it fails.

A module a concern; each has ``checks(situation)``, which gives ``Check``s and may take seconds.
"""
