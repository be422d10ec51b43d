"""5,000 episodes of 20 rows are planned in bounded memory; with ``--long``, 50,000 of 400."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.large import make_large

# Episodes, rows in each, and MB at most: some 140 are the interpreter with its libraries.
SHORT, LONG = (5_000, 20, 220), (50_000, 400, 1000)

SCRIPT = """
import json, sys, time
from ffenc import plan_merge, plan_reencode
source, out = sys.argv[1:]
began = time.monotonic()
H264 = [(("camera_encoder", "vcodec"), "h264")]
plans = [plan_reencode(source, out, overrides=H264), plan_merge([source, source], out)]
print(json.dumps({
    "seconds": time.monotonic() - began,
    "frames": [plan.frames for plan in plans],
    "episodes": [len(plan.episodes) for plan in plans],
    # getrusage would tell the parent's peak too.
    "megabytes": int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024,
}))
"""


def test_a_plan_of_many_episodes_takes_little_memory(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    episodes, length, megabytes = LONG if request.config.getoption("--long") else SHORT
    source = make_large(tmp_path / "dataset", episodes=episodes, length=length)
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out")],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(answer.stdout)
    assert found["frames"] == [episodes * length, 2 * episodes * length]
    assert found["episodes"] == [episodes, 2 * episodes]
    assert found["megabytes"] < megabytes
