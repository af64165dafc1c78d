"""Several requests to a bucket at a time."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Any

THREADS = 8


def in_parallel(
    action: Callable[[Any], Any], items: Iterable[Any], on_end: Callable[[], None] | None = None
) -> list[Any]:
    """The results of an action on each item, in order. The first error ends it, as does a signal: what has begun is
    waited for then, and `on_end` is called before, to tell it."""
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)
    try:
        futures = [pool.submit(action, item) for item in items]
        return [future.result() for future in futures]
    except BaseException:
        if on_end is not None:
            on_end()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
