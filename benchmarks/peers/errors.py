"""The one error of the comparison: something outside is missing or does not do what it was asked."""

from __future__ import annotations


class BenchmarkError(Exception):
    """One line: where, what is wrong, what would be right."""
