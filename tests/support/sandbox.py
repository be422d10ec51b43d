"""A sandbox whose kernel refuses a system call, as those of containers do."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

_CALLS = {
    "x86_64": {"flock": 73, "mmap": 9, "vmsplice": 278},
    "aarch64": {"flock": 32, "mmap": 222, "vmsplice": 75},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IS, _HAS_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF
_ERROR, _ALLOW = 0x00050000, 0x7FFF0000
_FLAGS = 16 + 3 * 8  # position of mmap's flags in struct seccomp_data
_MAP_SHARED = 1


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def without(call: str, error: int, act: Callable[[], _Result]) -> _Result:
    """Do something in a thread whose system call (of mmap: that of a shared file) fails with an error."""
    refusal = [(_RETURN, 0, 0, _ERROR | error)]
    if call == "mmap":
        refusal = [(_LOAD, 0, 0, _FLAGS), (_HAS_BITS, 0, 1, _MAP_SHARED), *refusal]
    rules = [(_LOAD, 0, 0, 0), (_IS, 0, len(refusal), _CALLS[platform.machine()][call]), *refusal]
    rules.append((_RETURN, 0, 0, _ALLOW))
    program = _Program(len(rules), b"".join(struct.pack("HBBI", *rule) for rule in rules))

    def run() -> _Result:
        libc = ctypes.CDLL(None, use_errno=True)
        number = ctypes.c_ulong
        for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _FILTER, ctypes.addressof(program))):
            if libc.prctl(words[0], number(words[1]), number(words[2]), number(0), number(0)):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return act()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()
