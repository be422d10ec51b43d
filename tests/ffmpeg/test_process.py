"""Programs are fed, drained and ended; real ffmpeg throughout."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ffenc.errors import Cancelled, ConfigError, FfmpegError, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import PIPE_BYTES, FfmpegProcess, run_asked, run_fed
from ffenc.ffmpeg.toolchain import Toolchain
from tests.recording.recording import wait_for
from tests.support.sandbox import without

RAW = ("-f", "rawvideo", "-pix_fmt", "gray", "-video_size", "64x64", "-framerate", "30", "-i", "pipe:0")
FRAME = bytes(64 * 64)


def copying(toolchain: Toolchain, *output: str) -> list[str]:
    return [toolchain.ffmpeg, "-nostdin", "-loglevel", "level+warning", *RAW, *output]


def test_input_reaches_the_program_and_its_output_and_frame_counts_come_back(toolchain: Toolchain) -> None:
    received, counts = bytearray(), []
    run_fed(
        copying(toolchain, "-f", "rawvideo", "pipe:1"),
        [FRAME] * 50,
        on_output=received.extend,
        on_frames=counts.append,
    )
    assert bytes(received) == FRAME * 50
    assert counts[-1] == 50


def test_a_program_runs_beside_more_open_files_than_select_can_wait_for(toolchain: Toolchain) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    received = bytearray()
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(1100):
                stack.enter_context(open(os.devnull, "rb"))  # noqa: PTH123
            # More than a pipe takes at once.
            fed = copying(toolchain, "-f", "rawvideo", "pipe:1")
            run_fed(fed, [FRAME] * 2000, on_output=received.extend)
            source = ("-f", "lavfi", "-i", "color=size=64x64:rate=30:duration=1,format=gray")
            drawn = [toolchain.ffmpeg, "-nostdin", "-loglevel", "level+warning", *source]
            with FfmpegProcess([*drawn, "-f", "rawvideo", "pipe:1"], pull=True) as process:
                assert process.read_into(bytearray(30 * len(FRAME))) == 30 * len(FRAME)
                process.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bytes(received) == FRAME * 2000


# Passes its input on by splicing it into a pipe of its own, as pv does; the other end reads late.
SPLICING = """#!{python}
import fcntl, os, subprocess, sys, threading, time
near, far = os.pipe()
fcntl.fcntl(far, 1031, 1 << 20)
def pass_on():
    while os.splice(0, far, 1 << 20):
        pass
    os.close(far)
threading.Thread(target=pass_on).start()
time.sleep(1)
sys.exit(subprocess.run([{ffmpeg!r}, *sys.argv[1:]], stdin=near).returncode)
"""


@pytest.mark.parametrize("spliced", [False, True], ids=["ffmpeg", "a script that splices its input"])
def test_lent_memory_is_read_as_it_was_and_may_change_once_a_pipe_of_bytes_has_followed(
    toolchain: Toolchain, tmp_path: Path, spliced: bool
) -> None:
    """Buffers are written over as early as is allowed: what comes out is what each held when it was lent."""
    received = bytearray()
    frame = np.zeros(64 * 64 * 40, np.uint8)  # 164 kB
    buffers = [frame.copy() for _ in range(PIPE_BYTES // frame.size + 2)]
    sent = []
    command = copying(toolchain, "-f", "rawvideo", "pipe:1")
    if spliced:
        wrapper = program(tmp_path, SPLICING.format(python=sys.executable, ffmpeg=toolchain.ffmpeg))
        command = [*wrapper, *command[1:]]
    with FfmpegProcess(command, on_output=received.extend) as process:
        for number in range(60):
            buffer = buffers[number % len(buffers)]
            buffer[:] = np.random.default_rng(number).integers(0, 255, buffer.size, np.uint8)
            sent.append(buffer.tobytes())
            assert process.lend(buffer.data)
        process.finish()
        assert process.ended
    assert bytes(received) == b"".join(sent)


def test_pieces_are_lent_as_long_as_the_program_may_read_them(toolchain: Toolchain) -> None:
    """The memory of each piece is used for a later one as soon as nothing refers to it."""
    rng = np.random.default_rng(0)
    sent, found = [], bytearray()
    sizes = [(320, 240), (1, 3), (240, 320)]

    def pieces() -> Iterator[memoryview]:
        for number in range(60):
            piece = rng.integers(0, 256, sizes[number % 3], np.uint8)
            sent.append(piece.tobytes())
            yield piece.data
            del piece

    size = sum(width * height for width, height in sizes)
    line = f"-v error -readrate 4 -f rawvideo -pix_fmt gray -s {size}x1 -i pipe:0 -f rawvideo pipe:1"
    run_fed([toolchain.ffmpeg, *line.split()], pieces(), on_output=found.extend, lend=True)
    assert bytes(found) == b"".join(sent)


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOSYS])
def test_in_a_sandbox_that_does_not_lend_memory_it_is_copied(toolchain: Toolchain, refusal: int) -> None:
    sent = np.random.default_rng(0).integers(0, 256, (400, 64 * 64), np.uint8)
    found = bytearray()

    def fed() -> None:
        pieces = (frame.data for frame in sent)
        run_fed(copying(toolchain, "-f", "rawvideo", "pipe:1"), pieces, on_output=found.extend, lend=True)

    without("vmsplice", refusal, fed)
    assert bytes(found) == sent.tobytes()


def test_a_failure_tells_the_command_and_the_end_of_stderr(toolchain: Toolchain) -> None:
    with pytest.raises(FfmpegError, match="Unknown encoder 'nosuch'") as caught:
        run_fed(copying(toolchain, "-c:v", "nosuch", "-f", "null", "-"), [FRAME] * 200)
    assert toolchain.ffmpeg in str(caught.value)
    assert "-c:v nosuch" in str(caught.value)
    assert caught.value.returncode != 0


def program(folder: Path, text: str) -> list[str]:
    """A stand-in program, for what no real ffmpeg can be made to do at will."""
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o755)
    return [str(path)]


def test_an_error_line_is_a_failure_even_with_exit_status_0(tmp_path: Path) -> None:
    command = program(tmp_path, "#!/bin/sh\necho '[png @ 0x1] [error] IEND without all image' >&2\n")
    with pytest.raises(FfmpegError, match="IEND without all image"):
        run_fed(command, [])


def test_much_stderr_does_not_block_and_is_read_in_blocks(tmp_path: Path) -> None:
    before = psutil.Process().io_counters().read_count
    log = run_fed(program(tmp_path, "#!/bin/sh\nyes 'one line of many' | head -n 20000 >&2\n"), [])
    assert len(log.lines) < 100
    assert psutil.Process().io_counters().read_count - before < 20_000  # of 360,000 bytes


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(FfmpegError, match="hung"):
        run_fed(program(tmp_path, "#!/bin/sh\nexec sleep 60\n"), [], stall_seconds=0.5)


def test_a_limit_on_the_size_of_files_is_named(toolchain: Toolchain, tmp_path: Path) -> None:
    script = program(tmp_path, f'#!/bin/sh\nulimit -f 2\nexec {toolchain.ffmpeg} "$@"\n')
    drawn = ["-f", "lavfi", "-i", "color", "-frames:v", "9", "-f", "rawvideo", str(tmp_path / "out")]
    with pytest.raises(FfmpegError, match=r"larger than this process may write; .*ulimit -f"):
        run_fed([*script, "-nostdin", *drawn], [])


def test_a_program_that_a_script_has_started_is_ended_with_it(toolchain: Toolchain, tmp_path: Path) -> None:
    """It would go on, and keep the script's outputs open, for whose end ffenc waits."""
    drawn = ["-f", "lavfi", "-i", "color", "-f", "rawvideo", "pipe:1"]
    script = program(tmp_path, f'#!/bin/sh\n{toolchain.ffmpeg} "$@"\nexit\n')
    with FfmpegProcess([*script, "-nostdin", *drawn], pull=True) as process:
        process.read_into(bytearray(1000))
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) == 1
    psutil.wait_procs(started)
    assert not started[0].is_running()


def test_a_program_that_takes_no_input_is_ended(tmp_path: Path) -> None:
    with pytest.raises(FfmpegError, match="hung"):
        run_fed(program(tmp_path, "#!/bin/sh\nexec sleep 60\n"), [bytes(1 << 24)], stall_seconds=0.5)


def test_cancelling_ends_a_running_program_and_refuses_new_ones(toolchain: Toolchain) -> None:
    cancellation = Cancellation()
    with FfmpegProcess(copying(toolchain, "-f", "null", "-"), cancellation=cancellation) as process:
        process.write(FRAME)
        threading.Timer(0.2, cancellation.cancel).start()
        while process.write(FRAME):
            pass
        with pytest.raises(Cancelled):
            process.finish()
    with pytest.raises(Cancelled):
        FfmpegProcess(copying(toolchain, "-f", "null", "-"), cancellation=cancellation)


def test_an_error_in_the_source_ends_the_program(toolchain: Toolchain) -> None:
    def frames() -> object:
        yield FRAME
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError, match="camera unplugged"):
        run_fed(copying(toolchain, "-f", "null", "-"), frames())
    assert not [c for c in psutil.Process().children() if "ffmpeg" in c.name()]


def test_an_error_of_what_takes_the_output_is_passed_on(toolchain: Toolchain) -> None:
    def full(_: object) -> None:
        raise RuntimeError("no room")

    for taker in ({"on_output": full}, {"on_frames": full}):
        with pytest.raises(RuntimeError, match="no room"):
            run_fed(
                copying(toolchain, "-f", "rawvideo", "pipe:1"), [FRAME] * 50, **{"on_output": len} | taker
            )


def test_a_program_outlives_the_thread_that_started_it(toolchain: Toolchain) -> None:
    """A writer may be opened in one thread and used in another."""
    opened: list[FfmpegProcess] = []
    thread = threading.Thread(
        target=lambda: opened.append(FfmpegProcess(copying(toolchain, "-f", "null", "-")))
    )
    thread.start()
    thread.join()
    time.sleep(0.3)
    with opened[0] as process:
        assert process.write(FRAME)
        process.finish()


@pytest.mark.parametrize("scripted", [False, True])
def test_a_program_dies_with_its_parent_even_by_sigkill(
    toolchain: Toolchain, tmp_path: Path, scripted: bool
) -> None:
    command = copying(toolchain, "-f", "null", "-")
    if scripted:
        command[:1] = program(tmp_path, f'#!/bin/sh\nexec {toolchain.ffmpeg} "$@"\n')
    script = f"""
import sys, time
from ffenc.ffmpeg.process import FfmpegProcess
process = FfmpegProcess({command!r})
process.write(bytes({len(FRAME)}))
print(process._process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not psutil.pid_exists(child))


def test_a_program_has_its_niceness_and_processors_in_all_threads(toolchain: Toolchain) -> None:
    own, cpu = os.nice(0), max(os.sched_getaffinity(0))
    lasting = ["-c:v", "libx264", "-threads", "3", "-f", "null", "-"]
    with FfmpegProcess(copying(toolchain, *lasting), niceness=5, cpus=[cpu]) as process:
        for _ in range(100):  # the encoder starts with the first of them
            process.write(FRAME)
        wait_for(lambda: len(psutil.Process(process.pid).threads()) >= 4)
        threads = [thread.id for thread in psutil.Process(process.pid).threads()]
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {own + 5}
        assert {tuple(os.sched_getaffinity(thread)) for thread in threads} == {(cpu,)}
        group = Path(f"/proc/{process.pid}/autogroup")  # which kernels without sched_autogroup have not
        assert not group.exists() or group.read_text().endswith(f" nice {own + 5}\n")
        process.finish()
    assert os.nice(0) == own


def test_no_thread_of_an_encoder_has_real_time_priority(toolchain: Toolchain) -> None:
    """SVT-AV1 asks for it, and root's programs get it."""
    lasting = ["-c:v", "libsvtav1", "-preset", "12", "-f", "null", "-"]
    with FfmpegProcess(copying(toolchain, *lasting)) as process:
        for _ in range(100):
            process.write(FRAME)
        wait_for(lambda: len(psutil.Process(process.pid).threads()) >= 10)
        policies = [os.sched_getscheduler(thread.id) for thread in psutil.Process(process.pid).threads()]
        process.finish()
    assert len(policies) >= 10
    assert set(policies) == {os.SCHED_OTHER}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"cpus": [0, 4095]}, "processor 4095 does not exist or may not be used; encoders can run on 0"),
        ({"cpus": []}, "expected processors from 0 on"),
        ({"niceness": 20}, "niceness=20 is not accepted"),
    ],
)
def test_a_share_of_the_machine_that_is_not_there_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        FfmpegProcess(["/nonexistent/ffmpeg"], **settings)


def test_a_system_without_affinity_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(ToolchainError, match="cannot bind an encoder to processors 0, 1"):
        FfmpegProcess(["/nonexistent/ffmpeg"], cpus=[1, 0])


def test_a_program_whose_niceness_cannot_be_changed_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # as in a sandbox

    monkeypatch.setattr(os, "setpriority", refused)
    sleeping = program(tmp_path, "#!/bin/sh\nexec sleep 60\n")
    before = psutil.Process().children()
    with pytest.raises(ToolchainError, match="cannot be started: Permission denied"):
        FfmpegProcess(sleeping, niceness=5)
    assert psutil.Process().children() == before


def test_a_forked_process_does_not_keep_a_program_waiting_for_the_end_of_its_input(
    toolchain: Toolchain,
) -> None:
    """A robot's program may fork (data loaders, image writers) while cameras are recorded."""
    script = f"""
import os, signal, time
from ffenc.ffmpeg.process import FfmpegProcess
with FfmpegProcess({copying(toolchain, "-f", "null", "-")!r}, stall_seconds=10) as process:
    process.write(bytes({len(FRAME)}))
    forked = os.fork()
    if not forked:
        time.sleep(60)
    process.finish()
    os.kill(forked, signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=False, timeout=60, capture_output=True
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("text", ["#!/nonexistent/sh\n", "#!\n", "#! \n", "echo no interpreter\n", ""])
def test_a_script_without_an_interpreter_cannot_be_started(tmp_path: Path, text: str) -> None:
    with pytest.raises(ToolchainError, match="program cannot be started"):
        run_asked(program(tmp_path, text))


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(ToolchainError, match="/nonexistent/ffmpeg cannot be started"):
        run_asked(["/nonexistent/ffmpeg"])


def test_a_signal_while_a_program_starts_leaves_none_behind(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come before the program that was asked for is there."""
    from ffenc.ffmpeg import launch as starting

    original = starting._start_here
    begun = threading.Event()

    def slowly(*arguments: object) -> object:
        time.sleep(0.3)
        try:
            return original(*arguments)  # type: ignore[arg-type]
        finally:
            begun.set()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(starting, "_start_here", slowly)
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            FfmpegProcess(copying(toolchain, "-f", "null", "-"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert begun.wait(60)
    wait_for(lambda: not [c for c in psutil.Process().children() if "ffmpeg" in c.name()])


def test_a_signal_while_a_reader_of_a_program_begins_breaks_nothing(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader's thread may come to run only after the program was given up."""
    broken: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", broken.append)
    readers: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        readers.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr("ffenc.ffmpeg.process.begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        FfmpegProcess(copying(toolchain, "-f", "null", "-"))
    for reader in readers:
        reader.start()
        reader.join()
    assert len(readers) == 1
    assert not broken


def test_a_program_that_was_given_up_takes_nothing(toolchain: Toolchain) -> None:
    with FfmpegProcess(copying(toolchain, "-f", "null", "-")) as process:
        pass
    assert not process.write(bytes(12))


@pytest.mark.parametrize("moment", range(12))
def test_a_signal_at_any_moment_of_the_first_start_ends_the_interpreter(moment: int) -> None:
    script = f"""
import signal, sys
from ffenc.ffmpeg.process import run_asked
def interrupted(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupted)
try:
    signal.setitimer(signal.ITIMER_REAL, {(moment + 1) * 1.5e-4})
    run_asked(["sleep", "60"])
except KeyboardInterrupt:
    sys.exit(3)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True)
    assert ended.returncode == 3, ended.stderr


def test_a_time_in_which_all_processes_stand_still_does_not_count_as_hanging(tmp_path: Path) -> None:
    """A laptop that sleeps: the program goes on where it was, and is not ended for the hours before."""
    script = f"""
import sys
from ffenc.ffmpeg.process import run_asked, run_fed
slow = [{str(tmp_path / "slow")!r}]
print("begun", flush=True)
run_fed(slow, [bytes(1 << 22)], stall_seconds=3)
print(run_asked(slow, timeout=3))
"""
    (tmp_path / "slow").write_text("#!/bin/sh\nsleep 1\ncat >/dev/null\nsleep 1\necho answer\n")
    (tmp_path / "slow").chmod(0o755)
    run = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    run.stdout.readline()
    for _ in range(2):
        time.sleep(0.7)  # into the wait for the input's end, and for the answer
        everything = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        for process in everything:
            process.suspend()
        time.sleep(3.5)  # longer than either may do nothing
        for process in everything:
            process.resume()
    answer, said = run.communicate(timeout=60)
    assert (run.returncode, answer.strip()) == (0, "answer"), said


def test_what_feeds_a_program_is_closed_when_it_fails(toolchain: Toolchain) -> None:
    """Not when the error's traceback is forgotten: what it has opened may be a file of the user's."""
    ended: list[bool] = []

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            ended.append(True)

    with pytest.raises(FfmpegError) as caught:
        run_fed([toolchain.ffmpeg, "-v", "error", "-f", "no_such_format", "-i", "pipe:0"], pieces())
    assert ended == [True]
    assert caught.value.returncode
