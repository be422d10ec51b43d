"""A video dataset is re-encoded or copied with every frame in its place, on both FFmpegs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffenc import (
    ConfigError,
    DepthQuantizer,
    FfencError,
    FfencWarning,
    SourceError,
    VideoEncoderConfig,
    VideoReader,
    VideoWriter,
    edit_dataset,
    merge_datasets,
    plan_reencode,
    probe,
    reencode_dataset,
    repair_dataset,
    verify_dataset,
)
from ffenc.dataset.model import EpisodeVideo
from ffenc.dataset.videos import clip_of
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    distances,
    everything_in,
    find_toolchain,
    newest_program,
    newest_programs,
    pixels,
    psnr,
    starts,
    system_if_long,
)
from tests.support.command_line import CommandLine
from tests.support.make import H264, RGB
from tests.support.read import (
    contents,
    depth_maps,
    depth_samples,
    episodes_of,
    packets,
    read_json,
    rows_of,
    video_of,
)
from tests.support.runs import wait_for_pieces, wait_until_gone

LEROBOTS = FIXTURES / "aloha_video_v30"
AV1 = [(("camera_encoder", "vcodec"), "libsvtav1")]
HEVC_DEPTH = [(("depth_encoder", "vcodec"), "hevc")]
CAM = "observation.images.cam"
FFV1 = [(("depth_encoder", "vcodec"), "ffv1"), (("depth_encoder", "extra_options"), {})]
MILLIMETRES = [*FFV1, (("depth_encoder", "pix_fmt"), "gray16le")]
B_FRAMES = [
    *H264,
    (("camera_encoder", "crf"), 18),
    (("camera_encoder", "g"), 8),
    (("camera_encoder", "extra_options"), {"bf": 3}),
]


@pytest.fixture(scope="module")
def b_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's colours as H.264 with B-frames, a key frame every eight."""
    out = tmp_path_factory.mktemp("b_frames") / "video"
    reencode_dataset(DATASET, out, cameras=RGB, overrides=B_FRAMES, **newest_programs())
    return out


@pytest.fixture
def lerobots(tmp_path: Path) -> Path:
    """A copy of LeRobot's own video dataset, to be damaged."""
    return Path(shutil.copytree(LEROBOTS, tmp_path / "source"))


@pytest.fixture(scope="module")
def video_v21(
    whole_v21: Path, images: dict[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The sample as a v2.1 dataset whose colours are video, with the block that LeRobot 0.3.3 writes."""
    root = Path(shutil.copytree(whole_v21, tmp_path_factory.mktemp("video_v21") / "source"))
    info = read_json(root / "meta/info.json")
    for key in (TOP, ANGLE):
        height, width, channels = info["features"][key]["shape"]
        info["features"][key]["dtype"] = "video"
        info["features"][key]["info"] = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": 30,
            "video.channels": channels,
            "has_audio": False,
        }
        for episode, (start, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
            path = root / f"videos/chunk-000/{key}/episode_{episode:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            config = VideoEncoderConfig(vcodec="h264", crf=18)
            with VideoWriter(path, fps=30, config=config, **newest_programs()) as video:
                for image in images[key][start : start + length]:
                    video.write(pixels(image))
    info["total_videos"] = 6
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    write_json(root / "meta/info.json", info)
    for path in root.glob("data/*/*.parquet"):
        table = pq.read_table(path).drop_columns([TOP, ANGLE])
        described = json.loads(table.schema.metadata[b"huggingface"])
        for key in (TOP, ANGLE):
            del described["info"]["features"][key]
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), path)
    return root


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4))


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    info = read_json(root / "meta/info.json")
    change(info)
    write_json(root / "meta/info.json", info)


def edit_episodes(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def run_ffmpeg(*words: str | Path) -> None:
    newest = find_toolchain("newest").ffmpeg
    subprocess.run([newest, "-v", "error", "-y", *map(str, words)], check=True)


def remade(root: Path, key: str, *options: str, codec: str) -> Path:
    """Encode a dataset's only file of a camera anew by plain FFmpeg, and say so in its block."""
    path = video_of(root, key)
    made = path.with_name("made.mp4")
    run_ffmpeg("-i", path, *options, made)
    made.replace(path)
    edit_info(root, lambda info: info["features"][key]["info"].update({"video.codec": codec}))
    return path


def all_starts(root: Path, key: str) -> list[tuple[int, float]]:
    table = episodes_of(root)
    return list(
        zip(
            table[f"videos/{key}/file_index"].to_pylist(),
            table[f"videos/{key}/from_timestamp"].to_pylist(),
            strict=True,
        )
    )


def check_files(root: Path, key: str, fps: Fraction | int = 30) -> list[np.ndarray]:
    """Check times, rate and key frames of a camera's files by the episode table; returns each episode."""
    table = episodes_of(root)
    shown: dict[int, np.ndarray] = {}
    episodes = []
    for (file, start), length, end in zip(
        all_starts(root, key),
        table["length"].to_pylist(),
        table[f"videos/{key}/to_timestamp"].to_pylist(),
        strict=True,
    ):
        if file not in shown:
            path = video_of(root, key, file)
            info = probe(path, times=True)
            assert info.times is not None
            assert info.fps == fps
            assert [t * info.time_base for t in info.times] == [i / Fraction(fps) for i in range(info.frames)]
            shown[file] = decode(path)
            assert len(shown[file]) == info.frames
            keys = info.key_frames
        first = round(start * fps)
        assert keys is not None
        assert first in keys
        assert start == float(first / Fraction(fps))
        assert end == float((first + length) / Fraction(fps))
        episodes.append(shown[file][first : first + length])
    held = {video_of(root, key, file) for file in shown}
    assert set((root / "videos" / key).rglob("*.mp4")) == held
    assert sum(map(len, shown.values())) == sum(map(len, episodes))
    return episodes


def check_frames(shown: np.ndarray, source: np.ndarray, floor: float) -> None:
    """Each frame is its source frame, and none of the others."""
    assert len(shown) == len(source)
    apart = distances(shown, source)
    assert apart.argmin(axis=1).tolist() == list(range(len(source)))
    assert min(psnr(a, b) for a, b in zip(shown, source, strict=True)) > floor


def check_tables_are_kept(out: Path, source: Path) -> None:
    assert rows_of(out).equals(rows_of(source))
    was, now = episodes_of(source), episodes_of(out)
    assert set(now.column_names) == set(was.column_names)
    for name in was.column_names:
        if name.endswith("_timestamp"):  # LeRobot adds them up
            np.testing.assert_allclose(now[name], was[name], atol=1e-9)
        else:
            assert now[name].to_pylist() == was[name].to_pylist(), name
    assert read_json(out / "meta/stats.json") == read_json(source / "meta/stats.json")
    assert (out / "meta/tasks.parquet").read_bytes() == (source / "meta/tasks.parquet").read_bytes()


# Re-encode


@pytest.mark.own_ffprobe
def test_every_frame_of_lerobots_video_is_its_source_frame(
    toolchain: Toolchain, two_cameras: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "crf"), 16)]
    summary = reencode_dataset(two_cameras, out, overrides=overrides)
    assert (summary.episodes, summary.frames, summary.copied) == (3, 144, 3)
    shown = np.concatenate(check_files(out, ANGLE))
    check_frames(shown, decode(video_of(two_cameras, ANGLE)), 36)
    check_tables_are_kept(out, two_cameras)
    info, before = read_json(out / "meta/info.json"), read_json(two_cameras / "meta/info.json")
    assert {k: v for k, v in info.items() if k != "features"} == {
        k: v for k, v in before.items() if k != "features"
    }
    assert list(info["features"]) == list(before["features"])
    block = info["features"][ANGLE]["info"]
    made_by = read_json(out / "meta/ffenc.json")["cameras"][ANGLE]["video.encoder"]
    assert (made_by["vcodec"], made_by["ffmpeg_version"]) == ("h264", toolchain.version)
    kept = dict(before["features"][ANGLE]["info"])
    assert block == kept | {"video.codec": "h264", "video.crf": 16, "video.preset": None}
    # Depth is as asked for already: its packets are LeRobot's.
    assert packets(video_of(out, DEPTH)) == packets(video_of(LEROBOTS, DEPTH))
    assert info["features"][DEPTH] == before["features"][DEPTH]


def test_b_frames_come_out_in_the_order_they_are_shown_in(tmp_path: Path, b_frames: Path) -> None:
    out = tmp_path / "out"
    reencode_dataset(b_frames, out, cameras=["angle"], overrides=[*H264, (("camera_encoder", "crf"), 16)])
    check_frames(np.concatenate(check_files(out, ANGLE)), decode(video_of(b_frames, ANGLE)), 36)


def test_a_part_is_renumbered_and_its_frames_are_its_own(
    toolchain: Toolchain, tmp_path: Path, b_frames: Path
) -> None:
    """Encoded and copied, entered in the middle of a file with B-frames."""
    source = decode(video_of(b_frames, TOP))
    stored = packets(video_of(b_frames, TOP))
    begins = starts()
    for name, overrides, floor in (("encoded", H264, 30), ("copied", B_FRAMES, 98)):
        out = tmp_path / name
        summary = reencode_dataset(b_frames, out, cameras=["top"], episodes=[2, 0], overrides=overrides)
        assert summary.copied == (2 if name == "copied" else 0)
        first, second = check_files(out, TOP)
        check_frames(first, source[: begins[1]], floor)
        check_frames(second, source[begins[2] :], floor)
        assert rows_of(out)["index"].to_pylist() == list(range(LENGTHS[0] + LENGTHS[2]))
        state = rows_of(b_frames)["observation.state"].to_pylist()
        assert rows_of(out)["observation.state"].to_pylist() == state[: begins[1]] + state[begins[2] :]
    assert packets(video_of(out, TOP)) == stored[: begins[1]] + stored[begins[2] :]


def test_a_second_encode_has_the_same_bytes(two_cameras: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        reencode_dataset(
            *(two_cameras, tmp_path / name),
            **{"workers": workers, "encoder_threads": 1, "force": True},
            overrides=[*H264, (("depth_encoder", "preset"), "ultrafast")],
        )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# Copy


def test_what_is_as_asked_for_is_copied_packet_by_packet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = reencode_dataset(LEROBOTS, out)
    assert summary.copied == 9
    for key in (TOP, ANGLE, DEPTH):
        assert packets(video_of(out, key)) == packets(video_of(LEROBOTS, key))
        check_files(out, key)
    check_tables_are_kept(out, LEROBOTS)
    assert read_json(out / "meta/info.json") == read_json(LEROBOTS / "meta/info.json")


def test_force_encodes_what_could_be_copied(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert reencode_dataset(LEROBOTS, out, cameras=["angle"], force=True).copied == 0
    assert packets(video_of(out, ANGLE)) != packets(video_of(LEROBOTS, ANGLE))
    shown, source = np.concatenate(check_files(out, ANGLE)), decode(video_of(LEROBOTS, ANGLE))
    assert min(psnr(a, b) for a, b in zip(shown, source, strict=True)) > 30


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(
            ("crf", 31),
            ("g", 3),
            ("preset", 11),
            ("fast_decode", 1),
            ("extra_options", {"pix_fmt": "yuv420p"}),
        ),
        *(("vcodec", "hevc"), ("pix_fmt", "yuv420p10le")),
    ],
)
def test_one_setting_that_differs_is_reason_to_encode(tmp_path: Path, setting: str, value: Any) -> None:
    if setting == "extra_options":
        value = {"svtav1-params": "tune=0"}
    overrides = [(("camera_encoder", setting), value)]
    if setting == "vcodec":
        overrides += [(("camera_encoder", "preset"), None)]
    plan = plan_reencode(LEROBOTS, tmp_path / "out", cameras=["angle"], overrides=overrides)
    assert (plan.encodes, plan.streams[0].copied) == (3, frozenset())


@pytest.mark.parametrize("place", ["meta/ffenc.json", "meta/info.json", None])
def test_who_encoded_is_compared_where_it_is_known(lerobots: Path, tmp_path: Path, place: str | None) -> None:
    """Two encoders write the same codec; the block's own names do not tell which did."""
    own = {"video.encoder": {"vcodec": "libaom-av1"}}
    if place == "meta/ffenc.json":
        (lerobots / place).write_text(json.dumps({"cameras": {ANGLE: own}}))
    elif place is not None:  # where earlier versions wrote it
        edit_info(lerobots, lambda info: info["features"][ANGLE]["info"].update(own))
    plan = plan_reencode(lerobots, tmp_path / "out", cameras=["angle"], overrides=AV1)
    assert plan.encodes == (3 if place else 0)


def test_a_setting_that_is_not_known_is_none_that_is_the_same(lerobots: Path, tmp_path: Path) -> None:
    edit_info(lerobots, lambda info: info["features"][ANGLE]["info"].pop("video.crf"))
    assert plan_reencode(lerobots, tmp_path / "out", cameras=["angle"], overrides=AV1).encodes == 3


def test_streams_of_other_decoder_configuration_are_not_joined(tmp_path: Path, video_v21: Path) -> None:
    """The same settings, but for what a decoder has to know: an average of them would show rubbish."""
    root = Path(shutil.copytree(video_v21, tmp_path / "source"))
    odd = root / f"videos/chunk-000/{ANGLE}/episode_000001.mp4"
    shown = [decode(path) for path in sorted(odd.parent.glob("*.mp4"))]
    made = odd.with_name("made.mp4")
    run_ffmpeg(
        "-i", odd, "-c:v", "libx264", "-qp", "0", "-bf", "0", "-refs", "1", "-pix_fmt", "yuv420p", made
    )
    made.replace(odd)
    known = {"video.g": 2, "video.crf": 18, "video.preset": None, "video.fast_decode": 0}
    edit_info(root, lambda i: i["features"][ANGLE]["info"].update({**known, "video.extra_options": {}}))
    out = tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "crf"), 18)]
    assert reencode_dataset(root, out, cameras=["angle"], overrides=overrides).copied == 3
    assert [file for file, _ in all_starts(out, ANGLE)] == [0, 1, 2]
    for got, want in zip(check_files(out, ANGLE), shown, strict=True):
        check_frames(got, want, 50)


# Depth


@system_if_long
def test_depth_keeps_its_codes_and_its_quantiser(toolchain: Toolchain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    overrides = [(("depth_encoder", "preset"), "ultrafast")]
    summary = reencode_dataset(LEROBOTS, out, cameras=["angle_depth"], overrides=overrides)
    assert summary.copied == 0
    codes = depth_samples(video_of(LEROBOTS, DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(depth_samples(video_of(out, DEPTH), "gray12le", 160, 120), codes)
    before = read_json(LEROBOTS / "meta/info.json")["features"][DEPTH]["info"]
    block = read_json(out / "meta/info.json")["features"][DEPTH]["info"]
    own = read_json(out / "meta/ffenc.json")["cameras"][DEPTH]
    assert own["video.invalid"] == "clip"  # what a dataset without it means
    assert block == before | {"video.preset": "ultrafast"}
    assert read_json(out / "meta/stats.json")[DEPTH] == read_json(LEROBOTS / "meta/stats.json")[DEPTH]


def test_depth_goes_from_one_lossless_codec_to_another_and_back(tmp_path: Path) -> None:
    codes = depth_samples(video_of(LEROBOTS, DEPTH), "gray12le", 160, 120)
    reencode_dataset(LEROBOTS, tmp_path / "ffv1", cameras=["angle_depth"], overrides=FFV1, episodes=[1, 2])
    reencode_dataset(tmp_path / "ffv1", tmp_path / "back", overrides=HEVC_DEPTH)
    for name, codec in (("ffv1", "ffv1"), ("back", "hevc")):
        path = video_of(tmp_path / name, DEPTH)
        assert probe(path).codec == codec
        np.testing.assert_array_equal(depth_samples(path, "gray12le", 160, 120), codes[24:])
    block = read_json(tmp_path / "back/meta/info.json")["features"][DEPTH]["info"]
    assert DepthQuantizer.from_video_info(block) == DepthQuantizer(invalid="clip")


def test_millimetres_stay_millimetres(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    exact, again = tmp_path / "exact", tmp_path / "again"
    reencode_dataset(DATASET, exact, cameras=["angle_depth"], overrides=MILLIMETRES)
    assert reencode_dataset(exact, again, overrides=MILLIMETRES, force=True, episodes=[1]).copied == 0
    found = depth_samples(video_of(again, DEPTH), "gray16le", 160, 120)
    np.testing.assert_array_equal(found, depth_maps(images, 72)[24:41])
    block = read_json(again / "meta/info.json")["features"][DEPTH]["info"]
    assert not [key for key in block if "depth_min" in key]
    with pytest.raises(ConfigError, match=r"depth_encoder.pix_fmt='gray16le' depth_encoder.vcodec='ffv1'"):
        plan_reencode(exact, tmp_path / "coded", overrides=HEVC_DEPTH)


def test_a_presets_quantiser_is_for_depth_that_has_none(tmp_path: Path) -> None:
    preset = tmp_path / "robot.yaml"
    preset.write_text(
        "depth_encoder: {preset: ultrafast, depth_min: 0.3, depth_max: 3, use_log: false}\n"
        "cameras:\n  angle_depth: {depth: true}\n"
    )
    out = tmp_path / "out"
    reencode_dataset(LEROBOTS, out, preset=preset, cameras=["angle_depth"], episodes=[1])
    codes = depth_samples(video_of(LEROBOTS, DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(depth_samples(video_of(out, DEPTH), "gray12le", 160, 120), codes[24:41])
    block = read_json(out / "meta/info.json")["features"][DEPTH]["info"]
    assert DepthQuantizer.from_video_info(block) == DepthQuantizer(invalid="clip")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("depth_min", 0.5, "depth_min=0.5 was asked for, but its depth is quantised with depth_min=0.01"),
        ("invalid", "keep", "invalid=keep was asked for"),
        ("pix_fmt", "gray16le", "pix_fmt='gray16le' would change it"),
    ],
)
def test_another_quantiser_is_refused(tmp_path: Path, setting: str, value: Any, told: str) -> None:
    overrides = [*(FFV1 if setting == "pix_fmt" else []), (("depth_encoder", setting), value)]
    with pytest.raises(ConfigError, match=told):
        plan_reencode(LEROBOTS, tmp_path / "out", cameras=["angle_depth"], overrides=overrides)


@pytest.mark.parametrize("force", [True, False])
def test_depth_that_has_lost_bits_is_not_encoded_again(lerobots: Path, tmp_path: Path, force: bool) -> None:
    lossless = ["-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", "lossless=1:open-gop=0:log-level=error"]
    remade(lerobots, DEPTH, "-pix_fmt", "gray", "-g", "1", *lossless, codec="hevc")
    asked = {"cameras": ["angle_depth"], "force": force}
    if not force:
        with pytest.warns(FfencWarning, match="pix_fmt"):
            assert plan_reencode(lerobots, tmp_path / "out", **asked).encodes == 0  # it is copied
        asked["overrides"] = [(("depth_encoder", "preset"), "ultrafast")]
    with pytest.warns(FfencWarning, match="pix_fmt"), pytest.raises(ConfigError, match="has lost its codes"):
        plan_reencode(lerobots, tmp_path / "out", **asked)


@pytest.mark.parametrize(
    ("options", "stream"),
    [("-c:v mpeg4 -g 300", "mpeg4 yuv420p"), ("-c:v libx264 -g 300 -pix_fmt yuvj420p", "h264 yuvj420p")],
)
def test_a_stream_that_is_not_written_has_to_be_encoded_with_other_settings_first(
    lerobots: Path, tmp_path: Path, options: str, stream: str
) -> None:
    """Where its episodes do not begin at key frames, parts of it cannot be copied."""
    codec, pix_fmt = stream.split()
    remade(lerobots, TOP, *options.split(), codec=codec)
    edit_info(lerobots, lambda info: info["features"][TOP]["info"].update({"video.pix_fmt": pix_fmt}))
    told = rf"holds {stream}, which ffenc does not write, .*`reencode_dataset\(.*camera_encoder.vcodec='h264'"
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=told):
        edit_dataset(lerobots, out, episodes="1", cameras=["top"])
    with pytest.raises(ConfigError, match=told) as error:
        repair_dataset(lerobots, out, without_cameras=["angle", "angle_depth"])
    assert ".ffenc" not in str(error.value), "no file of the job"
    assert not out.exists()


def test_a_video_dataset_without_settings_is_copied_and_keeps_its_own(tmp_path: Path) -> None:
    """The default settings are for images; a part is cut out packet by packet."""
    source, out = tmp_path / "source", tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "g"), 50), (("camera_encoder", "crf"), 40)]
    reencode_dataset(LEROBOTS, source, cameras=["angle"], overrides=overrides)
    plan = plan_reencode(source, out, episodes=[0, 2])
    assert (plan.encodes, plan.streams[0].copied) == (0, {0, 2})
    assert plan.streams[0].why == "no settings were given, so it keeps its own"
    [stream] = plan_reencode(source, out, overrides=[(("camera_encoder", "crf"), 30)]).streams
    assert stream.encoding is not None
    config = stream.encoding.config
    assert (config.vcodec, config.g, config.crf) == ("h264", 50, 30)
    assert stream.why == "asked for: crf 30 (it has 40)"
    with pytest.raises(ConfigError, match="encoder_threads would have no effect: all cameras are copied"):
        plan_reencode(source, out, encoder_threads=2)


# v2.1 and v2.0


@pytest.mark.parametrize("copied", [True, False])
def test_v21_video_becomes_v30(tmp_path: Path, video_v21: Path, copied: bool) -> None:
    source = Path(shutil.copytree(video_v21, tmp_path / "source"))
    if copied:
        known = {"video.g": 2, "video.crf": 18, "video.preset": None, "video.fast_decode": 0}
        for key in (TOP, ANGLE):
            edit_info(
                source,
                lambda i, key=key: i["features"][key]["info"].update({**known, "video.extra_options": {}}),
            )
    out = tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "crf"), 18)]
    assert reencode_dataset(source, out, overrides=overrides).copied == (6 if copied else 0)
    for key in (TOP, ANGLE):
        for number, shown in enumerate(check_files(out, key)):
            place = f"videos/chunk-000/{key}/episode_{number:06d}.mp4"
            check_frames(shown, decode(source / place), 98 if copied else 36)
    info = read_json(out / "meta/info.json")
    block = info["features"][TOP]["info"]
    own = read_json(out / "meta/ffenc.json")
    assert ("cameras" in own) != copied  # an encoder is only known of what was encoded here
    assert (block["video.codec"], block["video.crf"], block["is_depth_map"]) == ("h264", 18, False)
    assert "video.is_depth_map" not in block
    assert info["codebase_version"] == "v3.0"
    kept = ["observation.state", "action", "timestamp", "frame_index", "episode_index", "index", "task_index"]
    assert rows_of(out).select(kept).to_pydict() == rows_of(LEROBOTS).select(kept).to_pydict()
    stats, known_stats = (
        read_json(out / "meta/stats.json"),
        read_json(FIXTURES / "aloha_image_v21_stats_v30.json"),
    )
    for key, own in known_stats.items():
        for name, value in own.items():
            np.testing.assert_allclose(stats[key][name], value, rtol=1e-12, err_msg=key)


def test_a_frame_that_no_row_has_is_left_out_by_every_command(tmp_path: Path, video_v21: Path) -> None:
    """A recorder that stopped its cameras a moment after its rows."""
    source = Path(shutil.copytree(video_v21, tmp_path / "source"))
    path = source / f"videos/chunk-000/{ANGLE}/episode_000001.mp4"
    longer = path.with_name("longer.mp4")
    run_ffmpeg("-i", path, "-vf", "tpad=stop=1:stop_mode=clone", "-c:v", "libx264", "-bf", "0", longer)
    longer.replace(path)
    assert probe(path).frames == LENGTHS[1] + 1
    fine = [*H264, (("camera_encoder", "crf"), 12)]
    shown = []
    for name, made in (
        ("reencoded", lambda out: reencode_dataset(source, out, cameras=["angle"], overrides=fine)),
        ("merged", lambda out: merge_datasets([source], out)),
    ):
        out = tmp_path / name
        made(out)
        assert verify_dataset(out).sound
        assert episodes_of(out)["length"].to_pylist() == list(LENGTHS)
        files = sorted((out / f"videos/{ANGLE}").rglob("*.mp4"))
        shown.append(np.concatenate([decode(file) for file in files]))
        assert len(shown[-1]) == sum(LENGTHS)
    assert min(psnr(a, b) for a, b in zip(*shown, strict=True)) > 33


def test_v20_names_the_block_video_info(tmp_path: Path, video_v21: Path) -> None:
    source = Path(shutil.copytree(video_v21, tmp_path / "source"))
    (source / "meta/episodes_stats.jsonl").unlink()

    def older(info: dict[str, Any]) -> None:
        info["codebase_version"] = "v2.0"
        for key in (TOP, ANGLE):
            info["features"][key]["video_info"] = info["features"][key].pop("info")
        info["features"][ANGLE]["video_info"]["video.codec"] = "av1"

    edit_info(source, older)
    out = tmp_path / "out"
    with pytest.warns(
        FfencWarning, match=r"video.codec of observation.images.angle is 'av1', but .* is h264"
    ):
        reencode_dataset(source, out, cameras=RGB, overrides=H264)
    feature = read_json(out / "meta/info.json")["features"][TOP]
    assert "video_info" not in feature
    assert read_json(out / "meta/ffenc.json")["cameras"][TOP]["video.encoder"]["vcodec"] == "h264"
    check_camera_statistics(out, [TOP, ANGLE])


# Statistics


def check_camera_statistics(out: Path, keys: Sequence[str]) -> None:
    """They are there, by episode and in all, and close to those of the images."""
    stats, known = read_json(out / "meta/stats.json"), read_json(DATASET / "meta/stats.json")
    table, images = episodes_of(out), episodes_of(DATASET)
    for key in keys:
        assert set(stats[key]) == set(known[key])
        found = [(stats[key], known[key])]
        for row in range(len(LENGTHS)):
            names = {name: f"stats/{key}/{name}" for name in known[key]}
            found.append(
                tuple({n: t[column][row].as_py() for n, column in names.items()} for t in (table, images))  # type: ignore[arg-type]
            )
        for got, want in found:
            assert got["count"] == want["count"]
            for name, apart in (("mean", 0.01), ("std", 0.01), ("min", 0.1), ("max", 0.1), ("q50", 0.03)):
                np.testing.assert_allclose(got[name], want[name], atol=apart)


def without_statistics(root: Path, keys: Sequence[str]) -> None:
    """As LeRobot's own conversion from images leaves it."""
    edit_episodes(
        root,
        lambda t: t.drop_columns(
            [
                c
                for c in t.column_names
                if c.split("/")[1:2] and c.split("/")[1] in keys and c.startswith("stats/")
            ]
        ),
    )
    stats = read_json(root / "meta/stats.json")
    write_json(root / "meta/stats.json", {k: v for k, v in stats.items() if k not in keys})


@pytest.mark.parametrize(
    ("toolchain", "copied"),
    [("newest", True), ("newest", False), ("system", False)],
    indirect=["toolchain"],
)
def test_statistics_that_are_not_there_are_computed(
    toolchain: Toolchain, two_cameras: Path, tmp_path: Path, copied: bool
) -> None:
    lerobots = Path(shutil.copytree(two_cameras, tmp_path / "source"))
    without_statistics(lerobots, [ANGLE, DEPTH])
    out = tmp_path / "out"
    overrides = [] if copied else [*H264, (("depth_encoder", "preset"), "ultrafast")]
    assert reencode_dataset(lerobots, out, overrides=overrides).copied == (6 if copied else 0)
    check_camera_statistics(out, [ANGLE])
    # Depth's are of what the codes stand for: beyond the range there is only its end.
    quantizer = DepthQuantizer(invalid="clip")
    depth = quantizer.dequantize(depth_samples(video_of(LEROBOTS, DEPTH), "gray12le", 160, 120))
    stats = read_json(out / "meta/stats.json")[DEPTH]
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(stats[name])[0], getattr(depth, name)(), rtol=1e-5)
    was, now = episodes_of(two_cameras), episodes_of(out)
    assert set(now.column_names) == set(was.column_names)


# Sources that are damaged or unusual


def refused(root: Path, out: Path, *told: str, overrides: Any = (), **arguments: Any) -> None:
    """The error says it, and nothing of a result is left."""
    arguments.setdefault("cameras", ["top"])
    with pytest.raises(FfencError) as caught:
        reencode_dataset(root, out, overrides=overrides, workers=1, **arguments)
    for words in told:
        assert words in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.rglob("*partial*"))
    assert not list(out.parent.rglob("cuts/*"))


def without_packet(root: Path, number: int, *, moved_up: bool = False) -> None:
    path = video_of(root, TOP)
    stamps = f"noise=drop=eq(n\\,{number})" + (",setts=ts=N*512" if moved_up else "")
    run_ffmpeg("-i", video_of(LEROBOTS, TOP), "-c", "copy", "-bsf:v", stamps, path)


@pytest.mark.parametrize("overrides", [[], H264])
@pytest.mark.parametrize(
    ("number", "moved_up", "told"),
    [
        (0, False, "starts at 0.000000 s, and the nearest frame, 0, is at 0.033333 s"),
        (30, False, "episode 1 of observation.images.top: frame 6 is at 1.033333 s"),
        (31, True, "has 71 frames, its episodes have 72: a frame is missing"),
        (71, False, "has 71 frames, its episodes have 72: a frame is missing"),
    ],
)
def test_a_frame_that_is_missing_is_named(
    lerobots: Path, tmp_path: Path, overrides: Any, number: int, moved_up: bool, told: str
) -> None:
    without_packet(lerobots, number, moved_up=moved_up)
    refused(lerobots, tmp_path / "out", "file-000.mp4", told, overrides=overrides)


def test_a_frame_that_is_missing_in_an_episode_that_is_left_out_is_found_too(
    lerobots: Path, tmp_path: Path
) -> None:
    """Where the others were moved up, any episode may show its neighbour's frames."""
    without_packet(lerobots, 10, moved_up=True)
    refused(lerobots, tmp_path / "out", "has 71 frames, its episodes have 72", overrides=H264, episodes=[1])


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (0.8 + 1 / 30, "is wrong"),
        (0.8 - 1 / 30, "within episode 0"),
        (0.8002, "is wrong"),
        (float("nan"), "row 1 does not say where episode 1"),
    ],
)
def test_a_start_that_is_wrong_is_an_error(lerobots: Path, tmp_path: Path, begin: float, told: str) -> None:
    name = f"videos/{TOP}/from_timestamp"

    def moved(table: pa.Table) -> pa.Table:
        return table.set_column(
            table.column_names.index(name), name, pa.array([0, begin, 41 / 30], pa.float64())
        )

    edit_episodes(lerobots, moved)
    refused(lerobots, tmp_path / "out", told)


@pytest.mark.parametrize("overrides", [[], H264])
@pytest.mark.parametrize("what", ["missing", "empty", "half", "not at the front"])
def test_a_file_that_is_not_whole_is_an_error(
    lerobots: Path, tmp_path: Path, overrides: Any, what: str
) -> None:
    path = video_of(lerobots, TOP)
    if what == "not at the front":
        run_ffmpeg("-i", video_of(LEROBOTS, TOP), "-c", "copy", path)
    content = path.read_bytes()
    path.unlink()
    if what != "missing":
        path.write_bytes(content[: 0 if what == "empty" else len(content) // 2])
    refused(lerobots, tmp_path / "out", str(path), overrides=overrides)


def damage(path: Path, *numbers: int) -> None:
    """Overwrite packets but for their first bytes."""
    listed = subprocess.run(
        [newest_program("ffprobe"), "-v", "error", "-select_streams", "v:0"]
        + ["-show_entries", "packet=pos,size", "-of", "csv=p=0", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    content = bytearray(path.read_bytes())
    for number in numbers:
        size, place = map(int, listed[number].split(",")[:2])
        content[place + 4 : place + size] = bytes(size - 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("toolchain", "key"),
    [
        ("newest", ANGLE),
        ("newest", DEPTH),
        ("system", DEPTH),
        pytest.param("system", ANGLE, marks=pytest.mark.long),
    ],
    indirect=["toolchain"],
)
def test_a_damaged_frame_is_named_with_camera_and_episode(
    toolchain: Toolchain, lerobots: Path, tmp_path: Path, key: str
) -> None:
    damage(video_of(lerobots, key), 32)  # of HEVC, decoders leave such a frame out without a word
    with (
        pytest.raises(SourceError, match=r"frame 3[12] of 72 cannot be decoded"),
        VideoReader(video_of(lerobots, key), depth=False if key == DEPTH else None) as reader,
    ):
        list(reader.each(range(24, 41)))
    overrides = [(("depth_encoder", "preset"), "ultrafast")] if key == DEPTH else H264
    told = (
        f"{key}, episode 1: ",
        f"file-000.mp4: frame {32 if key == ANGLE else 31} of 72 cannot be decoded",
    )
    refused(lerobots, tmp_path / "out", *told, cameras=[key], overrides=overrides)
    # Its packets would be copied unseen, but for their statistics they are decoded.
    without_statistics(lerobots, [key])
    refused(lerobots, tmp_path / "copy", *told, cameras=[key])


@pytest.mark.parametrize(
    ("toolchain", "computed"),
    [("newest", True), ("newest", False), ("system", False)],
    indirect=["toolchain"],
)
def test_damage_in_an_episode_is_no_fault_of_the_one_before(
    toolchain: Toolchain, lerobots: Path, tmp_path: Path, computed: bool
) -> None:
    """Decoders work ahead, and meet it while they are still at the last frames before."""
    damage(video_of(lerobots, ANGLE), *range(24, 34))
    if computed:
        without_statistics(lerobots, [ANGLE])
    out = tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "crf"), 16)]
    reencode_dataset(lerobots, out, cameras=["angle"], episodes=[0], overrides=overrides)
    check_frames(check_files(out, ANGLE)[0], decode(video_of(LEROBOTS, ANGLE))[:24], 36)
    assert read_json(out / "meta/stats.json")[ANGLE]["count"] == [24]
    refused(lerobots, tmp_path / "whole", "episode 1: ", "frame 24 of 72", cameras=["angle"], overrides=H264)


def test_a_damaged_first_frame_is_named_too(lerobots: Path, tmp_path: Path) -> None:
    damage(video_of(lerobots, TOP), 0)
    refused(lerobots, tmp_path / "out", "frame 0 of 72 cannot be decoded", overrides=H264)


IN_A_GROUP, OPEN = ("-g", "10"), ("-g", "24", "-x264-params", "open-gop=1:b-adapt=0")


@pytest.mark.parametrize(
    ("toolchain", "options"),
    [("newest", IN_A_GROUP), ("newest", OPEN), ("system", OPEN)],
    indirect=["toolchain"],
)
def test_where_a_file_cannot_be_cut_it_is_not(
    toolchain: Toolchain, lerobots: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    """An episode that starts within a group of pictures, or on a key frame that those before it need."""
    path = remade(
        *(lerobots, ANGLE, "-c:v", "libx264", "-crf", "18", "-bf", "3", "-sc_threshold", "0", *options),
        codec="h264",
    )
    info = probe(path, times=True)
    assert info.closed is not None
    assert 24 not in info.closed
    known = {"video.g": 2, "video.crf": 18, "video.preset": None}
    edit_info(lerobots, lambda info: info["features"][ANGLE]["info"].update(known))
    overrides = [*H264, (("camera_encoder", "crf"), 18)]
    out = tmp_path / "out"
    with pytest.warns(
        FfencWarning, match=r"episode 1 is re-encoded, not copied: .*its first frame, 24, is not"
    ):
        made = reencode_dataset(lerobots, out, cameras=["angle"], overrides=overrides, episodes=[1])
    assert made.copied == 0
    check_frames(check_files(out, ANGLE)[0], decode(path)[24:41], 36)


def test_open_groups_of_hevc_are_entered_anywhere(
    toolchain: Toolchain, lerobots: Path, tmp_path: Path
) -> None:
    made = "keyint=8:min-keyint=8:scenecut=0:open-gop=1:bframes=3:log-level=error"
    path = remade(
        lerobots,
        ANGLE,
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-crf",
        "12",
        "-tag:v",
        "hvc1",
        "-x265-params",
        made,
        codec="hevc",
    )
    info = probe(path, times=True)
    assert info.closed != info.key_frames
    source = decode(path)
    for episode, start in enumerate(starts()):
        out = tmp_path / str(episode)
        overrides = [*H264, (("camera_encoder", "crf"), 16)]
        reencode_dataset(lerobots, out, cameras=["angle"], overrides=overrides, episodes=[episode])
        check_frames(check_files(out, ANGLE)[0], source[start : start + LENGTHS[episode]], 36)


def test_files_of_one_camera_have_to_be_of_one_size(tmp_path: Path, video_v21: Path) -> None:
    root = Path(shutil.copytree(video_v21, tmp_path / "source"))
    path = root / f"videos/chunk-000/{TOP}/episode_000001.mp4"
    made = path.with_name("made.mp4")
    run_ffmpeg("-i", path, "-c:v", "libx264", "-vf", "scale=160:120", made)
    made.replace(path)
    refused(root, tmp_path / "out", str(path), "width is 160, but 320", overrides=H264)


def test_a_wrong_block_is_told_and_the_file_is_believed(lerobots: Path, tmp_path: Path) -> None:
    edit_info(
        lerobots,
        lambda info: info["features"][TOP]["info"].update({"video.codec": "h264", "video.width": 1}),
    )
    out = tmp_path / "out"
    with pytest.warns(FfencWarning, match=r"video.codec of observation.images.top is 'h264', but .* is av1"):
        assert reencode_dataset(lerobots, out, cameras=["top"]).copied == 3
    block = read_json(out / "meta/info.json")["features"][TOP]["info"]
    assert (block["video.codec"], block["video.width"]) == ("av1", 320)


@system_if_long
def test_sound_is_left_out_whatever_stream_it_is(
    toolchain: Toolchain, tmp_path: Path, video_v21: Path
) -> None:
    """The second episode's file has sound before its pictures, the third's behind them."""
    root = Path(shutil.copytree(video_v21, tmp_path / "source"))
    folder = root / f"videos/chunk-000/{ANGLE}"
    stored = [packets(path) for path in sorted(folder.glob("*.mp4"))]
    for episode, streams in ((1, ("-map", "1:a", "-map", "0:v")), (2, ("-map", "0:v", "-map", "1:a"))):
        path, made = folder / f"episode_{episode:06d}.mp4", folder / "made.mp4"
        sound = ["-f", "lavfi", "-i", "sine=duration=1", "-c:v", "copy", "-c:a", "aac"]
        scale = ["-video_track_timescale", "15360", "-movie_timescale", "15360"]
        run_ffmpeg("-i", path, *sound, *streams, *scale, made)
        made.replace(path)
    known = {"video.g": 2, "video.crf": 18, "video.preset": None, "video.fast_decode": 0}
    edit_info(root, lambda i: i["features"][ANGLE]["info"].update({**known, "video.extra_options": {}}))
    out = tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "crf"), 18)]
    assert reencode_dataset(root, out, cameras=["angle"], overrides=overrides).copied == 3
    assert packets(video_of(out, ANGLE)) == [packet for file in stored for packet in file]
    assert read_json(out / "meta/info.json")["features"][ANGLE]["info"]["has_audio"] is False
    check_files(out, ANGLE)
    encoded = tmp_path / "encoded"
    reencode_dataset(root, encoded, cameras=["angle"], overrides=overrides, force=True)
    check_frames(np.concatenate(check_files(encoded, ANGLE)), decode(video_of(out, ANGLE)), 36)


def test_a_file_with_frames_that_are_never_shown_is_cut_at_those_that_are(
    toolchain: Toolchain, tmp_path: Path, video_v21: Path
) -> None:
    """A player's trim leaves packets before the start, which an edit list hides."""
    root = Path(shutil.copytree(video_v21, tmp_path / "source"))
    path = root / f"videos/chunk-000/{ANGLE}/episode_000001.mp4"
    whole = path.with_name("whole.mp4")
    run_ffmpeg(
        *(
            "-i",
            path,
            "-vf",
            "tpad=start=5",
            "-c:v",
            "libx264",
            "-crf",
            "18",
            "-g",
            "50",
            "-bf",
            "0",
            "-sc_threshold",
            "0",
        ),
        whole,
    )
    run_ffmpeg("-ss", f"{5 / 30:.6f}", "-i", whole, "-c", "copy", path)
    whole.unlink()
    info = probe(path, times=True)
    assert (info.frames, info.key_frames, info.hidden) == (17, (), 5)
    known = {"video.g": 2, "video.crf": 18, "video.preset": None, "video.fast_decode": 0}
    edit_info(root, lambda i: i["features"][ANGLE]["info"].update({**known, "video.extra_options": {}}))
    overrides = [*H264, (("camera_encoder", "crf"), 18)]
    out = tmp_path / "out"
    with pytest.warns(FfencWarning) as said:
        assert reencode_dataset(root, out, cameras=["angle"], overrides=overrides).copied == 2
    texts = " ".join(str(one.message) for one in said)
    assert "episode 1 is re-encoded, not copied" in texts
    assert "episode_000001.mp4: 5 frames hidden by its edit list left out, as players do" in texts
    check_frames(check_files(out, ANGLE)[1], decode(path), 36)
    notes = verify_dataset(root).notes
    assert [(note.kind, note.camera) for note in notes if note.kind == "hidden-frames"] == [
        ("hidden-frames", ANGLE)
    ]
    assert not [note for note in verify_dataset(out).notes if note.kind == "hidden-frames"]
    with pytest.warns(FfencWarning, match="5 frames hidden by its edit list"):  # not only the first job
        clip_of(EpisodeVideo(ANGLE, 1, path, 0.0, 17), Fraction(30))


def small_dataset(tmp_path: Path, lengths: Sequence[int], size: tuple[int, int], **arguments: Any) -> Path:
    """Episodes of frames that cannot be taken for each other, as video."""
    rng = np.random.default_rng(0)
    tree = tmp_path / "tree"
    for episode, length in enumerate(lengths):
        folder = tree / f"episode_{episode:02d}/cam"
        folder.mkdir(parents=True)
        for i in range(length):
            coarse = rng.integers(0, 255, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
            frame = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[: size[0], : size[1]]
            Image.fromarray(frame).save(folder / f"{i}.png")
    out = tmp_path / "it's 50%d [a] source"
    reencode_dataset(tree, out, **arguments)
    return out


@pytest.mark.parametrize(
    ("toolchain", "lengths"),
    [("system", [3, 1, 1, 12]), ("newest", [1]), ("newest", [3, 1, 1, 12])],
    indirect=["toolchain"],
)
def test_short_episodes_at_a_rate_that_is_not_whole(
    toolchain: Toolchain, tmp_path: Path, lengths: Sequence[int]
) -> None:
    """From a path with an apostrophe, a percent sign and brackets to another."""
    fps = Fraction(30000, 1001)
    source = small_dataset(tmp_path, lengths, (48, 64), fps=fps, overrides=B_FRAMES, **newest_programs())
    before = decode(video_of(source, CAM))
    stored = packets(video_of(source, CAM))
    for name, overrides, floor in (("copied", B_FRAMES, 98), ("encoded", H264, 24)):
        out = tmp_path / f"it's 50%d {name}"
        copied = reencode_dataset(source, out, overrides=overrides).copied
        assert copied == (len(lengths) if name == "copied" else 0)
        episodes = check_files(out, CAM, fps)
        assert [len(frames) for frames in episodes] == list(lengths)
        check_frames(np.concatenate(episodes), before, floor)
        # Every other episode: each by itself is cut out of the file.
        part = tmp_path / f"it's a part, {name}"
        chosen = list(range(0, len(lengths), 2))
        reencode_dataset(source, part, overrides=overrides, episodes=chosen)
        begins = [sum(lengths[:n]) for n in chosen]
        own = [i for n, begin in zip(chosen, begins, strict=True) for i in range(begin, begin + lengths[n])]
        check_frames(np.concatenate(check_files(part, CAM, fps)), before[own], floor)
        if name == "copied":
            assert packets(video_of(part, CAM)) == [
                packet
                for n, begin in zip(chosen, begins, strict=True)
                for packet in stored[begin : begin + lengths[n]]
            ]


def test_sizes_that_are_odd(tmp_path: Path) -> None:
    full = [*H264, (("camera_encoder", "pix_fmt"), "yuv444p")]
    source = small_dataset(tmp_path, [9, 8], (33, 47), fps=25, overrides=full)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="the size must be even"):
        reencode_dataset(source, out, overrides=H264)
    reencode_dataset(source, out, overrides=[*full, (("camera_encoder", "crf"), 16)])
    check_frames(np.concatenate(check_files(out, CAM, 25)), decode(video_of(source, CAM)), 32)


def test_cameras_of_images_and_of_video_in_one_dataset(tmp_path: Path, dataset_copy: Path) -> None:
    shutil.copytree(LEROBOTS / "videos" / TOP, dataset_copy / "videos" / TOP)
    theirs = read_json(LEROBOTS / "meta/info.json")
    edit_info(dataset_copy, lambda info: info["features"].update({TOP: theirs["features"][TOP]}))
    edit_info(dataset_copy, lambda info: info.update({"video_path": theirs["video_path"]}))
    path = dataset_copy / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path).drop_columns([TOP])
    described = json.loads(table.schema.metadata[b"huggingface"])
    del described["info"]["features"][TOP]
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), path)
    places = episodes_of(LEROBOTS)

    def with_places(table: pa.Table) -> pa.Table:
        for name in (n for n in places.column_names if n.startswith(f"videos/{TOP}/")):
            table = table.append_column(name, places[name])
        return table

    edit_episodes(dataset_copy, with_places)
    out = tmp_path / "out"
    summary = reencode_dataset(dataset_copy, out, overrides=[(("depth_encoder", "preset"), "ultrafast")])
    assert (summary.frames, summary.copied) == (216, 3)
    assert packets(video_of(out, TOP)) == packets(video_of(LEROBOTS, TOP))
    assert len(np.concatenate(check_files(out, ANGLE))) == 72
    codes = depth_samples(video_of(LEROBOTS, DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(depth_samples(video_of(out, DEPTH), "gray12le", 160, 120), codes)
    assert read_json(out / "meta/stats.json") == read_json(DATASET / "meta/stats.json")


# Interruptions


def words(out: Path, *more: str) -> list[str]:
    """Encodes three units and copies three."""
    asked = ["--camera_encoder.vcodec=h264", "--workers", "1", "--encoder-threads", "1"]
    return ["reencode", str(LEROBOTS), str(out), "--cameras", "angle,angle_depth", *asked, *more]


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ffenc", *words(out, *more)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    cameras = ["angle", "angle_depth"]
    reencode_dataset(LEROBOTS, out, cameras=cameras, overrides=H264, workers=1, encoder_threads=1)
    return contents(out)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_run_is_taken_up_and_ends_as_an_unbroken_one(
    unbroken: dict[str, str], tmp_path: Path, number: signal.Signals, ffenc: CommandLine
) -> None:
    out, sources = tmp_path / "out", contents(LEROBOTS)
    run = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_pieces(tmp_path, 2, run)
    run.send_signal(signal.SIGSTOP)
    assert "is being written by another run of ffenc" in ffenc.refused(*words(out, "--resume"))
    run.send_signal(number)
    run.send_signal(signal.SIGCONT)
    run.wait(timeout=60)
    wait_until_gone(tmp_path)
    assert not out.exists()
    assert ffenc.done(*words(out, "--resume", "--json")).json["resumed_encodes"] >= 2
    assert contents(out) == unbroken
    assert everything_in(tmp_path)[0] == out.name
    assert not list(tmp_path.glob(".*"))
    assert contents(LEROBOTS) == sources


def test_a_full_disk_is_told_and_the_run_can_go_on(unbroken: dict[str, str], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    out = small / "out"
    script = f"""
set -eu
mount -t tmpfs -o size=300k tmpfs {small}
if {shlex.join(command(out, "--force-space"))} 2> {tmp_path}/said; then exit 7; fi
test ! -e {out}
test -z "$(find {small} -name '*partial*' -o -name 'cuts/*')"
mount -o remount,size=100m {small}
{shlex.join(command(out, "--resume"))}
cp -r {out} {tmp_path}/kept
"""
    namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    subprocess.run([*namespace, "sh", "-c", script], check=True, capture_output=True)
    said = (tmp_path / "said").read_text()
    assert "disk is full" in said or "No space left" in said
    assert "free some space" in said
    assert "Traceback" not in said
    assert contents(tmp_path / "kept") == unbroken


def test_a_dry_run_shows_the_commands_and_writes_nothing(tmp_path: Path, ffenc: CommandLine) -> None:
    shown = ffenc.done(*words(tmp_path / "out", "--dry-run")).out
    assert "libx264" in shown
    assert "file-000.mp4" in shown
    copied = ffenc.done("reencode", LEROBOTS, tmp_path / "out", "--dry-run").out
    assert copied.count("copied, packet by packet") == 3
    assert "sample" not in copied
    assert everything_in(tmp_path) == []
