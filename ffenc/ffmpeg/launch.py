"""How programs are started: they die with their parent, and take the share of the machine they are given."""

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
# A program that was killed and is still there waits in a driver or for a network file system.
_KILLED_SECONDS = 10.0
MORE_PROCESSES = "end other programs, or raise the limit on processes and threads (ulimit -u)"
_STEP_SECONDS = 0.5  # of waiting: a stand-still of the whole machine counts as one
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_CAP_SYS_NICE = 23
_beginning = threading.Lock()  # of the thread that starts programs
libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


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


@lru_cache
def _launcher() -> tuple[str, ...] | None:
    """What has the kernel kill the program it becomes when the parent dies, however it dies.

    Root's program loses the right to real-time priority with it: see :func:`_keep_from_real_time`.

    Returns:
        its command; empty where the system has no such thing; None where this process has to see to it
        between fork and exec. That copies its page tables: 10 to 70 ms in which all its threads stand still.
    """
    if libc is None:
        return ()
    program = shutil.which("setpriv")  # of util-linux, which nearly every Linux has
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
    """In the child, before exec: what :func:`_launcher` is for."""
    assert libc is not None
    libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_NICE)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_from_real_time(pid: int) -> None:
    """Keep a program of a user's from real-time priority; one of root's is started without that right.

    SVT-AV1 gives its threads real-time priority wherever it may, which is as root, in most containers. They
    then come before the program that reads the cameras, and niceness does nothing.
    """
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - not on Windows

        with contextlib.suppress(OSError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_RTPRIO, (0, 0))


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


class Share(Struct, frozen=True):
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
        """Make a program that was just started, and leads a session, nicer with all its threads."""
        if self.niceness:
            nice = min(os.getpriority(os.PRIO_PROCESS, 0) + self.niceness, 19)
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PGRP, pid, nice)
            _make_group_nice(pid, nice)


_WHOLE = Share()


def _make_group_nice(pid: int, nice: int) -> None:
    """Make the session that a program leads nicer than others (Linux).

    Where the kernel shares the processors between sessions first (``kernel.sched_autogroup_enabled``, as most
    distributions have it), niceness counts within a session only; see sched(7).
    """
    left = _GROUP_NICE_TRIES
    while left:
        try:
            Path(f"/proc/{pid}/autogroup").write_bytes(f"{nice}".encode())
        except BlockingIOError:  # one change in 0.1 s, of whoever is not root
            left -= 1
            time.sleep(0.03)
        except OSError:  # there are no such groups, or the program has ended
            return
        else:
            return


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
                    end_unused(process)
        self._done.set()

    def wait(self) -> subprocess.Popen[bytes]:
        try:
            self._done.wait()
        except BaseException:  # Ctrl-C: nobody will use the program
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


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait at most so long for a program's end; return whether it has ended."""
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


def has_finished(thread: threading.Thread, seconds: float) -> bool:
    """Wait at most so long for a thread's end; return whether it has ended."""
    thread.join(seconds)
    return not thread.is_alive()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and wait for its end, but not without end: a driver may hold it."""
    process.kill()
    running_wait(lambda step: has_ended(process, step), _KILLED_SECONDS)


def end_unused(process: subprocess.Popen[bytes]) -> None:
    """End a program that nobody will feed or read, and close its pipes."""
    kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@lru_cache
def starts() -> queue.SimpleQueue[Callable[[], object]]:
    """The requests of the one thread that starts programs."""
    # The kernel takes the death of the thread that started a program for the death of its parent, so all
    # are started by one thread that lives as long as the interpreter. Not an executor's: a signal that comes
    # while one makes its thread leaves a thread that is waited for without end when the program exits.
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
    """Start a program that dies with this one.

    Args:
        command: the program and its arguments.
        cancellation: who may end it.
        stdin, stdout: whether they are pipes.
        share: the niceness and the processors it runs with.

    Raises:
        ToolchainError: it cannot be started.
        Cancelled: it was cancelled before.
    """
    if log.isEnabledFor(logging.DEBUG):
        log.debug("runs %s", shlex.join(command))
    request = _Start(partial(_start_here, command, cancellation, stdin, stdout, share))
    _queue().put(request.run)
    return request.wait()


def make_ready() -> None:
    """Find out how programs are started while there is other work, before the first is."""
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
                # Its own process group: Ctrl-C reaches the parent, which then ends its children in order.
                start_new_session=True,
                preexec_fn=_before_exec if launcher is None else None,  # noqa: PLW1509 - two system calls
            )
        _keep_from_real_time(process.pid)
        share.make_nice(process.pid)
    except (OSError, subprocess.SubprocessError) as error:  # the second: processors went away meanwhile
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
        ToolchainError: the limit on processes and threads is reached.
    """
    try:
        thread.start()
    except RuntimeError:
        raise ToolchainError(f"no thread can be started: {MORE_PROCESSES}") from None
