"""Numbers as they are written into a page: short, and never -0.0."""

from collections.abc import Iterable


def rounded(values: Iterable[float], digits: int = 4) -> list[float]:
    """Each value with so many digits after the point."""
    return [round(float(value), digits) + 0.0 for value in values]  # + 0.0: no -0.0


def significant(values: Iterable[float], digits: int = 3) -> list[float]:
    """Each value with so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values]
