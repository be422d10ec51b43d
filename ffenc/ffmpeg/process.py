"""Run one FFmpeg program: feed it, drain it, end it with its parent, and tell what it said."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import queue
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import IO

from ffenc.config.limits import MOST_CPUS
from ffenc.errors import Cancelled, ConfigError, FfmpegError, ToolchainError
from ffenc.storage.mirror import held

_log = logging.getLogger("ffenc")

Buffer = bytes | bytearray | memoryview

# An encoder that neither takes a byte nor ends in this time hangs (a driver that does not answer).
STALL_SECONDS = 300.0
# A program that was killed and is still there waits in a driver or for a network file system.
_KILLED_SECONDS = 10.0
_MORE_PROCESSES = "end other programs, or raise the limit on processes and threads (ulimit -u)"
_STEP_SECONDS = 0.5  # of waiting: a stand-still of the whole machine counts as one
PIPE_BYTES = 1 << 20  # a pipe holds no more
_F_SETPIPE_SZ = 1031
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 40
_KILLS = (-signal.SIGKILL, -signal.SIGTERM)  # from outside

_PROGRESS = re.compile(
    r"(frame|fps|stream_\S+|bitrate|total_size|out_time\S*|dup_frames|drop_frames|speed|progress)=(.*)"
)
# "[png @ 0x55d0] [error] text", with level+ in -loglevel
_FAULT = re.compile(r"^(\[[^\]]+\] )*\[(error|fatal|panic)\] ")

_inputs: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()  # of programs that are fed

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Cancellation:
    """Ends every process started under it, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Kill what runs, and refuse to start more."""
        with self._lock:
            self._cancelled = True
            for process in self._running:
                process.kill()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.add(process)
            if self._cancelled:
                process.kill()

    def remove(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)

    def check(self) -> None:
        """Raise :class:`Cancelled` once cancelled."""
        if self._cancelled:
            raise Cancelled("stopped before the work was done")


@dataclass
class Log:
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


@lru_cache
def _launcher() -> tuple[str, ...] | None:
    """What has the kernel kill the program it becomes when the parent dies, however it dies.

    Returns:
        its command; empty where the system has no such thing; None where this process has to see to it
        between fork and exec. That copies its page tables: 10 to 70 ms in which all its threads stand still.
    """
    if _libc is None:
        return ()
    program = shutil.which("setpriv")  # of util-linux, which nearly every Linux has
    if program is None:
        return None
    launcher = (program, "--pdeathsig", "KILL", "--")
    tried = subprocess.run([*launcher, "true"], capture_output=True, check=False)
    return launcher if tried.returncode == 0 else None


def _die_with_parent() -> None:
    """In the child, before exec: what :func:`_launcher` is for."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _launched(program: str) -> bool:
    """Whether a launcher can become a program: it is there, and made for this machine.

    Of any other file exec itself says best what is wrong, or the launcher would have a shell read it.
    """
    path = shutil.which(program)
    if path is None:
        return False
    try:
        return _machine(path) == _machine("/proc/self/exe")
    except OSError:
        return False


def _machine(path: str) -> bytes:
    """Word size, byte order and processor of an ELF program."""
    with Path(path).open("rb") as file:
        head = file.read(20)
    return head[:6] + head[18:]


@dataclass(frozen=True)
class _Share:
    """Which part of the machine a program gets.

    Attributes:
        niceness: how much nicer than this process, 0..19.
        cpus: the processors it may run on; None: those of this process.
    """

    niceness: int = 0
    cpus: frozenset[int] | None = None

    def check(self) -> None:
        """Refuse what cannot be had.

        Raises:
            ConfigError: a niceness out of range, or no processors are named, or one that is not there.
            ToolchainError: this system cannot bind a program to processors.
        """
        if not 0 <= self.niceness <= 19:
            raise ConfigError(f"niceness={self.niceness!r} is not accepted; expected an int of 0..19")
        if self.cpus is None:
            return
        if not hasattr(os, "sched_setaffinity"):
            raise ToolchainError(
                f"this system ({sys.platform}) cannot bind an encoder to processors "
                f"{_numbers(self.cpus)}: leave encoder_cpus out"
            )
        if not self.cpus or min(self.cpus) < 0 or max(self.cpus) >= MOST_CPUS:
            raise ConfigError(
                f"cpus={_numbers(self.cpus) or 'none'} is not accepted; "
                f"expected processors from 0 on, below {MOST_CPUS}"
            )
        lacking = self.cpus - _possible_cpus(self.cpus)
        if lacking:
            there = _possible_cpus(frozenset(range(MOST_CPUS)))
            raise ConfigError(
                f"processor {_numbers(lacking)} is not here or may not be used; "
                f"encoders can run on {_numbers(there)}"
            )

    @contextlib.contextmanager
    def bound(self) -> Iterator[None]:
        """Bind the calling thread for as long as it starts a program, which has it from its first moment."""
        if self.cpus is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cpus)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def make_nice(self, pid: int) -> None:
        """Make a program that was just started, and leads a process group, nicer with all its threads."""
        if self.niceness:
            nice = min(os.getpriority(os.PRIO_PROCESS, 0) + self.niceness, 19)
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PGRP, pid, nice)


def _numbers(cpus: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))


def _possible_cpus(cpus: frozenset[int]) -> set[int]:
    """Those of some processors that a program can be bound to: there, and not kept from this one's group.

    Only trying tells: a process may be bound to fewer than it could have, and the kernel leaves out silently
    what a container does not have. It is tried in a thread of its own, which leaves all others as they are.
    """
    possible: set[int] = set()

    def bind() -> None:
        with contextlib.suppress(OSError):  # none of them
            os.sched_setaffinity(0, cpus)
            possible.update(os.sched_getaffinity(0) & cpus)

    thread = threading.Thread(target=bind)
    thread.start()
    thread.join()
    return possible


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
        share = _Share(niceness, None if cpus is None else frozenset(cpus))
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
            self._process = _start(self.command, self._cancellation, stdin=True, stdout=stdout, share=share)
        except BaseException:
            self._inputs.close()
            raise
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        _inputs.add(self._stdin)
        for pipe in (self._stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, ImportError):
                    _set_pipe_size(pipe.fileno(), pipe_bytes if pipe is self._stdin else PIPE_BYTES)
        os.set_blocking(self._stdin.fileno(), False)
        try:
            self._drains = [_drain(self._process.stderr, self._read_log)]
            if on_output is not None:
                self._drains.append(_drain(self._process.stdout, lambda pipe: _read_output(pipe, on_output)))
        except BaseException:
            _end_unused(self._process)
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
            _kill(self._process)
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
        return self._give(data, _splice)

    def _give(self, data: Buffer, send: Callable[[int, memoryview], int]) -> bool:
        view = memoryview(data).cast("B")
        descriptor = self._stdin.fileno()
        while view:
            try:
                view = view[send(descriptor, view) :]
            except BlockingIOError:
                if not running_wait(lambda step: _writable(descriptor, step), self._stall_seconds):
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
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not running_wait(lambda step: _readable(descriptor, step), timeout):
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
        if not running_wait(lambda step: _has_ended(self._process, step), self._stall_seconds):
            self._stalled = True
            _kill(self._process)
        self._end()
        self._cancellation.check()
        code = self._code
        if self._stalled:
            raise self._error(f"ffmpeg hung: it did nothing for {self._stall_seconds:.0f} s and was ended")
        if any("No space left on device" in line for line in self.log.lines):
            raise self._error("the disk is full; free some space and run it again")
        if code in _KILLS:
            raise self._error("ffmpeg was killed")
        if code != 0:
            raise self._error("ffmpeg failed" if code > 0 else f"ffmpeg crashed with signal {-code}")
        if self.log.faults:
            raise self._error("ffmpeg met an error and went on")
        return self.log

    def _error(self, reason: str) -> FfmpegError:
        said = list(self.log.lines)
        # Faults first reported tell the cause; the last lines may be only their echo.
        lines = [line for line in self.log.faults[:4] if line not in said[-8:]] + said[-8:]
        code = self._code
        killed = code in _KILLS and not self._stalled
        return FfmpegError(reason, command=self.command, returncode=code, stderr=lines, killed=killed)

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
            running_wait(partial(_has_finished, thread), self._stall_seconds)
        self._cancellation.remove(self._process)
        self._inputs.close()
        for pipe in (self._process.stderr, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read_log(self, pipe: IO[bytes]) -> None:
        for raw in pipe:
            line = raw.decode("utf-8", "replace").rstrip()
            progress = _PROGRESS.fullmatch(line)
            if progress is None:
                if line:
                    self.log.add(line)
            elif progress[1] == "frame" and self._on_frames is not None and progress[2].strip().isdigit():
                self._on_frames(int(progress[2]))


def _files_read(command: Sequence[str]) -> list[Path]:
    """The files that a command names as its inputs."""
    named = (word for flag, word in pairwise(command) if flag == "-i")
    return [Path(word.removeprefix("file:")) for word in named if word.startswith("file:")]


class _Start:
    """One program to be started, and who waits for it."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._abandoned = False
        self._process: subprocess.Popen[bytes] | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            process = self._start()
        except BaseException as error:
            self._error = error
        else:
            with self._lock:
                self._process = process
                if self._abandoned:
                    _end_unused(process)
        self._done.set()

    def wait(self) -> subprocess.Popen[bytes]:
        try:
            self._done.wait()
        except BaseException:  # Ctrl-C: nobody will use the program
            with self._lock:
                self._abandoned = True
                if self._process is not None:
                    _end_unused(self._process)
            raise
        if self._error is not None:
            raise self._error
        assert self._process is not None
        return self._process


def running_wait(come: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something, for a time that this process has run and not only passed.

    Where all processes stand still for a while (a laptop that sleeps, a container that is frozen), the one
    that is waited for has had no chance: such a time counts as one short step.

    Args:
        come: waits for it, for so many seconds at most, and returns whether it has come.
        seconds: how long to wait.

    Returns:
        whether it has come.
    """
    left = seconds
    while True:
        step = max(0.0, min(left, _STEP_SECONDS))
        if come(step):
            return True
        left -= step
        if left <= 0:
            return False


def _writable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([], [descriptor], [], seconds)[1])


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    if process.returncode is None and sys.platform == "linux" and hasattr(os, "pidfd_open"):
        # Popen.wait looks every 50 ms at last: longer than a short episode is encoded.
        with contextlib.suppress(OSError):  # kernels of sandboxes, or another thread has seen its end
            descriptor = os.pidfd_open(process.pid)
            try:
                end = select.poll()
                end.register(descriptor, select.POLLIN)
                end.poll(max(0.0, seconds) * 1000)
            finally:
                os.close(descriptor)
            return process.poll() is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _has_finished(thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and wait for its end, but not without end: a driver may hold it."""
    process.kill()
    running_wait(lambda step: _has_ended(process, step), _KILLED_SECONDS)


def _end_unused(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@lru_cache
def _starts() -> queue.SimpleQueue[_Start]:
    # The kernel takes the death of the thread that started a program for the death of its parent, so all
    # are started by one thread that lives as long as the interpreter. Not an executor's: a signal that comes
    # while one makes its thread leaves a thread that is waited for without end when the program exits.
    starts: queue.SimpleQueue[_Start] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            starts.get().run()

    _begin(threading.Thread(target=serve, name="ffenc-start", daemon=True))
    return starts


def _forked() -> None:
    """In a process forked from this one: a program's input does not end while a copy of it is open."""
    _starts.cache_clear()
    for pipe in list(_inputs):
        with contextlib.suppress(OSError):
            pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _start(
    command: Sequence[str],
    cancellation: Cancellation,
    *,
    stdin: bool,
    stdout: bool,
    share: _Share = _Share(),
) -> subprocess.Popen[bytes]:
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("runs %s", shlex.join(command))
    request = _Start(partial(_start_here, command, cancellation, stdin, stdout, share))
    _starts().put(request)
    return request.wait()


def _start_here(
    command: Sequence[str], cancellation: Cancellation, stdin: bool, stdout: bool, share: _Share
) -> subprocess.Popen[bytes]:
    try:
        launcher = _launcher()
        if launcher and not _launched(command[0]):
            launcher = None
        with share.bound():
            process = subprocess.Popen(
                [*(launcher or ()), *command],
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"},
                # Its own process group: Ctrl-C reaches the parent, which then ends its children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent if launcher is None else None,  # noqa: PLW1509 - one system call
            )
        share.make_nice(process.pid)
    except (OSError, subprocess.SubprocessError) as error:  # the second: processors went away meanwhile
        reason = error.strerror if isinstance(error, OSError) else error
        limited = isinstance(error, OSError) and error.errno == errno.EAGAIN
        raise ToolchainError(
            f"{command[0]} cannot be started: {reason}" + (f"; {_MORE_PROCESSES}" if limited else "")
        ) from None
    cancellation.add(process)
    return process


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _splice(descriptor: int, view: memoryview) -> int:
    """Put memory into a pipe as it is (Linux), and return how many bytes of it; else copy it there."""
    if _libc is None or view.readonly:
        return os.write(descriptor, view)
    piece = _Piece(ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view))
    count = int(_libc.vmsplice(descriptor, ctypes.byref(piece), 1, 0))
    if count >= 0:
        return count
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):  # kernels of sandboxes
        return os.write(descriptor, view)
    raise OSError(code, os.strerror(code))


def _set_pipe_size(descriptor: int, size: int) -> None:
    """Ask for a pipe of another size where the system has that (Linux): a larger one switches less."""
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)


def _drain(pipe: IO[bytes] | None, read: Callable[[IO[bytes]], None]) -> threading.Thread:
    assert pipe is not None
    thread = threading.Thread(target=read, args=(pipe,), daemon=True)
    _begin(thread)
    return thread


def _begin(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:
        raise ToolchainError(f"no thread can be started: {_MORE_PROCESSES}") from None


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
    process = _start(command, cancellation, stdin=False, stdout=True)
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
            _kill(process)
    finally:
        if process.poll() is None:
            _kill(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    code = -signal.SIGKILL if process.returncode is None else process.returncode
    if code != 0:
        name = os.path.basename(command[0])  # noqa: PTH119 - a program name, not a path
        signalled = code < 0 and not timed_out
        raise FfmpegError(
            f"{name} crashed with signal {-code}" if signalled else f"{name} failed",
            command=command,
            returncode=code,
            stderr=said.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:],
        )
    return answer.decode("utf-8", "replace")
