"""A signal ends a command within two seconds, wherever it comes to, unless it is ignored at the start."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ANGLE, FIXTURES

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SECONDS = 2.0
LATE = 2.0  # for the end of the process and of its pipes, on a machine that is busy

# A program that begins and ends as ffenc does; `work` is what its command does.
PROGRAM = """
import os, signal, sys, threading, time, weakref
from ffenc.cli.signals import Signals
{work}
signals = Signals()
signals.install()
status = 1
try:
    try:
        signals.arm()
        print("armed", flush=True)
        work()
        status = 0
    finally:
        signals.disarm()
except BaseException as error:
    if signals.number is None:
        raise
signals.leave()
sys.exit(status)
"""

SWALLOWED = {
    "by an import": """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "missing":
            try:
                time.sleep(0.4)
            except BaseException:
                pass

def work():
    sys.meta_path.insert(0, Finder())
    while True:
        try:
            import missing
        except ImportError:
            pass
""",
    "by a finaliser": """
sys.unraisablehook = lambda found: None

class Slow:
    def __del__(self):
        time.sleep(0.4)

def work():
    while True:
        Slow()
""",
    "by the callback of a weak reference": """
sys.unraisablehook = lambda found: None

class Thing:
    pass

def work():
    while True:
        thing = Thing()
        seen = weakref.ref(thing, lambda _: time.sleep(0.4))
        del thing
""",
    "by a wait for a thread that looks at nothing": """
def work():
    try:
        time.sleep(60)
    finally:
        thread = threading.Thread(target=time.sleep, args=(60,))
        thread.start()
        thread.join()
""",
    "by everything": """
def work():
    while True:
        try:
            time.sleep(0.01)
        except BaseException as error:
            kept.append(error)

kept = []
""",
}


def started(work: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=work)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "armed\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Wait for its end: the seconds that took, and what it has said."""
    began = time.monotonic()
    try:
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    return time.monotonic() - began, said


@pytest.mark.parametrize("work", SWALLOWED.values(), ids=SWALLOWED)
def test_a_signal_whose_exception_is_swallowed_ends_the_program_all_the_same(work: str) -> None:
    process = started(work)
    process.send_signal(signal.SIGTERM)
    seconds, said = ended(process)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert seconds < SECONDS + LATE
    assert "Traceback" not in said


def test_an_orderly_end_is_not_disturbed_by_more_signals() -> None:
    process = started("""
def work():
    try:
        print("working", file=sys.stderr, flush=True)
        time.sleep(60)
    finally:
        print("ending", file=sys.stderr, flush=True)
        for _ in range(10):
            time.sleep(0.05)
        print("in order", file=sys.stderr)
""")
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "ending\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    _, said = ended(process)
    assert said == "in order\n"
    assert process.returncode == 128 + signal.SIGINT


def test_a_signal_that_another_handler_takes_does_not_end_the_program_by_force() -> None:
    """A recording ends its episode in order, however long that takes, and hands the signal on then."""
    process = started("""
def work():
    def note(number, frame):
        come.append(number)
    before = signal.signal(signal.SIGINT, note)
    print("working", file=sys.stderr, flush=True)
    while not come:
        time.sleep(0.01)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        time.sleep(0.05)
    print("in order", file=sys.stderr)
    before(come[0], None)

come = []
""")
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, said = ended(process)
    assert said == "in order\n"
    assert process.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    """``nohup ffenc ...``; a job that a script starts with ``&``."""
    code = (
        f"import signal; signal.signal({int(number)}, signal.SIG_IGN); import sys; "
        "sys.argv = ['ffenc', 'info', sys.argv[1]]; import os, time; from ffenc.cli.main import main; "
        "import ffenc.cli.app as app; run = app.run; "
        f"app.run = lambda *a, **b: (os.kill(os.getpid(), {int(number)}), run(*a, **b))[1]; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(FIXTURES / "aloha_video_v30")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "3 episodes" in ran.stdout


@pytest.mark.parametrize("moment", [1, 2])
def test_an_import_in_c_that_a_signal_interrupts_prints_nothing(moment: int, tmp_path: Path) -> None:
    """NumPy's modules in C print the signal's exception and raise an ImportError: no package is missing."""
    code = f"""
import os, signal, sys
from ffenc.cli.main import main

moments = 0

def watch(frame, event, _):
    global moments
    if event != "call" or frame.f_code.co_name != "_lock_unlock_module":
        return
    executed = frame.f_back.f_back.f_locals.get("module")
    if getattr(executed, "__name__", "") == "numpy.linalg._umath_linalg":
        moments += 1
        if moments == {moment}:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGHUP)

sys.setprofile(watch)
main()
"""
    words = [sys.executable, "-c", code, *commands(tmp_path / "out")["encode"]]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + signal.SIGHUP, "", "")


def commands(out: Path) -> dict[str, list[str]]:
    video = FIXTURES / f"aloha_video_v30/videos/{ANGLE}/chunk-000/file-000.mp4"
    h264 = "--camera_encoder.vcodec=h264"
    return {
        "info": ["info", str(FIXTURES / "aloha_video_v30")],
        "reencode": ["reencode", str(FIXTURES / "aloha_image_v30"), str(out), "--cameras", "angle", h264],
        "encode": ["encode", str(video), f"{out}.mp4", h264],
        "merge": ["merge", str(FIXTURES / "aloha_video_v30"), "--out", str(out)],
        "decode": ["decode", str(video), str(out)],
    }


def test_a_signal_at_any_moment_ends_a_command_in_time(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Moments are spread evenly over each command's run, the start of the interpreter included."""
    total = 200 if request.config.getoption("--long") else 5
    names = list(commands(tmp_path))
    lengths = {}
    for name in names:
        began = time.monotonic()
        subprocess.run(program(commands(tmp_path / f"whole-{name}")[name]), check=True, capture_output=True)
        lengths[name] = time.monotonic() - began
    moments = total // len(names)
    draw = random.Random(20)
    order = [(name, moment) for name in names for moment in range(moments)]
    draw.shuffle(order)
    until = time.monotonic() + (600 if total == 200 else 45)  # a busy machine tries fewer of them
    for name, moment in order:
        if time.monotonic() > until:
            break
        number = ENDING[(moment + names.index(name)) % len(ENDING)]
        folder = tmp_path / "work"
        folder.mkdir()
        after = (moment + draw.random()) / moments * lengths[name]
        process = subprocess.Popen(
            program(commands(folder / "out")[name]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(after)
        process.send_signal(number)
        seconds, said = ended(process)
        case = f"{name}, {number.name} after {after:.3f} s of {lengths[name]:.3f}: "
        case += f"{process.returncode} {said}"
        # Before ffenc's first line, and after its last, a signal does what it does to any program: in
        # the first milliseconds Python itself ends with 1.
        in_python = process.returncode == 1 and number == signal.SIGINT and "/ffenc/" not in said
        assert in_python or process.returncode in (128 + number, -number, 0), case
        assert seconds < SECONDS + LATE, case
        if process.returncode == 128 + number:
            assert "Traceback" not in said, case
            left = [path.name for path in folder.iterdir() if path.name not in ("out", ".out.ffenc")]
            assert left == [] or name == "encode", case
            assert not list(folder.rglob("*.partial*")), case
        shutil.rmtree(folder)


def program(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "ffenc", *words]


def test_the_end_of_the_reader_ends_a_command_without_a_word(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for stderr in (subprocess.PIPE, writing):
        ran = subprocess.run(
            program(["info", str(FIXTURES / "aloha_video_v30"), "--json"]),
            stdout=writing,
            stderr=stderr,
            check=False,
        )
        assert ran.returncode == 141
        assert not ran.stderr
    os.close(writing)


@pytest.mark.parametrize("limit", [1, 8, 20])
def test_a_limit_on_processes_is_an_error_and_not_a_deadlock(tmp_path: Path, limit: int) -> None:
    """Root is above such limits: there the user is changed, and what makes it root but for reading files."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit})); "
        "from ffenc.cli.main import main; main()"
    )
    words = ["reencode", str(FIXTURES / "aloha_image_v30"), str(tmp_path / "out")]
    user = ["setpriv", "--ruid", "54321", "--bounding-set", "-sys_resource,-sys_admin"]
    ran = subprocess.run(
        [*(user if os.geteuid() == 0 else []), sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert re.fullmatch(
        r"ffenc: error: only \d+ of \d+ threads can be started: .*\(ulimit -u.*\)\n", ran.stderr
    )
    assert list(tmp_path.iterdir()) == []
