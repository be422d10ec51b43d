"""LeRobot's functions that write files and datasets, done by ffenc."""

from __future__ import annotations

import json
import logging
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DEPTH, FPS, RGB, create, depth, info_of, opened, picture, row, sound
from lerobot.configs.video import DepthEncoderConfig, RGBEncoderConfig
from lerobot.datasets import dataset_tools, video_utils
from lerobot.datasets.image_writer import write_image

import ffenc.lerobot
from ffenc import SourceError, VideoReader, probe
from ffenc.lerobot.seams import Use

DATASET = Path(__file__).resolve().parents[3] / "fixtures/aloha_image_v30"
H264 = RGBEncoderConfig(vcodec="h264", crf=18)


def clip(folder: Path, count: int = 6, first: int = 0, config: Any = H264) -> Path:
    """A video that LeRobot's function has made of images."""
    images = folder / f"images-{first}"
    images.mkdir()
    for number in range(count):
        write_image(picture(first + number), images / f"frame-{number:06d}.png")
    path = folder / f"clip-{first}.mp4"
    video_utils.encode_video_frames(images, path, FPS, config)
    return path


def numbers(path: Path) -> list[int]:
    """Which pictures a video shows."""
    with VideoReader(path) as video:
        lifted = [frame.mean() - picture(0).mean() for frame in video]
    return [round(one / 6) for one in lifted]


def test_images_become_a_video(tmp_path: Path, used: Use) -> None:
    path = clip(tmp_path)
    info = probe(path, times=True)
    assert (info.codec, info.pix_fmt, info.frames, info.fps) == ("h264", "yuv420p", 6, FPS)
    assert numbers(path) == list(range(6))
    with pytest.raises(FileNotFoundError, match="No images with suffix .tiff"):
        video_utils.encode_video_frames(tmp_path / "images-0", tmp_path / "d.mp4", FPS, DepthEncoderConfig())
    before = path.read_bytes()
    video_utils.encode_video_frames(tmp_path / "images-0", path, FPS, RGBEncoderConfig())
    assert path.read_bytes() == before  # as LeRobot has it: not without overwrite
    # A frame that is cut short is named, where LeRobot's would be half gray.
    image = tmp_path / "images-0/frame-000003.png"
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(SourceError, match=r"frame-000003.png"):
        video_utils.encode_video_frames(tmp_path / "images-0", path, FPS, H264, overwrite=True)
    assert path.read_bytes() == before


def test_a_video_is_reencoded_in_its_place(tmp_path: Path, used: Use) -> None:
    path = clip(tmp_path)
    video_utils.reencode_video(
        path, path, RGBEncoderConfig(vcodec="hevc", g=3), encoder_threads=1, overwrite=True
    )
    info = probe(path, times=True)
    assert (info.codec, info.frames) == ("hevc", 6)
    assert numbers(path) == list(range(6))
    part = tmp_path / "part.mp4"
    video_utils.reencode_video(path, part, H264, start_time_s=1.5 / FPS, end_time_s=4 / FPS)
    assert numbers(part) == [2, 3]
    assert probe(part, times=True).times[0] == 0
    with pytest.raises(ValueError, match="must be greater than"):
        video_utils.reencode_video(path, tmp_path / "none.mp4", start_time_s=1.0, end_time_s=0.5)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["clip-0.mp4", "images-0", "part.mp4"]


def test_videos_are_joined_on_the_exact_grid(tmp_path: Path, used: Use) -> None:
    paths = [clip(tmp_path, 3, first) for first in (0, 3, 6)]
    video_utils.concatenate_video_files(paths[:2], paths[0])  # as an episode is appended
    video_utils.concatenate_video_files([paths[0], paths[2]], paths[0])
    info = probe(paths[0], times=True)
    assert [time * info.time_base for time in info.times] == [Fraction(n, FPS) for n in range(9)]
    assert numbers(paths[0]) == list(range(9))
    other = clip(tmp_path, 3, 9, RGBEncoderConfig(vcodec="hevc"))
    with pytest.raises(ValueError, match="their codec differs: hevc, and h264"):
        video_utils.concatenate_video_files([paths[0], other], tmp_path / "mixed.mp4")
    with pytest.raises(FileNotFoundError):
        video_utils.concatenate_video_files([], tmp_path / "mixed.mp4")


def test_fields_are_lerobots_and_the_encoder_is_noted(tmp_path: Path) -> None:
    with ffenc.lerobot.use():
        path = clip(tmp_path)
        place = tmp_path / f"dataset/videos/{RGB}/chunk-000/file-000.mp4"
        place.parent.mkdir(parents=True)
        (tmp_path / "dataset/meta").mkdir()
        shutil.copy(path, place)
        ours = video_utils.get_video_info(place, H264)
    assert ours == video_utils.get_video_info(place, H264)
    noted = json.loads((tmp_path / "dataset/meta/ffenc.json").read_text())["cameras"]
    assert noted[RGB]["video.encoder"]["encoder"] == "libx264"


def test_recording_without_streaming(tmp_path: Path, used: Use) -> None:
    """Images first, encoded by LeRobot's pool of processes when the episode is saved."""
    root = tmp_path / "after"
    dataset = create(root, streaming_encoding=False, rgb_encoder=H264)
    for _ in range(2):
        for number in range(5):
            dataset.add_frame(row(number))
        dataset.save_episode()
    dataset.finalize()
    assert sound(root) == (2, 10)
    assert not list((root / "images").rglob("*.png"))
    assert (
        opened(root)[7][DEPTH].numpy().reshape(depth(2).shape)[8:] // 10 == depth(2)[8:] // 10
    ).mean() > 0.9


def test_datasets_are_converted_with_all_they_have(
    tmp_path: Path, used: Use, caplog: pytest.LogCaptureFixture
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    source = LeRobotDataset("local/images", root=DATASET)
    with caplog.at_level(logging.INFO, "ffenc.lerobot"):
        made = dataset_tools.convert_image_to_video_dataset(
            source, tmp_path / "videos", "local/videos", rgb_encoder=H264, max_frames_per_batch=9
        )
    assert "max_frames_per_batch are not needed" in caplog.text
    assert sound(tmp_path / "videos") == (3, 72)
    assert (made.repo_id, len(made), made.meta.total_tasks) == ("local/videos", 72, source.meta.total_tasks)
    assert set(made.meta.stats) == set(source.meta.stats)
    assert probe(made.root / made.meta.get_video_file_path(0, "observation.images.top")).codec == "h264"
    for index in (0, 30, 71):
        shown = made[index]["observation.images.top"]
        assert (shown - source[index]["observation.images.top"]).abs().mean() < 0.02
    with pytest.raises(ValueError, match="for image datasets only"):
        dataset_tools.convert_image_to_video_dataset(made, tmp_path / "again")
    some = dataset_tools.convert_image_to_video_dataset(source, tmp_path / "some", episode_indices=[0])
    assert (some.repo_id, some.num_episodes, len(some)) == ("local/images_video", 1, 24)
    used.undo()
    alone = dataset_tools.convert_image_to_video_dataset(source, tmp_path / "alone", episode_indices=[0])
    assert info_of(some.root) == info_of(alone.root)
    assert type(some) is type(alone)
    assert some.meta.tasks.to_dict() == alone.meta.tasks.to_dict()
    for name in alone.meta.episodes.column_names:
        assert some.meta.episodes[name] == pytest.approx(alone.meta.episodes[name])


def test_lerobots_edits_run_on_what_was_recorded(tmp_path: Path, used: Use) -> None:
    parts = []
    for name in ("one", "two"):
        dataset = create(tmp_path / name, rgb_encoder=H264)
        for _ in range(2):
            for number in range(4):
                dataset.add_frame(row(number))
            dataset.save_episode()
        dataset.finalize()
        parts.append(opened(tmp_path / name))
    merged = dataset_tools.merge_datasets(parts, "local/merged", tmp_path / "merged")
    assert len([merged[index] for index in range(len(merged))]) == 16
    again = dataset_tools.reencode_dataset(merged, rgb_encoder=RGBEncoderConfig(vcodec="hevc", g=4))
    assert info_of(again.root)["features"][RGB]["info"]["video.codec"] == "hevc"
    assert [
        round(((opened(again.root)[n][RGB].mean() * 255).item() - picture(0).mean()) / 6) for n in range(8)
    ] == [
        *range(4),
        *range(4),
    ]
    left = dataset_tools.delete_episodes(merged, [1], tmp_path / "left", "local/left")
    assert len([left[index] for index in range(len(left))]) == 12


def noted(root: Path) -> dict[str, Any]:
    """What ffenc keeps of each camera."""
    return json.loads((root / "meta/ffenc.json").read_text())["cameras"]


def test_episodes_are_cut_out_packet_for_packet(tmp_path: Path) -> None:
    """Whatever settings are in use: what stays is what it was, on the grid."""
    with ffenc.lerobot.use():
        for name in ("one", "two", "three"):
            dataset = create(tmp_path / name, rgb_encoder=H264)
            for number in range(5):
                dataset.add_frame(row(number + 5 * len(name)))
            dataset.save_episode()
            dataset.finalize()
        parts = [opened(tmp_path / name) for name in ("one", "two", "three")]
        merged = dataset_tools.merge_datasets(parts, "local/merged", tmp_path / "merged")
    with ffenc.lerobot.use(preset="so101"):
        left = dataset_tools.delete_episodes(merged, [1], tmp_path / "left", "local/left")
        split = dataset_tools.split_dataset(merged, {"a": [0, 2], "b": [1]}, tmp_path / "split")
        fewer = dataset_tools.remove_feature(merged, DEPTH, tmp_path / "fewer", "local/fewer")
    for made, rows in ((left, [0, 2]), (split["a"], [0, 2]), (split["b"], [1]), (fewer, [0, 1, 2])):
        assert sound(made.root) == (len(rows), 5 * len(rows))
        for key in made.meta.video_keys:
            with VideoReader(merged.root / merged.meta.get_video_file_path(0, key)) as video:
                before = [video[5 * episode + number] for episode in rows for number in range(5)]
            path = made.root / made.meta.get_video_file_path(0, key)
            with VideoReader(path) as video:
                assert np.array_equal(list(video), before)
            info = probe(path, times=True)
            assert [time * info.time_base for time in info.times] == [
                Fraction(n, FPS) for n in range(5 * len(rows))
            ]
    assert info_of(left.root)["features"] == info_of(merged.root)["features"]
    first, *_ = notes = [noted(one.root) for one in (*parts, merged, left, split["a"], split["b"])]
    assert first[RGB]["video.encoder"]["encoder"] == "libx264"
    assert all(one == first for one in notes)
    assert noted(fewer.root) == {RGB: first[RGB]}


def test_depth_whose_holes_are_stored_otherwise_is_not_merged(tmp_path: Path, used: Use) -> None:
    parts = []
    for name, invalid in (("one", "keep"), ("two", "clip")):
        dataset = create(tmp_path / name, rgb_encoder=H264)
        dataset.add_frame(row(0))
        dataset.save_episode()
        dataset.finalize()
        path = tmp_path / name / "meta/ffenc.json"
        content = json.loads(path.read_text())
        content["cameras"][DEPTH]["video.invalid"] = invalid
        path.write_text(json.dumps(content))
        parts.append(opened(tmp_path / name))
    with pytest.raises(ValueError, match="video.invalid is 'keep' in .*one, 'clip' in .*two"):
        dataset_tools.merge_datasets(parts, "local/merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_presets_reach_each_camera(tmp_path: Path) -> None:
    overrides = [(("camera_encoder", "vcodec"), "h264"), (("cameras", "front", "encoder", "crf"), 35)]
    with ffenc.lerobot.use(preset="so101", overrides=overrides):
        dataset = create(tmp_path / "preset")
        for number in range(4):
            dataset.add_frame(row(number))
        dataset.save_episode()
        dataset.finalize()
    block = info_of(tmp_path / "preset")["features"][RGB]["info"]
    assert (block["video.codec"], block["video.crf"]) == ("h264", 35)
    assert info_of(tmp_path / "preset")["features"][DEPTH]["info"]["video.codec"] == "hevc"
    assert sound(tmp_path / "preset") == (1, 4)


def test_frames_are_numbered(tmp_path: Path, used: Use) -> None:
    """The check that these tests rest on: a picture's number can be told."""
    assert numbers(clip(tmp_path, 5, 20)) == list(range(20, 25))
    assert np.ptp(picture(29)) > 0
