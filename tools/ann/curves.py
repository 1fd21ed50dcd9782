"""From measured points to figures: percentiles over rounds, and the speed at a recall between two points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

TARGETS = (0.90, 0.95, 0.99)
MISSED_MIN = 1e-5  # stands for recall 1 on the logarithmic axis: half a miss in 5,000 queries


def speed_at(points: Sequence[tuple[float, float]], target: float) -> float | None:
    """Return queries per second at a recall, from points (recall, queries per second); None when not reached.

    Between the nearest points below and above, the logarithm of speed is a line over the logarithm of 1 - recall.
    Where already the smallest ef exceeds the target, its speed is returned: a measured one, not extrapolated.
    """
    above = [point for point in points if point[0] >= target]
    if not above:
        return None
    fastest = max(speed for _, speed in above)
    below = [point for point in points if point[0] < target]
    if not below:
        return fastest
    low, high = max(below), min(above, key=lambda point: (point[0], -point[1]))
    left, right, wanted = (math.log(max(1 - recall, MISSED_MIN)) for recall in (low[0], high[0], target))
    if left == right:
        return fastest
    share = (wanted - left) / (right - left)
    between = math.exp(math.log(low[1]) + share * (math.log(high[1]) - math.log(low[1])))
    return max(between, fastest)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def middle(rounds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the median of every figure over the rounds; None where a round could not measure it."""
    figures: dict[str, float | None] = {}
    for name in rounds[0]:
        values = [figure for figure in (one[name] for one in rounds) if figure is not None]
        figures[name] = median(values) if len(values) == len(rounds) else None
    return figures
