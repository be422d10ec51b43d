"""Starting of programs: they end with their parent, and get a limited share of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import queue
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

from msgspec import Struct

from ffenc.config.limits import MOST_CPUS
from ffenc.errors import Cancelled, ConfigError, ToolchainError

log = logging.getLogger("ffenc")
_GROUP_NICE_TRIES = 40
# A program that is still there after SIGKILL waits for a driver or a network file system.
_KILLED_SECONDS = 10.0
MORE_PROCESSES = "end other programs, or raise the limit on processes and threads (ulimit -u)"
_STEP_SECONDS = 0.5  # of waiting; a suspended machine counts as one step
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_CAP_SYS_NICE = 23
_SCRIPT = b"#!"
_HEAD_BYTES = 256  # of a script that the kernel reads for the name of its interpreter
_beginning = threading.Lock()  # held while the thread that starts programs is created
libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Cancellation:
    """Ends all processes that were started with it, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Kill the running processes and refuse to start others."""
        with self._lock:
            self._cancelled = True
            for process in self._running:
                end(process)

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.add(process)
            if self._cancelled:
                end(process)

    def remove(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)

    def check(self) -> None:
        """Raise :class:`Cancelled` after :meth:`cancel`."""
        if self._cancelled:
            raise Cancelled("stopped before the work was done")


@lru_cache
def _launcher() -> tuple[str, ...] | None:
    """Return the command prefix that makes the kernel kill a program when its parent dies.

    If root starts a program in this way, it loses the right to real-time priority: see
    :func:`_keep_from_real_time`.

    Returns:
        The prefix; empty if the system has no such function; None if this process has to do it between fork
        and exec. A fork copies the page tables: all threads stand still for 10 to 70 ms.
    """
    if libc is None:
        return ()
    program = shutil.which("setpriv")  # part of util-linux, which nearly every Linux system has
    if program is None:
        return None
    dying = (program, "--pdeathsig", "KILL")
    modest = (*dying, "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice")
    for launcher in (modest, dying) if os.geteuid() == 0 else (dying,):
        tried = subprocess.run([*launcher, "--", "true"], capture_output=True, check=False)
        if tried.returncode == 0:
            return (*launcher, "--")
    return None


def _before_exec() -> None:
    """Do what :func:`_launcher` is for, in the child before exec."""
    assert libc is not None
    libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_NICE)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_from_real_time(pid: int) -> None:
    """Prevent real-time priority of a program; root's programs are started without the right to it.

    SVT-AV1 gives its threads real-time priority if it may: as root, which is the user of most containers. Its
    threads then preempt the program that reads the cameras, and niceness has no effect.
    """
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - not on Windows

        with contextlib.suppress(OSError):  # the program has ended
            resource.prlimit(pid, resource.RLIMIT_RTPRIO, (0, 0))


def _launched(program: str) -> bool:
    """Return whether the launcher can execute a program: it exists and is made for this machine.

    For any other file exec itself gives the best error; the launcher would let a shell read it.
    """
    path = shutil.which(program)
    if path is None:
        return False
    try:
        head = _head(path)
        if head.startswith(_SCRIPT):  # a script: its interpreter is executed
            head = _head(os.fsdecode(head[2:].split(b"\n")[0].split()[0]))
        return _machine(head) == _machine(_head("/proc/self/exe"))
    except (OSError, IndexError):
        return False


def is_script(program: str) -> bool:
    """Return whether a program is a script, which may pass its input on to another program."""
    path = shutil.which(program)
    try:
        return path is not None and _head(path).startswith(_SCRIPT)
    except OSError:
        return False


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_HEAD_BYTES)


def _machine(head: bytes) -> bytes:
    """Return word size, byte order and processor of an ELF program, given its first bytes."""
    return head[:6] + head[18:20]


class Share(Struct, frozen=True):
    """The share of the machine that a program gets.

    Attributes:
        niceness: added to this process's niceness, 0..19.
        cpus: the processors that it may run on; None: those of this process.
    """

    niceness: int = 0
    cpus: frozenset[int] | None = None

    def check(self) -> None:
        """Check that the share is possible.

        Raises:
            ConfigError: a niceness out of range, an empty set of processors, or one that does not exist.
            ToolchainError: this system cannot bind a program to processors.
        """
        if not 0 <= self.niceness <= 19:
            raise ConfigError(
                f"niceness={self.niceness!r} is not accepted", expected="a whole number from 0 to 19"
            )
        if self.cpus is None:
            return
        if not hasattr(os, "sched_setaffinity"):
            raise ToolchainError(
                f"this system ({sys.platform}) cannot bind an encoder to processors "
                f"{_numbers(self.cpus)}: leave encoder_cpus out"
            )
        if not self.cpus or min(self.cpus) < 0 or max(self.cpus) >= MOST_CPUS:
            raise ConfigError(
                f"cpus={_numbers(self.cpus) or 'none'} is not accepted",
                expected=f"processors from 0 on, below {MOST_CPUS}",
            )
        lacking = self.cpus - _possible_cpus(self.cpus)
        if lacking:
            there = _possible_cpus(frozenset(range(MOST_CPUS)))
            raise ConfigError(
                f"processor {_numbers(lacking)} does not exist or may not be used; encoders can "
                f"run on {_numbers(there)}"
            )

    @contextlib.contextmanager
    def bound(self) -> Iterator[None]:
        """Bind the calling thread while it starts a program, which inherits the binding."""
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
        """Change the niceness of a started program that leads a session, with all its threads."""
        if self.niceness:
            nice = min(os.getpriority(os.PRIO_PROCESS, 0) + self.niceness, 19)
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PGRP, pid, nice)
            _make_group_nice(pid, nice)


_WHOLE = Share()


def _make_group_nice(pid: int, nice: int) -> None:
    """Change the niceness of a program's session relative to other sessions (Linux).

    If the kernel distributes the processors among sessions first (``kernel.sched_autogroup_enabled``, the
    default of most distributions), niceness has an effect only within a session; see sched(7).
    """
    left = _GROUP_NICE_TRIES
    while left:
        try:
            Path(f"/proc/{pid}/autogroup").write_bytes(f"{nice}".encode())
        except BlockingIOError:  # one change per 0.1 s, except for root
            left -= 1
            time.sleep(0.03)
        except OSError:  # no autogroups, or the program has ended
            return
        else:
            return


def _numbers(cpus: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))


def _possible_cpus(cpus: frozenset[int]) -> set[int]:
    """Return those of some processors that a program can be bound to.

    Only an attempt shows this: a process may be bound to fewer processors than it is allowed to use, and the
    kernel silently ignores those that a container does not have. The attempt uses a separate thread, so that
    all others keep their binding.
    """
    possible: set[int] = set()

    def bind() -> None:
        with contextlib.suppress(OSError):  # none of them can be used
            os.sched_setaffinity(0, cpus)
            possible.update(os.sched_getaffinity(0) & cpus)

    thread = threading.Thread(target=bind)
    thread.start()
    thread.join()
    return possible


class _Start:
    """A program to start, and the thread that waits for it."""

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
                    end_unused(process)
        self._done.set()

    def wait(self) -> subprocess.Popen[bytes]:
        try:
            self._done.wait()
        except BaseException:  # Ctrl-C: the program will not be used
            with self._lock:
                self._abandoned = True
                if self._process is not None:
                    end_unused(self._process)
            raise
        if self._error is not None:
            raise self._error
        assert self._process is not None
        return self._process


def running_wait(come: Callable[[float], bool], seconds: float) -> bool:
    """Wait for an event; only time in which this process was running counts.

    While all processes stand still (a suspended laptop, a frozen container), the event cannot happen: such a
    time counts as one short step.

    Args:
        come: waits at most the given number of seconds, and returns whether the event has happened.
        seconds: greatest waiting time.

    Returns:
        Whether the event has happened.
    """
    left = seconds
    while True:
        step = max(0.0, min(left, _STEP_SECONDS))
        if come(step):
            return True
        left -= step
        if left <= 0:
            return False


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait at most ``seconds`` for a program's end; return whether it has ended."""
    if process.returncode is None and sys.platform == "linux" and hasattr(os, "pidfd_open"):
        # Popen.wait polls every 50 ms in the end, which is longer than encoding a short episode takes.
        with contextlib.suppress(OSError):  # sandboxes without pidfd, or another thread has seen its end
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


def has_finished(thread: threading.Thread, seconds: float) -> bool:
    """Wait at most ``seconds`` for a thread's end; return whether it has ended."""
    thread.join(seconds)
    return not thread.is_alive()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program, and the programs that it has started.

    A script that runs FFmpeg without ``exec`` would leave it behind, with the script's pipes.
    """
    if os.name != "posix":
        process.kill()
    elif process.poll() is None:
        # macOS has the second error for a group of which only the ended program is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and wait a limited time for its end: a driver may block it."""
    end(process)
    running_wait(lambda step: has_ended(process, step), _KILLED_SECONDS)


def end_unused(process: subprocess.Popen[bytes]) -> None:
    """End a program that is not used, and close its pipes."""
    kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@lru_cache
def starts() -> queue.SimpleQueue[Callable[[], object]]:
    """Return the queue of requests to the single thread that starts programs."""
    # The kernel treats the death of the thread that started a program as the death of its parent, so one
    # thread that lives as long as the interpreter starts all programs. An executor is not used: if a signal
    # interrupts the creation of its thread, the interpreter waits for that thread forever at exit.
    waiting: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            waiting.get()()

    begin(threading.Thread(target=serve, name="ffenc-start", daemon=True))
    return waiting


def start(
    command: Sequence[str],
    cancellation: Cancellation,
    *,
    stdin: bool,
    stdout: bool,
    share: Share = _WHOLE,
) -> subprocess.Popen[bytes]:
    """Start a program that ends when this process ends.

    Args:
        command: the program and its arguments.
        cancellation: can stop the program from another thread.
        stdin, stdout: whether these are pipes.
        share: niceness and processors of the program.

    Raises:
        ToolchainError: it cannot be started.
        Cancelled: ``cancellation`` was cancelled before.
    """
    if log.isEnabledFor(logging.DEBUG):
        log.debug("runs %s", shlex.join(command))
    request = _Start(partial(_start_here, command, cancellation, stdin, stdout, share))
    _queue().put(request.run)
    return request.wait()


def make_ready() -> None:
    """Prepare the start of programs while other work goes on."""
    _queue().put(_launcher)


def _queue() -> queue.SimpleQueue[Callable[[], object]]:
    with _beginning:
        return starts()


def _start_here(
    command: Sequence[str], cancellation: Cancellation, stdin: bool, stdout: bool, share: Share
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
                # Its own process group: Ctrl-C reaches only the parent, which then ends its children in
                # order.
                start_new_session=True,
                preexec_fn=_before_exec if launcher is None else None,  # noqa: PLW1509 - two system calls
            )
        try:
            _keep_from_real_time(process.pid)
            share.make_nice(process.pid)
        except OSError:
            end_unused(process)
            raise
    except (OSError, subprocess.SubprocessError) as error:  # the second: processors were removed meanwhile
        reason = error.strerror if isinstance(error, OSError) else error
        limited = isinstance(error, OSError) and error.errno == errno.EAGAIN
        raise ToolchainError(
            f"{command[0]} cannot be started: {reason}" + (f"; {MORE_PROCESSES}" if limited else "")
        ) from None
    cancellation.add(process)
    return process


def begin(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        ToolchainError: the limit of processes and threads is reached.
    """
    try:
        thread.start()
    except RuntimeError:
        raise ToolchainError(f"no thread can be started: {MORE_PROCESSES}") from None
