"""Memory of decoded images, kept for the next ones."""

from __future__ import annotations

import sys
from contextlib import suppress

# mallopt(3); glibc takes no larger threshold for mmap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST, _KEPT = 32 << 20, 1 << 30


def keep_freed() -> None:
    """Have glibc keep what is freed until the process ends.

    It gives large blocks back to the system, and gets them again page by page: hundreds of page faults for
    each image that is decoded, which took a quarter of the time of ``verify --deep``. Other C libraries have
    no such setting.
    """
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - only for commands that take longer than that

    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
