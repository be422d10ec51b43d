"""LeRobot reads what was repaired, row by row as the undamaged dataset, for every kind of damage."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ffenc import repair_dataset
from tests.conftest import DATASET, newest_programs
from tests.support.damage import IMAGES, LOST, WHOLE


def test_every_damage(tmp_path: Path, two_cameras: Path, request: pytest.FixtureRequest) -> None:
    """One process of LeRobot reads all results: it takes ten seconds to start."""
    results: dict[str, dict[str, Any]] = {}
    cases = [(two_cameras, {**WHOLE, **LOST}), (DATASET, IMAGES)]
    for whole, name, case in ((whole, *item) for whole, own in cases for item in own.items()):
        source = Path(shutil.copytree(whole, tmp_path / "source"))
        case.damage(source)
        number = len(results)
        ways = {"": ("drop-episode", case.kept)}
        if case.trimmed not in (None, case.kept):
            ways[", trimmed"] = ("trim", case.trimmed)
        for way, (on_damage, kept) in ways.items():
            root = tmp_path / f"result-{number}{way}"
            done = repair_dataset(
                source, root, on_damage=on_damage, follow_links=case.links, **newest_programs()
            )
            assert done.result is not None, name
            known = {"whole": str(whole), "root": str(root)}
            results[name + way] = {**known, "kept": kept, "lossy": list(case.lossy)}
        shutil.rmtree(source)
        (tmp_path / "away.mp4").unlink(missing_ok=True)
    listed = tmp_path / "results.json"
    listed.write_text(json.dumps(results))
    script = Path(__file__).with_name("repaired.py")
    python = str(request.config.getoption("--lerobot"))
    ran = subprocess.run([python, str(script), str(listed)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-5000:]
    assert len(ran.stdout.splitlines()) == len(results)
