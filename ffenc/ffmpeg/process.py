"""Run an FFmpeg program: feed its input, drain its outputs, end it with this process, report its errors."""

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
    end,
    has_ended,
    has_finished,
    is_script,
    kill,
    running_wait,
    start,
    starts,
)
from ffenc.ffmpeg.pipes import readable, set_pipe_size, splice, writable
from ffenc.storage.mirror import held

Buffer = bytes | bytearray | memoryview
# An encoder that neither accepts a byte nor ends in this time hangs (for example in a driver).
STALL_SECONDS = 300.0
PIPE_BYTES = 1 << 20  # greatest size of a pipe
_TAIL_LINES = 40
_KILLS = (-signal.SIGKILL, -signal.SIGTERM)  # signals from outside
_TOO_LARGE = -getattr(signal, "SIGXFSZ", 0) or None  # a limit of this process is reached; not on Windows
# Messages of FFmpeg, its libraries and C++ if the system gives no memory, thread or open file.
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
_LIBRARY_FAULT = re.compile(r"^(Svt|x265 ?)\[error\]")  # libraries that write to standard error themselves
_inputs: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()  # standard inputs of running programs


class Log(Struct):
    """What a program wrote to standard error.

    Attributes:
        lines: the last lines, without progress reports.
        faults: lines at error level, which FFmpeg may write and still exit with 0.
        head: the first lines, in which encoders name their version.
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
    """A running program whose standard input is fed and whose outputs are drained.

    Use it as a context manager: leaving it early kills the program. If the program has died, :meth:`write`
    returns False and :meth:`finish` raises the reason.

    Args:
        command: the argument list.
        on_frames: called with the number of frames encoded so far, from another thread.
        on_output: called with each piece of standard output, from another thread.
        on_line: called with each line that it writes to standard error, from another thread. The program then
            reports no progress, which could get into the middle of a line.
        pull: standard output is read with :meth:`read_into`; the program waits while it is not.
        cancellation: can stop the program from another thread.
        stall_seconds: the greatest time in which it accepts no input, gives no output that is waited for, or
            does not end after its last input.
        progress_seconds: interval of ``on_frames``.
        niceness: added to this process's niceness, 0..19, for all its threads from the start.
        cpus: the processors that its threads may run on; None: those of this process.
        pipe_bytes: size of its input pipe, if the system supports this.
        inputs: files that it reads and that the command does not name.

    Raises:
        ToolchainError: the program cannot be started, or this system cannot bind it to processors.
        ConfigError: a niceness out of range, or a processor that does not exist.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        on_frames: Callable[[int], None] | None = None,
        on_output: Callable[[bytes], None] | None = None,
        on_line: Callable[[str], None] | None = None,
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
        progress = (
            ["-stats_period", f"{progress_seconds:g}", "-progress", "pipe:2"] if on_line is None else []
        )
        self.command = [command[0], "-nostats", *progress, *command[1:]]
        self.log = Log()
        self._on_frames, self._on_line = on_frames, on_line
        self._cancellation = cancellation or Cancellation()
        self._cancellation.check()
        self._stall_seconds = stall_seconds
        self._stalled = False
        self._reading_error: BaseException | None = None
        self._lend = os.write if is_script(command[0]) else splice
        stdout = pull or on_output is not None
        # Remote files that it reads are local until it ends.
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
            self._drains = [self._drain(self._process.stderr, self._read_log)]
            if on_output is not None:
                read = partial(_read_output, on_output=on_output)
                self._drains.append(self._drain(self._process.stdout, read))
        except BaseException:
            # If a signal arrives while a reading thread starts, that thread closes its own pipe.
            self._close_stdin()
            kill(self._process)
            self._cancellation.remove(self._process)
            self._inputs.close()
            raise

    @property
    def pid(self) -> int:
        """Process ID of the program."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the program has ended."""
        return self._process.poll() is not None

    def __enter__(self) -> FfmpegProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_stdin()
        if self._process.poll() is None:
            kill(self._process)
        self._end()

    def write(self, data: Buffer) -> bool:
        """Write bytes to the program; wait while it is busy.

        Returns:
            False if it accepts no more, because it has ended or hangs: :meth:`finish` raises the reason.
        """
        return self._give(data, os.write)

    def lend(self, data: Buffer) -> bool:
        """Pass bytes to the program without copying them: it reads this memory itself, later.

        The memory must not change until :data:`PIPE_BYTES` more have been written, or the program has ended.
        If the system or the buffer does not support this, the bytes are copied; and if the program is a
        script, which may splice them into further pipes.

        Returns:
            As :meth:`write`.
        """
        return self._give(data, self._lend)

    def _give(self, data: Buffer, send: Callable[[int, memoryview], int]) -> bool:
        view = memoryview(data).cast("B")
        try:
            descriptor = self._stdin.fileno()
        except ValueError:  # closed by the thread that ended the program
            return False
        while view:
            try:
                view = view[send(descriptor, view) :]
            except BlockingIOError:
                if not running_wait(lambda step: writable(descriptor, step), self._stall_seconds):
                    self._stalled = True
                    end(self._process)
                    return False
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EBADF):
                    raise
                return False
        return True

    def read_into(self, buffer: Buffer) -> int:
        """Fill a buffer from the program's standard output; wait while there is none.

        Returns:
            Number of bytes read. If it is less than the buffer's size, the program has ended or hangs, and
            :meth:`finish` raises the reason.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = self.read_some(view[done:], self._stall_seconds)
            if count is None:
                self._stalled = True
                end(self._process)
                break
            if count == 0:
                break
            done += count
        return done

    def read_some(self, buffer: Buffer, timeout: float) -> int | None:
        """Read the available bytes of the program's standard output; wait for the first one.

        Returns:
            Number of bytes read. 0: the program has ended, and :meth:`finish` raises the reason. None:
            nothing arrived within ``timeout`` seconds, and the program is running.
        """
        assert self._pulled is not None
        descriptor = self._pulled.fileno()
        if not running_wait(lambda step: readable(descriptor, step), timeout):
            return None
        return os.readv(descriptor, [buffer])

    def finish(self) -> Log:
        """Close the program's input, wait for its end, and check its result.

        Returns:
            What it wrote to standard error.

        Raises:
            FfmpegError: it failed, hung, or wrote an error line; the text contains command and last lines.
            Cancelled: it was ended by ``cancellation``.
            Exception: one that ``on_frames`` or ``on_output`` raised.
        """
        self._close_stdin()
        if not running_wait(lambda step: has_ended(self._process, step), self._stall_seconds):
            self._stalled = True
            kill(self._process)
        self._end()
        self._cancellation.check()
        if self._reading_error is not None:  # the program failed because nobody read its output
            raise self._reading_error
        code = self._code
        if self._stalled:
            raise self._error(f"ffmpeg hung: it did nothing for {self._stall_seconds:.0f} s and was killed")
        if any("No space left on device" in line for line in self.log.lines):
            raise self._error("the disk is full; free some space and run it again")
        if code in _KILLS:
            raise self._error("ffmpeg was killed")
        if code == _TOO_LARGE:
            raise self._error("a file became larger than this process may write; raise the limit (ulimit -f)")
        if code != 0:
            raise self._error("ffmpeg failed" if code > 0 else f"ffmpeg crashed with signal {-code}")
        if self.log.faults:
            raise self._error("ffmpeg reported an error and continued")
        return self.log

    def _error(self, reason: str) -> FfmpegError:
        said = list(self.log.lines)
        # The first errors name the cause; the last lines may only be consequences.
        own = [line for line in said if _LIBRARY_FAULT.match(line)]
        lines = [line for line in [*own[:2], *self.log.faults[:4]] if line not in said[-8:]] + said[-8:]
        code = self._code
        unable = (code in _KILLS and not self._stalled) or _lacks_resources([*self.log.faults, *said])
        return FfmpegError(reason, command=self.command, returncode=code, stderr=lines, unable=unable)

    @property
    def _code(self) -> int:
        """Return the exit status; a killed program that does not end counts as killed."""
        code = self._process.returncode
        return -signal.SIGKILL if code is None else code

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _end(self) -> None:
        for thread in self._drains:
            # They end with the program, unless another process holds its outputs open: one that was forked
            # from this process at the moment of the start.
            running_wait(partial(has_finished, thread), self._stall_seconds)
        self._cancellation.remove(self._process)
        self._inputs.close()
        if self._pulled is not None:
            self._pulled.close()

    def _drain(self, pipe: IO[bytes] | None, read: Callable[[IO[bytes]], None]) -> threading.Thread:
        assert pipe is not None

        def run(pipe: IO[bytes] = pipe) -> None:
            with pipe:
                try:
                    read(pipe)
                except BaseException as error:
                    self._reading_error = self._reading_error or error

        thread = threading.Thread(target=run, daemon=True)
        begin(thread)
        return thread

    def _read_log(self, pipe: IO[bytes]) -> None:
        assert isinstance(pipe, io.RawIOBase)
        with io.BufferedReader(pipe) as lines:  # readline on the unbuffered pipe would read single bytes
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                progress = _PROGRESS.fullmatch(line)
                if progress is None:
                    if line:
                        self.log.add(line)
                        if self._on_line is not None:
                            self._on_line(line)
                elif progress[1] == "frame" and self._on_frames is not None and progress[2].strip().isdigit():
                    self._on_frames(int(progress[2]))


def _lacks_resources(said: Iterable[str]) -> bool:
    """Return whether a program's first error is that the system gave it no memory, thread or open file.

    After damage, a decoder may request an impossible amount of memory: dav1d does so for a third of damaged
    files.
    """
    for line in said:
        if _LACKING.search(line):
            return True
        if "Invalid data found" in line:
            return False
    return False


def _files_read(command: Sequence[str]) -> list[Path]:
    """Return the files that a command names as inputs."""
    named = (word for flag, word in pairwise(command) if flag == "-i")
    return [Path(word.removeprefix("file:")) for word in named if word.startswith("file:")]


def _forked() -> None:
    """Close other programs' inputs in a forked process: an input ends only when all its copies are closed."""
    starts.cache_clear()
    for pipe in list(_inputs):
        with contextlib.suppress(OSError):
            pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _read_output(pipe: IO[bytes], on_output: Callable[[bytes], None]) -> None:
    while data := pipe.read(PIPE_BYTES):
        on_output(data)


def run_fed(
    command: Sequence[str],
    pieces: Iterable[Buffer],
    *,
    on_frames: Callable[[int], None] | None = None,
    on_output: Callable[[bytes], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    cancellation: Cancellation | None = None,
    stall_seconds: float = STALL_SECONDS,
    inputs: Sequence[Path] = (),
    lend: bool = False,
) -> Log:
    """Run a program, feed it all pieces, and wait for its end; other arguments as for :class:`FfmpegProcess`.

    Args:
        command: the command line.
        pieces: what the program reads.
        lend: whether the program may read the memory of the pieces itself, see :meth:`FfmpegProcess.lend`.
            Their memory must not be used again for other contents.

    Raises:
        FfmpegError: it failed. An exception of ``pieces`` ends the program and is passed on.
    """
    lent, size = deque[memoryview](), 0
    with (
        # Closes what a generator has opened now, not when an error's traceback is freed.
        contextlib.closing(pieces) if isinstance(pieces, Generator) else contextlib.nullcontext(),
        FfmpegProcess(
            command,
            on_frames=on_frames,
            on_output=on_output,
            on_line=on_line,
            cancellation=cancellation,
            stall_seconds=stall_seconds,
            inputs=inputs,
        ) as process,
    ):
        give = process.lend if lend else process.write
        for piece in pieces:
            if not give(piece):
                break
            if lend:
                lent.append(memoryview(piece))
                size += lent[-1].nbytes
                while size - lent[0].nbytes >= PIPE_BYTES:
                    size -= lent.popleft().nbytes
        return process.finish()


def run_asked(command: Sequence[str], *, timeout: float = STALL_SECONDS) -> str:
    """Run a program that answers a question on standard output, and return the answer.

    Raises:
        ToolchainError: it cannot be started.
        FfmpegError: it failed or did not answer within ``timeout`` seconds.
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
