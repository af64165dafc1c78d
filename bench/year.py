"""A simulated year of one deployment with the default policy: what it stores, beside the same year without retention.

Usage: python3 year.py JSON: {"churn": "busy" or "measured", "days": N, "size": bytes}. PYTHONPATH names test/guard,
GUARD_ENVIRONMENTS as its tests have it. Prints JSON: a list of weeks (simulated.py there says what is in one). Ends
with an error where an archive stayed or went that shouldn't have, or doesn't hold what was stored."""

import dataclasses
import json
import sys

from parts import ENVIRONMENTS, Deployment
from simulated import BUSY, MEASURED, Year


def main(churn: str, days: int, size: int) -> None:
    year = Year(Deployment(list(ENVIRONMENTS)[-1]), {"busy": BUSY, "measured": MEASURED}[churn], size=size)
    for week in range(days // 7):
        year.go_on(7)
        year.retain()
        print(f"{churn}, week {week + 1}: {year.weeks[-1]}", file=sys.stderr)
        if week % 4 == 3:
            look(year, {name[:11]: name for name in year.held}.values())  # one of each month
    look(year, year.held)
    print(json.dumps([dataclasses.asdict(week) for week in year.weeks]))


def look(year: Year, names) -> None:
    """End where the wrong archives are there, or one of these doesn't hold what was stored."""
    there, expected = year.listed(), year.expected()
    if there != expected:
        sys.exit(f"these should have gone, or stayed: {sorted(there ^ expected)}")
    if wrong := year.wrong(names):
        sys.exit(f"these don't hold what was stored: {wrong}")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
