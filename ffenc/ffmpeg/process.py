"""Run one FFmpeg program: feed it, drain it, end it with its parent, and tell what it said."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO

from msgspec import Struct, field

from ffenc.errors import FfmpegError
from ffenc.ffmpeg.launch import (
    Cancellation,
    Share,
    begin,
    has_ended,
    has_finished,
    kill,
    running_wait,
    start,
    starts,
)
from ffenc.ffmpeg.pipes import readable, set_pipe_size, splice, writable
from ffenc.storage.mirror import held

Buffer = bytes | bytearray | memoryview
# An encoder that neither takes a byte nor ends in this time hangs (a driver that does not answer).
STALL_SECONDS = 300.0
PIPE_BYTES = 1 << 20  # a pipe holds no more
_TAIL_LINES = 40
_KILLS = (-signal.SIGKILL, -signal.SIGTERM)  # from outside
# Words of FFmpeg, of its libraries and of C++ where the system gives no memory, thread or open file.
_LACKING = re.compile(
    r"Cannot allocate memory|out of memory|memory allocation (error|failed)|bad_alloc|"
    r"(failed|unable) to allocate|malloc of size \d+ failed|could not allocate|"
    r"pthread_create|failed to map segment|Too many open files",
    re.I,
)
_PROGRESS = re.compile(
    r"(frame|fps|stream_\S+|bitrate|total_size|out_time\S*|dup_frames|drop_frames|speed|progress)=(.*)"
)
# "[png @ 0x55d0] [error] text", with level+ in -loglevel
_FAULT = re.compile(r"^(\[[^\]]+\] )*\[(error|fatal|panic)\] ")
_inputs: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()  # of programs that are fed


class Log(Struct):
    """What a program wrote to standard error.

    Attributes:
        lines: its last lines, without progress reports.
        faults: lines at error level, which FFmpeg may write and still exit with 0.
        head: its first lines, where encoders name their version.
    """

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    faults: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.lines.append(line)
        if len(self.head) < _TAIL_LINES:
            self.head.append(line)
        if _FAULT.match(line) and len(self.faults) < _TAIL_LINES:
            self.faults.append(line)


class FfmpegProcess:
    """One running program whose standard input is fed and whose outputs are drained.

    Use as a context manager: leaving it early kills the program. :meth:`write` raises nothing of its own
    when the program has died; :meth:`finish` does, with the reason.

    Args:
        command: the argument list.
        on_frames: called with the number of frames encoded so far, from another thread.
        on_output: called with each piece of standard output, from another thread.
        pull: standard output is taken with :meth:`read_into`; it waits while nobody does.
        cancellation: who may end it.
        stall_seconds: how long it may take no input, give no output that is waited for, or not end after
            its last input.
        progress_seconds: how often ``on_frames`` is called.
        niceness: how much lower than this process's its priority is, 0..19: all its threads have it from
            the start.
        cpus: the processors its threads may run on; None: those of this process.
        pipe_bytes: how much of its input may wait in the pipe, where the system lets that be chosen.
        inputs: files that it reads and the command does not name.

    Raises:
        ToolchainError: the program cannot be started, or this system cannot bind it to processors.
        ConfigError: a niceness out of range, or a processor that is not there.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        on_frames: Callable[[int], None] | None = None,
        on_output: Callable[[bytes], None] | None = None,
        pull: bool = False,
        cancellation: Cancellation | None = None,
        stall_seconds: float = STALL_SECONDS,
        progress_seconds: float = 0.5,
        niceness: int = 0,
        cpus: Sequence[int] | None = None,
        pipe_bytes: int = PIPE_BYTES,
        inputs: Sequence[Path] = (),
    ) -> None:
        share = Share(niceness, None if cpus is None else frozenset(cpus))
        share.check()
        progress = ["-nostats", "-stats_period", f"{progress_seconds:g}", "-progress", "pipe:2"]
        self.command = [command[0], *progress, *command[1:]]
        self.log = Log()
        self._on_frames = on_frames
        self._cancellation = cancellation or Cancellation()
        self._cancellation.check()
        self._stall_seconds = stall_seconds
        self._stalled = False
        stdout = pull or on_output is not None
        # A remote file that it reads is here, and stays, until it ends.
        self._inputs = contextlib.ExitStack()
        self._inputs.enter_context(held(*_files_read(command), *inputs))
        try:
            self._process = start(self.command, self._cancellation, stdin=True, stdout=stdout, share=share)
        except BaseException:
            self._inputs.close()
            raise
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        self._pulled = self._process.stdout if pull else None
        _inputs.add(self._stdin)
        for pipe in (self._stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, ImportError):
                    set_pipe_size(pipe.fileno(), pipe_bytes if pipe is self._stdin else PIPE_BYTES)
        os.set_blocking(self._stdin.fileno(), False)
        try:
            self._drains = [_drain(self._process.stderr, self._read_log)]
            if on_output is not None:
                self._drains.append(_drain(self._process.stdout, lambda pipe: _read_output(pipe, on_output)))
        except BaseException:
            # A signal may come while a thread that reads begins: its pipe is its own to close.
            self._close_stdin()
            kill(self._process)
            self._cancellation.remove(self._process)
            self._inputs.close()
            raise

    @property
    def pid(self) -> int:
        """The program's process number."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def __enter__(self) -> FfmpegProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_stdin()
        if self._process.poll() is None:
            kill(self._process)
        self._end()

    def write(self, data: Buffer) -> bool:
        """Give it bytes; waits while it is busy.

        Returns:
            False when it takes no more, because it has ended or hangs: :meth:`finish` says why.
        """
        return self._give(data, os.write)

    def lend(self, data: Buffer) -> bool:
        """Give it bytes without copying them: it reads this memory itself, when it comes to it.

        Until :data:`PIPE_BYTES` more have been given, or it has ended, they have to stay as they are. Where
        the system or the buffer does not allow it they are copied.

        Returns:
            as :meth:`write`.
        """
        return self._give(data, splice)

    def _give(self, data: Buffer, send: Callable[[int, memoryview], int]) -> bool:
        view = memoryview(data).cast("B")
        try:
            descriptor = self._stdin.fileno()
        except ValueError:  # closed by whoever ended it
            return False
        while view:
            try:
                view = view[send(descriptor, view) :]
            except BlockingIOError:
                if not running_wait(lambda step: writable(descriptor, step), self._stall_seconds):
                    self._stalled = True
                    self._process.kill()
                    return False
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EBADF):
                    raise
                return False
        return True

    def read_into(self, buffer: Buffer) -> int:
        """Fill a buffer from its standard output; waits while there is nothing.

        Returns:
            how many bytes were read: fewer when it has ended or hangs, and :meth:`finish` says why.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = self.read_some(view[done:], self._stall_seconds)
            if count is None:
                self._stalled = True
                self._process.kill()
                break
            if count == 0:
                break
            done += count
        return done

    def read_some(self, buffer: Buffer, timeout: float) -> int | None:
        """Read what is there of its standard output into a buffer; waits for the first byte.

        Returns:
            how many bytes were read: 0 when it has ended, and :meth:`finish` says why; None where nothing
            came in ``timeout`` seconds, and it runs on.
        """
        assert self._pulled is not None
        descriptor = self._pulled.fileno()
        if not running_wait(lambda step: readable(descriptor, step), timeout):
            return None
        return os.readv(descriptor, [buffer])

    def finish(self) -> Log:
        """Close its input, wait for its end, and check how it ended.

        Returns:
            what it said.

        Raises:
            FfmpegError: it failed, hung, or wrote an error line; the text holds command and last lines.
            Cancelled: it was ended from outside.
        """
        self._close_stdin()
        if not running_wait(lambda step: has_ended(self._process, step), self._stall_seconds):
            self._stalled = True
            kill(self._process)
        self._end()
        self._cancellation.check()
        code = self._code
        if self._stalled:
            raise self._error(f"ffmpeg hung: it did nothing for {self._stall_seconds:.0f} s and was killed")
        if any("No space left on device" in line for line in self.log.lines):
            raise self._error("the disk is full; free some space and run it again")
        if code in _KILLS:
            raise self._error("ffmpeg was killed")
        if code != 0:
            raise self._error("ffmpeg failed" if code > 0 else f"ffmpeg crashed with signal {-code}")
        if self.log.faults:
            raise self._error("ffmpeg reported an error and continued")
        return self.log

    def _error(self, reason: str) -> FfmpegError:
        said = list(self.log.lines)
        # Faults first reported tell the cause; the last lines may be only their echo.
        lines = [line for line in self.log.faults[:4] if line not in said[-8:]] + said[-8:]
        code = self._code
        unable = (code in _KILLS and not self._stalled) or _lacks_resources([*self.log.faults, *said])
        return FfmpegError(reason, command=self.command, returncode=code, stderr=lines, unable=unable)

    @property
    def _code(self) -> int:
        """How it ended; what was killed and does not end counts as killed."""
        code = self._process.returncode
        return -signal.SIGKILL if code is None else code

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _end(self) -> None:
        for thread in self._drains:
            # They end with the program, unless another process holds its outputs open: one that was forked
            # from this one in the moment of the start.
            running_wait(partial(has_finished, thread), self._stall_seconds)
        self._cancellation.remove(self._process)
        self._inputs.close()
        if self._pulled is not None:
            self._pulled.close()

    def _read_log(self, pipe: IO[bytes]) -> None:
        assert isinstance(pipe, io.RawIOBase)
        with io.BufferedReader(pipe) as lines:  # the pipe itself is read byte by byte to find a line's end
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                progress = _PROGRESS.fullmatch(line)
                if progress is None:
                    if line:
                        self.log.add(line)
                elif progress[1] == "frame" and self._on_frames is not None and progress[2].strip().isdigit():
                    self._on_frames(int(progress[2]))


def _lacks_resources(said: Iterable[str]) -> bool:
    """Whether a program says, before all else, that the system gave it no memory, thread or open file.

    A decoder that has met damage may ask for memory that nobody has: dav1d does in a third of damaged files.
    """
    for line in said:
        if _LACKING.search(line):
            return True
        if "Invalid data found" in line:
            return False
    return False


def _files_read(command: Sequence[str]) -> list[Path]:
    """The files that a command names as its inputs."""
    named = (word for flag, word in pairwise(command) if flag == "-i")
    return [Path(word.removeprefix("file:")) for word in named if word.startswith("file:")]


def _forked() -> None:
    """In a process forked from this one: a program's input does not end while a copy of it is open."""
    starts.cache_clear()
    for pipe in list(_inputs):
        with contextlib.suppress(OSError):
            pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _drain(pipe: IO[bytes] | None, read: Callable[[IO[bytes]], None]) -> threading.Thread:
    assert pipe is not None

    def run(pipe: IO[bytes] = pipe) -> None:
        with pipe:
            read(pipe)

    thread = threading.Thread(target=run, daemon=True)
    begin(thread)
    return thread


def _read_output(pipe: IO[bytes], on_output: Callable[[bytes], None]) -> None:
    while data := pipe.read(PIPE_BYTES):
        on_output(data)


def run_fed(
    command: Sequence[str],
    pieces: Iterable[Buffer],
    *,
    on_frames: Callable[[int], None] | None = None,
    on_output: Callable[[bytes], None] | None = None,
    cancellation: Cancellation | None = None,
    stall_seconds: float = STALL_SECONDS,
    inputs: Sequence[Path] = (),
) -> Log:
    """Run a program, feed it all pieces, and wait for its end; see :class:`FfmpegProcess`.

    Raises:
        FfmpegError: it failed. An error that ``pieces`` raises ends the program and is passed on.
    """
    with (
        # What a generator has opened is closed now, and not when an error's traceback is forgotten.
        contextlib.closing(pieces) if isinstance(pieces, Generator) else contextlib.nullcontext(),
        FfmpegProcess(
            command,
            on_frames=on_frames,
            on_output=on_output,
            cancellation=cancellation,
            stall_seconds=stall_seconds,
            inputs=inputs,
        ) as process,
    ):
        for piece in pieces:
            if not process.write(piece):
                break
        return process.finish()


def run_asked(command: Sequence[str], *, timeout: float = STALL_SECONDS) -> str:
    """Run a program that answers a question on standard output, and return the answer.

    Raises:
        ToolchainError: it cannot be started.
        FfmpegError: it failed or did not answer in ``timeout`` seconds.
    """
    cancellation = Cancellation()
    process = start(command, cancellation, stdin=False, stdout=True)
    answer, said = b"", f"no answer in {timeout:.0f} s".encode()

    def answered(seconds: float) -> bool:
        nonlocal answer, said
        try:
            answer, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    timed_out = False
    try:
        if not running_wait(answered, timeout):
            timed_out = True
            kill(process)
    finally:
        if process.poll() is None:
            kill(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    code = -signal.SIGKILL if process.returncode is None else process.returncode
    if code != 0:
        name = os.path.basename(command[0])  # noqa: PTH119 - a program name, not a path
        signalled = code < 0 and not timed_out
        killed = signalled and code in _KILLS
        lines = said.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        raise FfmpegError(
            f"{name} {'was killed' if killed else f'crashed with signal {-code}' if signalled else 'failed'}",
            command=command,
            returncode=code,
            stderr=lines,
            unable=killed or _lacks_resources(lines),
        )
    return answer.decode("utf-8", "replace")
