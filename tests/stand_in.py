"""A small ffmpeg that answers as machines with other hardware do; the rest a real one does."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.conftest import newest_program

# Of other encoders the real one does all: a shell starts it ten times as fast as Python.
_SHELL = """#!/bin/bash
for word; do case $word in {words}) exec {python} -IS -c {script} "$@";; esac; done
exec {real} "$@"
"""
# What each behaviour does when the encoder is asked for.
_SCRIPT = """
import os, sys

real, encoders, state = {real!r}, {encoders!r}, {state!r}
arguments = sys.argv[1:]
if "-encoders" in arguments:
    import subprocess
    sys.stdout.write(subprocess.run([real, *arguments], capture_output=True, text=True).stdout)
    for name in encoders:
        print(f" V....D {{name:<20}} stand-in (codec h264)")
    sys.exit(0)
for name, behaviour in encoders.items():
    if f"encoder={{name}}" in arguments:
        sys.exit(0)  # publishes nothing
    if name not in arguments:
        continue
    if behaviour == "driver":  # works while the driver is there
        behaviour = "libx264" if os.path.exists(state) else "Cannot load libcuda.so.1"
    if behaviour == "hang":
        sys.stdin.buffer.read()
        while True:
            os.read(os.pipe()[0], 1)
    if not behaviour.startswith("lib"):
        print(f"[{{name}} @ 0x1] [error] {{behaviour}}", file=sys.stderr)
        print("[error] Error while opening encoder for output stream #0:0", file=sys.stderr)
        sys.exit(1)
    sticks = " sticks " in behaviour
    encoder, _, last = behaviour.replace(" sticks ", " until ").partition(" until ")
    arguments[arguments.index(name)] = encoder
    for option in ("-rc", "-qp", "-vaapi_device", "-init_hw_device"):
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + 2]
    if last:
        import subprocess
        child = subprocess.Popen([real, *arguments], stdin=subprocess.PIPE)
        left = int(last)
        while left and (data := sys.stdin.buffer.read(min(left, 65536))):
            child.stdin.write(data)
            left -= len(data)
        if not left:
            if sticks:
                while True:
                    os.read(os.pipe()[0], 1)
            child.kill()
            print(f"[{{name}} @ 0x1] [error] EncodePicture failed: device lost", file=sys.stderr)
            sys.exit(1)
        child.stdin.close()
        sys.exit(child.wait())
os.execv(real, [real, *arguments])
"""


def stand_in_ffmpeg(folder: Path, **encoders: str) -> str:
    """Write the program and return its path.

    Args:
        folder: where; a file ``driver`` in it is the driver of encoders that say ``driver``.
        encoders: encoder -> behaviour: ``lib...`` works as this one does; ``lib... until N`` loses its device
            after N bytes of input; ``lib... sticks N`` takes no more then and never ends; ``driver``: works
            as libx264 while the driver is there; ``hang``: takes its input and never ends; anything else is
            the message it fails with.
    """
    folder.mkdir(exist_ok=True)
    path = folder / "ffmpeg"
    real, state = newest_program("ffmpeg"), str(folder / "driver")
    script = _SCRIPT.format(real=real, encoders=encoders, state=state)
    words = "|".join(("-encoders", *encoders, *(f"encoder={name}" for name in encoders)))
    path.write_text(
        _SHELL.format(
            words=words,
            python=shlex.quote(sys.executable),
            script=shlex.quote(script),
            real=shlex.quote(real),
        )
    )
    path.chmod(0o755)
    return str(path)


V4L2_STAND_IN = """#!{python} -IS
import os, sys
real, swap = {real!r}, {swap!r}
arguments = sys.argv[1:]
if "v4l2" in arguments:
    first, last = arguments.index("-f"), arguments.index("-i") + 2
    print({said!r}, file=sys.stderr, flush=True)
    arguments[first:last] = swap
os.execv(real, [real, *arguments])
"""
