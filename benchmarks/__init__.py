"""Likra beside the usual alternatives: ``python -m benchmarks.scoring``, ``.training``."""
