"""Process many files of a store, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

FETCH_THREADS = 8  # number of files that are fetched at once


def for_all(places: Iterable[str], work: Callable[[str], object], *, threads: int) -> None:
    """Call a function for each file; an error or Ctrl-C skips those that have not started.

    Args:
        places: paths of the files.
        work: called with each path, from any thread.
        threads: number of files at once.
    """
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work, place) for place in places]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
