"""Benchmarks a user runs on his own machine."""
