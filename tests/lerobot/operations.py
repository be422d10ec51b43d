"""Run by LeRobot's own python: its merge, delete and split on datasets, and a read of every row after."""

import sys
from pathlib import Path

from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, split_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def opened(root: Path) -> LeRobotDataset:
    return LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")


def read(root: Path, what: str) -> None:
    dataset = opened(root)
    failed = []
    for row in range(len(dataset)):
        try:
            dataset[row]
        except Exception as error:
            failed.append((row, type(error).__name__, str(error).splitlines()[0]))
    print(f"{what}: {len(dataset)} rows, {dataset.num_episodes} episodes, {len(failed)} unreadable")
    if failed:
        sys.exit(f"{what}: row {failed[0][0]}: {failed[0][1]}: {failed[0][2]}")


out, *sources = map(Path, sys.argv[1:])
merge_datasets([opened(source) for source in sources], "local/merged", out / "merged")
read(out / "merged", "merged")
delete_episodes(opened(out / "merged"), [1], out / "deleted", "local/deleted")
read(out / "deleted", "deleted")
last = opened(out / "merged").num_episodes - 1
split_dataset(opened(out / "merged"), {"some": [0, last], "rest": list(range(1, last))}, out / "split")
for part in sorted(path.parent.parent for path in (out / "split").glob("**/meta/info.json")):
    read(part, f"split {part.name}")
