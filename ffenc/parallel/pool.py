"""Run units of work at once; the first failure stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ffenc.arguments import check_number
from ffenc.errors import Cancelled
from ffenc.ffmpeg.machine import cores

Unit = TypeVar("Unit")
Result = TypeVar("Result")

MAX_WORKERS = 16


def share_cores(units: int, workers: int | None, threads: int | None) -> tuple[int, int | None]:
    """Choose how many units run at once and how many threads each may use.

    Several encoders with one thread each do more than one encoder with all of them. So there are as many
    workers as cores, up to 16, and the cores are divided among them.

    Args:
        units: number of units.
        workers, threads: the requested numbers; None: not requested.

    Returns:
        Number of units at once, and of threads for each; None: a single unit, whose encoder selects its own.

    Raises:
        ConfigError: not a whole number of 1 or more.
    """
    check_number("workers", workers)
    check_number("encoder_threads", threads)
    chosen = max(1, min(units, workers or min(cores(), MAX_WORKERS)))
    if threads is None and chosen > 1:
        threads = max(1, cores() // chosen)
    return chosen, threads


def even_rounds(units: int, workers: int) -> int:
    """Choose how many units of about the same size run at once, so that the last ones keep the cores busy.

    Three units in rounds of two leave the third alone on a machine that it does not fill.

    Args:
        units: number of units.
        workers: number of units that fill the machine.

    Returns:
        ``workers``, or up to twice as many.
    """
    full = (at_once for at_once in range(workers, 2 * workers) if not 0 < units % at_once < workers)
    return next(full, workers)


def run_units(
    units: Iterable[Unit],
    work: Callable[[Unit], Result],
    *,
    threads: int,
    stop: Callable[[], None],
) -> Iterator[tuple[Unit, Result]]:
    """Yield each unit with its result, in the order of completion.

    Args:
        units: taken one by one as threads become free.
        work: called in a thread for each unit.
        threads: number of units at once.
        stop: ends running work soon; called when a unit fails or the caller stops.

    Raises:
        Exception: the first exception of a unit, after all running work has ended.
    """
    waiting = iter(units)
    running: dict[Future[Result], Unit] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="ffenc") as pool:
        try:
            while True:
                for unit in waiting:
                    running[pool.submit(work, unit)] = unit
                    if len(running) >= threads:
                        break
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                failures = [error for future in done if (error := future.exception()) is not None]
                if failures:
                    raise next((e for e in failures if not isinstance(e, Cancelled)), failures[0])
                for future in done:
                    yield running.pop(future), future.result()
        except BaseException:
            stop()
            raise
