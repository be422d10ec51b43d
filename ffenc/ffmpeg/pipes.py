"""Pipes to a program: waiting, splicing of memory, size."""

from __future__ import annotations

import ctypes
import os
import select

from ffenc.ffmpeg.launch import libc

_F_SETPIPE_SZ = 1031
_SPLICE_F_NONBLOCK = 2


def writable(descriptor: int, seconds: float) -> bool:
    """Wait until a pipe accepts bytes, or its reader has closed it."""
    return _is_ready(descriptor, "POLLOUT", seconds)


def readable(descriptor: int, seconds: float) -> bool:
    """Wait until a pipe has bytes, or its writer has closed it."""
    return _is_ready(descriptor, "POLLIN", seconds)


def _is_ready(descriptor: int, event: str, seconds: float) -> bool:
    if not hasattr(select, "poll"):  # Windows
        inputs, outputs = ([], [descriptor]) if event == "POLLOUT" else ([descriptor], [])
        return any(select.select(inputs, outputs, [], seconds))
    # select refuses descriptors from 1024 on, and raises for one that another thread has closed.
    waiting = select.poll()
    waiting.register(descriptor, getattr(select, event))
    return bool(waiting.poll(seconds * 1000))


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


def splice(descriptor: int, view: memoryview) -> int:
    """Splice memory into a pipe without a copy (Linux), otherwise write it; return the number of bytes."""
    if libc is None or view.readonly:
        return os.write(descriptor, view)
    piece = _Piece(ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view))
    count = int(libc.vmsplice(descriptor, ctypes.byref(piece), 1, _SPLICE_F_NONBLOCK))
    # Sandboxes refuse vmsplice with errors of many kinds. If the pipe is full or closed, write fails as well.
    return os.write(descriptor, view) if count < 0 else count


def set_pipe_size(descriptor: int, size: int) -> None:
    """Set the size of a pipe if the system supports it (Linux): a larger one needs fewer context switches."""
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
