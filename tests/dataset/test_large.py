"""50,000 episodes of 20 million rows are planned in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.large import make_large

EPISODES, LENGTH = 50_000, 400
MEGABYTES = 1000

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


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_large(tmp_path_factory.mktemp("large") / "dataset", episodes=EPISODES, length=LENGTH)


def test_a_plan_of_twenty_million_rows_takes_little_memory(large: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(large), str(tmp_path / "out")],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(answer.stdout)
    assert found["frames"] == [EPISODES * LENGTH, 2 * EPISODES * LENGTH]
    assert found["episodes"] == [EPISODES, 2 * EPISODES]
    assert found["megabytes"] < MEGABYTES
