"""What fails does not keep the others from being finished; shards are alike in size everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import ConfigError, SourceError, merge_datasets, reencode_dataset
from ffenc.dataset.choice import parse_shard, ranges_text, shard_bounds
from tests.conftest import ANGLE, DATASET
from tests.support.command_line import CommandLine
from tests.support.read import contents

H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The sample, of which an image of the first and one of the last episode are cut short."""
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    path = source / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    images = table[ANGLE].to_pylist()
    for row in (5, 60):
        images[row]["bytes"] = images[row]["bytes"][:500]
    at = table.column_names.index(ANGLE)
    pq.write_table(table.set_column(at, ANGLE, pa.array(images, table.schema.field(at).type)), path)
    return source


def test_all_that_fails_is_listed_and_the_rest_is_kept(
    damaged: Path, tmp_path: Path, ffenc: CommandLine
) -> None:
    words = ["--cameras", "angle", "--camera_encoder.vcodec=h264", "--camera_encoder.preset=ultrafast"]
    message = ffenc.refused("reencode", damaged, tmp_path / "out", *words, "--keep-going", "--workers", 1)
    assert "2 encodes of 2 episodes failed" in message
    assert "(episodes 1 are complete)" in message
    assert message.index("episode 0, observation.images.angle: ") < message.index(
        "episode 2, observation.images.angle: "
    )
    assert not (tmp_path / "out").exists()
    options = {"cameras": ["angle"], "overrides": H264, "episodes": [1]}
    summary = reencode_dataset(damaged, tmp_path / "out", **options, resume=True)
    assert summary.resumed == 1
    reencode_dataset(DATASET, tmp_path / "whole", **options)
    assert {k: v for k, v in contents(tmp_path / "out").items() if k != "meta/ffenc.json"} == {
        k: v for k, v in contents(tmp_path / "whole").items() if k != "meta/ffenc.json"
    }


def test_without_it_the_first_ends_the_job(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="row 5.*cut short"):
        reencode_dataset(damaged, tmp_path / "out", cameras=["angle"], overrides=H264, workers=1)


def test_shards_are_parts_of_the_whole_in_order(tmp_path: Path) -> None:
    options = {"cameras": ["angle"], "overrides": H264}
    for number in (1, 2, 3):
        reencode_dataset(DATASET, tmp_path / f"{number}", shard=f"{number}/3", **options)
    merge_datasets([tmp_path / f"{number}" for number in (1, 2, 3)], tmp_path / "merged")
    reencode_dataset(DATASET, tmp_path / "whole", **options)
    ours, theirs = contents(tmp_path / "merged"), contents(tmp_path / "whole")
    assert [k for k in theirs if k.endswith(".mp4") and ours[k] != theirs[k]] == []
    tables = [
        pq.read_table(tmp_path / name / "data/chunk-000/file-000.parquet") for name in ("merged", "whole")
    ]
    assert tables[0].equals(tables[1])
    with pytest.raises(ConfigError, match="ask for 3 at most"):
        reencode_dataset(DATASET, tmp_path / "x", shard="1/4", **options)


@pytest.mark.parametrize(
    ("lengths", "count", "bounds"),
    [
        ([10] * 6, 3, [0, 2, 4, 6]),
        ([100, 1, 1, 1], 2, [0, 1, 4]),
        ([1, 1, 1, 100], 2, [0, 3, 4]),
        ([1, 1, 1, 100], 4, [0, 1, 2, 3, 4]),
        ([5], 1, [0, 1]),
    ],
)
def test_shards_are_balanced_by_frames(lengths: list[int], count: int, bounds: list[int]) -> None:
    assert shard_bounds(lengths, count) == bounds


def test_a_shard_is_off_by_half_an_episode_at_most() -> None:
    lengths = [200 + 37 * n % 101 for n in range(1000)]
    bounds = shard_bounds(lengths, 64)
    frames = [sum(lengths[a:b]) for a, b in pairwise(bounds)]
    assert max(abs(one - sum(lengths) / 64) for one in frames) <= max(lengths)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected K/N"):
        parse_shard(text)


def test_ranges_are_written_as_they_are_read() -> None:
    assert ranges_text([0, 2, 3, 4, 9]) == "0,2-4,9"
    assert ranges_text([]) == ""


def test_the_array_job_of_the_documentation(tmp_path: Path) -> None:
    """The scripts as they are printed, run as Slurm would run them."""
    text = (Path(__file__).parents[2] / "docs/cluster.md").read_text(encoding="utf-8")
    scripts = [block.partition("```")[0] for block in text.split("```sh\n")[1:]]
    job = next(script for script in scripts if "--array" in script)
    merge = next(script for script in scripts if script.startswith("ffenc merge"))
    small = tmp_path / "small"
    reencode_dataset(DATASET, small, cameras=["angle"], overrides=H264)
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "ffenc").write_text(f'#!/bin/sh\nexec {sys.executable} -m ffenc "$@"\n')
    (shims / "ffenc").chmod(0o755)
    names = {"SRC": small, "PARTS": tmp_path / "parts", "DST": tmp_path / "whole"}
    common = {name: str(path) for name, path in names.items()} | {
        "PATH": f"{shims}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_COUNT": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    for task in ("1", "2"):
        env = os.environ | common | {"SLURM_ARRAY_TASK_ID": task}
        subprocess.run(["bash", "-e"], input=job, text=True, env=env, check=True)
    subprocess.run(["bash", "-e"], input=merge, text=True, env=os.environ | common, check=True)
    ours, theirs = (
        pq.read_table(root / "data/chunk-000/file-000.parquet") for root in (tmp_path / "whole", small)
    )
    assert ours.equals(theirs)
