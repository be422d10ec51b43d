"""Run by LeRobot's own python: repaired datasets, read row by row and compared with the undamaged one."""

import json
import math
import sys
from functools import lru_cache
from pathlib import Path

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

NUMBERS = ("index", "episode_index", "frame_index", "timestamp", "task_index")


def opened(root: Path) -> LeRobotDataset:
    return LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")


def alike(found: torch.Tensor, wanted: torch.Tensor, *, lossy: bool) -> bool:
    """Whether a picture is the same; one that had to be encoded only looks the same."""
    if not lossy:
        return torch.equal(found, wanted)
    error = float(((found - wanted) ** 2).mean())
    return found.shape == wanted.shape and (error == 0 or -10 * math.log10(error) > 27)


whole = lru_cache(None)(opened)


@lru_cache(None)
def undamaged(root: Path, row: int) -> dict[str, object]:
    return whole(root)[row]


failed = []
for name, case in json.loads(Path(sys.argv[1]).read_text()).items():
    try:
        root = Path(case["whole"])
        lengths = whole(root).meta.episodes["length"]
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        dataset = opened(Path(case["root"]))
        rows = [
            (number, frame, starts[episode] + frame)
            for number, (episode, length) in enumerate(case["kept"])
            for frame in range(length)
        ]
        assert len(dataset) == len(rows), f"{len(dataset)} rows, not {len(rows)}"
        for index, (number, frame, row) in enumerate(rows):
            found, wanted = dataset[index], undamaged(root, row)
            assert set(found) == set(wanted), f"row {index}: {sorted(found)}"
            assert (int(found["index"]), int(found["episode_index"])) == (index, number), f"row {index}"
            assert int(found["frame_index"]) == frame, f"row {index}: frame_index"
            assert abs(float(found["timestamp"]) - frame / 30) < 1e-5, f"row {index}: timestamp"
            assert found["task"] == wanted["task"], f"row {index}: {found['task']}"
            for key in set(found) - {*NUMBERS, "task"}:
                lossy = key in case["lossy"]
                assert alike(found[key], wanted[key], lossy=lossy), f"row {index}: {key} is another"
        print(f"{name}: {len(rows)} rows")
    except Exception as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
sys.exit("\n".join(failed) or 0)
