"""ffenc inside LeRobot: the tests of ``inside/`` are run by the python of LeRobot's environment."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

INSIDE = Path(__file__).with_name("inside")


# Two processes, for two processors: LeRobot takes ten seconds of one to start.
FILES = sorted(path.name for path in INSIDE.glob("test_*.py"))
HALF = len(FILES) // 2


@pytest.mark.parametrize("names", [FILES[:HALF], FILES[HALF:]], ids=" ".join)
def test_inside(names: list[str], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    options = ["-q", "-p", "no:cacheprovider", "-c", str(INSIDE / "pytest.ini"), f"--basetemp={tmp_path}/t"]
    files = [str(INSIDE / name) for name in names]
    ran = subprocess.run(
        [str(request.config.getoption("--lerobot")), "-m", "pytest", *options, *files],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert re.search(r"^\d+ passed in ", ran.stdout, re.M), ran.stdout
