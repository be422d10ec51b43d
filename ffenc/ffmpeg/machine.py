"""Facts about this machine."""

from __future__ import annotations

import contextlib
import os
import platform
import re

# Environment variables that select a driver's libraries and devices.
_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBVA_DRIVERS_PATH",
    "LIBVA_DRIVER_NAME",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "ONEVPL_PRIORITY_PATH",
)
_DEVICES = {
    "/dev": re.compile(r"nvidia|nvhost|video|mpp_service$|dxg$"),
    "/dev/dri": re.compile(""),
}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def file_identity(path: str) -> list[str | int]:
    """Return values that change when a file is replaced: real path, size and times of change in ns."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)  # noqa: PTH116 - one system call
    except OSError:
        return [real, -1, -1, -1]
    return [real, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def machine_facts() -> list[str | int]:
    """Return values that change when a driver or a shared library is installed, removed or replaced.

    They cover the processor and kernel, the linker's list of libraries (a distribution's ffmpeg stays the
    same file when its libx265 is upgraded), video devices and whether this user may open them, and the
    driver's environment variables.
    """
    facts: list[str | int] = [platform.machine(), platform.release(), cores()]
    facts += file_identity("/etc/ld.so.cache") + file_identity("/proc/driver/nvidia/version")
    for folder, names in _DEVICES.items():
        with contextlib.suppress(OSError):
            for name in sorted(filter(names.match, os.listdir(folder))):  # noqa: PTH208 - names suffice
                device = f"{folder}/{name}"
                facts.append(f"{device}{'' if os.access(device, os.R_OK | os.W_OK) else ' denied'}")
    return facts + [f"{name}={os.environ.get(name, '')}" for name in _ENVIRONMENT]
