"""A line over days as an inline SVG: no script, no file of its own, colours of the page. Pure."""

from __future__ import annotations

import datetime
import html

WIDTH, HEIGHT, EDGE = 320, 80, 4


def chart(name: str, by_day: dict[datetime.date, float], words: str) -> str:
    """Values by their days, oldest first; at least two. `words` say to who can't see it what it shows."""
    days = list(by_day)
    span = max((days[-1] - days[0]).days, 1)
    top = max(*by_day.values(), 0) or 1

    def point(day: datetime.date) -> str:
        x = EDGE + (WIDTH - 2 * EDGE) * (day - days[0]).days / span
        # From nought: a growth of a hundredth must not look like a doubling.
        y = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * max(by_day[day], 0) / top
        return f"{x:.1f},{y:.1f}"

    points = " ".join(map(point, days))
    ground = HEIGHT - EDGE
    return (
        f'<svg class="{html.escape(name)}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(words)}">'
        f'<polygon points="{EDGE},{ground} {points} {WIDTH - EDGE},{ground}"/>'
        f'<polyline points="{points}"/></svg>'
    )
