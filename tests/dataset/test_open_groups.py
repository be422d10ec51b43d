"""Videos with open groups, as LeRobot records them in HEVC: found, and not passed on."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from ffenc import FfencWarning, SourceError, merge_datasets, probe, reencode_dataset, verify_dataset
from ffenc.ffmpeg.join import Joined, join_files
from tests.conftest import DEPTH, FIXTURES, LENGTHS, find_toolchain, notes_of, starts

LEROBOTS = FIXTURES / "aloha_video_v30"
PLACE = f"videos/{DEPTH}/chunk-000/file-000.mp4"


def stored(path: Path) -> list[str]:
    """A checksum of each frame's depth codes."""
    command = [
        find_toolchain("newest").ffmpeg,
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "framehash",
        "-hash",
        "md5",
    ]
    listed = subprocess.run([*command, "-"], check=True, capture_output=True, text=True).stdout
    return [line.rpartition(",")[2].strip() for line in listed.splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's depth as LeRobot records it with ``g=10``: each episode by itself, groups open, joined."""
    folder, toolchain = tmp_path_factory.mktemp("opened"), find_toolchain("newest")
    root = Path(shutil.copytree(LEROBOTS, folder / "dataset"))
    parts = []
    for start, length in zip(starts(), LENGTHS, strict=True):
        path = folder / f"{start}.mp4"
        picked = f"select=between(n\\,{start}\\,{start + length - 1}),setpts=N/30/TB"
        encoder = ["-c:v", "libx265", "-x265-params", "lossless=1:log-level=error", "-tag:v", "hvc1"]
        words = ["-vf", picked, *encoder, "-pix_fmt", "gray12le", "-g", "10", "-r", "30"]
        command = [toolchain.ffmpeg, "-v", "error", "-i", str(root / PLACE), *words, str(path)]
        subprocess.run(command, check=True)
        parts.append(Joined(path, length, probe(path, times=True).delay or 0))
    join_files(parts, root / PLACE, fps=Fraction(30), tag="hvc1", toolchain=toolchain)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][DEPTH]["info"]["video.g"] = 10
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def test_verify_names_the_frames_that_are_missed(opened: Path) -> None:
    assert verify_dataset(LEROBOTS).sound
    found = verify_dataset(opened)
    assert [fault.kind for fault in found.faults] == ["open-groups"]
    [fault] = found.faults
    missed = probe(opened / PLACE, times=True).missed
    assert missed
    assert (fault.camera, fault.frame) == (DEPTH, missed[0])
    assert f"({len(missed)} frames are)" in fault.what
    assert "merge_datasets(sources=[DATASET], destination=NEW, reencode=True)" in fault.fix


def test_a_merge_refuses_them_or_encodes_them_without_loss(opened: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        SourceError, match=r"episode 0 of the result: .* open groups(.|\n)*Pass reencode=True"
    ):
        merge_datasets([opened], out)
    assert not out.exists()
    assert merge_datasets([opened], out, reencode=True).copied == 6
    assert stored(out / PLACE) == stored(opened / PLACE)
    assert probe(out / PLACE, times=True).leading == ()
    assert verify_dataset(out).sound


def test_a_reencode_with_the_settings_it_has_does_not_copy_them(opened: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.warns(
        FfencWarning, match=r"episode 0 is re-encoded, not copied: .*open groups.* 2 more episodes"
    ):
        made = reencode_dataset(
            opened, out, cameras=["angle_depth"], overrides=[(("depth_encoder", "g"), 10)]
        )
    assert made.copied == 0
    assert stored(out / PLACE) == stored(opened / PLACE)
    assert verify_dataset(out).sound


def test_a_time_scale_that_lerobot_cannot_join_is_a_note(tmp_path: Path) -> None:
    root = Path(shutil.copytree(LEROBOTS, tmp_path / "old"))
    words = [
        "-c",
        "copy",
        "-video_track_timescale",
        "30",
        "-movie_timescale",
        "30",
        str(tmp_path / "made.mp4"),
    ]
    subprocess.run(
        [find_toolchain("newest").ffmpeg, "-v", "error", "-i", str(root / PLACE), *words], check=True
    )
    (tmp_path / "made.mp4").replace(root / PLACE)
    found = verify_dataset(root)
    assert found.sound
    [note] = notes_of(found)
    assert (note.kind, note.file) == ("time-scale", PLACE)
    assert "1/30" in note.what
    assert "1/15360" in note.what
