"""What is done with the pipes to a program: waiting for them, memory that is lent to them, their size."""

from __future__ import annotations

import ctypes
import errno
import os
import select

from ffenc.ffmpeg.launch import libc

_F_SETPIPE_SZ = 1031


def writable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([], [descriptor], [], seconds)[1])


def readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


def splice(descriptor: int, view: memoryview) -> int:
    """Put memory into a pipe as it is (Linux), and return how many bytes of it; else copy it there."""
    if libc is None or view.readonly:
        return os.write(descriptor, view)
    piece = _Piece(ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view))
    count = int(libc.vmsplice(descriptor, ctypes.byref(piece), 1, 0))
    if count >= 0:
        return count
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):  # kernels of sandboxes
        return os.write(descriptor, view)
    raise OSError(code, os.strerror(code))


def set_pipe_size(descriptor: int, size: int) -> None:
    """Ask for a pipe of another size where the system has that (Linux): a larger one switches less."""
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
