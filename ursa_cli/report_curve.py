"""The throughput curve of a run, thinned as it grows."""

from __future__ import annotations

MOST_POINTS = 600


class Curve:
    """Points (seconds since the start, bytes uploaded), at most ``MOST_POINTS``; the first and the last are kept."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self._apart_s = 0.0

    def add(self, at_s: float, bytes_uploaded: int) -> None:
        """A point. One that goes back in time is a clock's mistake and is dropped, as is one that tells nothing new."""
        points, point = self.points, (round(at_s, 2), bytes_uploaded)
        if points and (point[0] < points[-1][0] or point == points[-1]):
            return
        if len(points) > 1 and point[0] - points[-2][0] < self._apart_s:
            points[-1] = point
            return
        points.append(point)
        if len(points) > MOST_POINTS:
            self._thin()

    def _thin(self) -> None:
        last = self.points[-1]
        self.points = [*self.points[:-1:2], last]
        self._apart_s = 2 * (last[0] - self.points[0][0]) / MOST_POINTS
