"""Which results no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

FILE = "pareto_front.json"  # of a search, beside its runs


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points (n, objectives) that no other point beats; smaller is better in every objective.

    A point beats another where it is nowhere worse and somewhere better; of equal points none beats the other. Values
    count to nine decimals: means of the same counts may differ in their last bit.
    """
    rounded = [[round(value, 9) for value in point] for point in points]
    return [i for i, point in enumerate(rounded) if not any(_beats(other, point) for other in rounded)]


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)
