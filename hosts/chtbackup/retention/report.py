"""What the last run that was to remove something came to: `last-retention.json`, for whoever watches the server."""

from __future__ import annotations

import json
import time
from typing import Any

from chtbackup.base.text import plain
from chtbackup.repository.files import last_success, write


def remember(state: str, started: float, problems: list[str], done: dict[str, Any] | None) -> None:
    """Write it. `done` is what the run removed and freed (bytes), None where that was nothing. Raises OSError."""
    path, finished = f"{state}/last-retention.json", round(time.time())
    result = {
        "ok": not problems,
        "startedAt": round(started),
        "finishedAt": finished,
        "lastSuccessAt": last_success(path) if problems else finished,
        "problems": [plain(text) for text in problems],
        "removed": len(done["removed"]) if done else 0,
        "freed": done["freed"] if done else 0,
    }
    write(path, json.dumps(result, indent=2) + "\n", 0o640, 0)
