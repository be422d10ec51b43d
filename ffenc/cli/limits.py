"""Check limits on processes and threads before a library waits forever for a thread that cannot start."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from ffenc.errors import ToolchainError
from ffenc.ffmpeg.machine import cores

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_PLENTY = 8192  # limits above this need no check
_CONTAINER = Path("/sys/fs/cgroup/pids.max")


def check_threads() -> None:
    """Check that as many threads can be started as a command may need.

    Arrow and OpenBLAS start one thread per core, Arrow eight more for reading; ffenc starts some itself.

    Raises:
        ToolchainError: the limit is too low.
    """
    if _limit() >= _PLENTY:
        return
    needed = 3 * cores() + 24
    done = threading.Event()
    started = 0
    try:
        while started < needed:
            threading.Thread(target=done.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        raise ToolchainError(
            f"only {started} of {needed} threads can be started: end other programs, or raise the limit on "
            "processes and threads (ulimit -u, or the container's)"
        ) from None
    finally:
        done.set()


def _limit() -> float:
    """Return the lowest limit on processes and threads."""
    limit = float("inf")
    if resource is not None and hasattr(resource, "RLIMIT_NPROC"):
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        limit = limit if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):  # not in a container, or "max": no limit
        limit = min(limit, int(_CONTAINER.read_text(encoding="ascii")))
    return limit
