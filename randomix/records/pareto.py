"""Which results no other one beats."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points (n, objectives) that no other point beats; smaller is better in every objective.

    A point beats another where it is nowhere worse and somewhere better; of equal points none beats the other.
    """
    return [i for i, point in enumerate(points) if not any(_beats(other, point) for other in points)]


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)
