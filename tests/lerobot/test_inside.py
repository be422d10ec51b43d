"""ffenc inside LeRobot: the tests of ``inside/`` are run by the python of LeRobot's environment."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

INSIDE = Path(__file__).with_name("inside")


@pytest.mark.parametrize("name", sorted(path.name for path in INSIDE.glob("test_*.py")))
def test_inside(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    options = ["-q", "-p", "no:cacheprovider", "-c", str(INSIDE / "pytest.ini"), f"--basetemp={tmp_path}/t"]
    ran = subprocess.run(
        [str(request.config.getoption("--lerobot")), "-m", "pytest", *options, str(INSIDE / name)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert re.search(r"^\d+ passed in ", ran.stdout, re.M), ran.stdout
