"""A dataset of images becomes a dataset of video with nothing lost, on both FFmpegs."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
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
    DestinationError,
    FfencWarning,
    VideoEncoderConfig,
    load_preset,
    plan_reencode,
    probe,
    reencode_dataset,
)
from ffenc.dataset.job.estimate import estimate
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    LENGTHS,
    TOP,
    decode,
    everything_in,
    find_toolchain,
    pixels,
    psnr,
    starts,
)
from tests.support.make import H264, RGB
from tests.support.read import episodes_of, read_json, rows_of, video_of


@pytest.mark.parametrize(
    ("toolchain", "vcodec"),
    [*(("newest", vcodec) for vcodec in ("libsvtav1", "h264", "hevc")), ("system", "h264")],
    indirect=["toolchain"],
)
def test_every_frame_is_its_source_frame(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]], vcodec: str
) -> None:
    overrides = [(("camera_encoder", "vcodec"), vcodec)]
    large = vcodec == "h264" and toolchain == find_toolchain("newest")
    floors = {TOP: 30, ANGLE: 26} if large else {ANGLE: 26}
    summary = reencode_dataset(DATASET, tmp_path / "out", cameras=list(floors), overrides=overrides)
    assert (summary.episodes, summary.frames) == (3, 72 * len(floors))
    for key, floor in floors.items():
        path = video_of(tmp_path / "out", key)
        info = probe(path, times=True)
        assert info.times is not None
        assert info.key_frames is not None
        assert [t * info.time_base for t in info.times] == [Fraction(i, 30) for i in range(72)]
        assert set(starts()) <= set(info.key_frames)
        assert info.fps == 30
        shown = decode(path)
        assert len(shown) == 72
        assert min(psnr(got, pixels(want)) for got, want in zip(shown, images[key], strict=True)) > floor


def test_tables_statistics_and_tasks_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    reencode_dataset(DATASET, out, cameras=RGB, overrides=H264)
    before, after = rows_of(DATASET), rows_of(out)
    kept = [name for name in before.column_names if name not in (TOP, ANGLE, DEPTH)]
    assert after.column_names == kept
    assert after.equals(before.select(kept))
    assert pq.ParquetFile(out / "data/chunk-000/file-000.parquet").num_row_groups == 3
    described = json.loads(after.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(described) == kept
    source = json.loads(before.schema.metadata[b"huggingface"])["info"]["features"]
    assert described == {name: source[name] for name in kept}

    was, now = episodes_of(DATASET), episodes_of(out)
    lost = set(was.column_names) - set(now.column_names)
    assert lost == {name for name in was.column_names if name.startswith(f"stats/{DEPTH}/")}
    for name in set(was.column_names) - lost:
        assert now[name].to_pylist() == was[name].to_pylist(), name
    for key in (TOP, ANGLE):
        assert now[f"videos/{key}/from_timestamp"].to_pylist() == [i / 30 for i in starts()]
        assert now[f"videos/{key}/to_timestamp"].to_pylist() == [24 / 30, 41 / 30, 72 / 30]
        assert now[f"videos/{key}/chunk_index"].to_pylist() == [0, 0, 0]
        assert now[f"videos/{key}/file_index"].to_pylist() == [0, 0, 0]

    stats = read_json(DATASET / "meta/stats.json")
    del stats[DEPTH]
    assert read_json(out / "meta/stats.json") == stats
    assert (out / "meta/tasks.parquet").read_bytes() == (DATASET / "meta/tasks.parquet").read_bytes()


def test_the_info_block_says_what_the_file_holds_and_how_it_was_made(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    overrides = [*H264, (("camera_encoder", "crf"), 20), (("camera_encoder", "extra_options"), {"bf": 2})]
    reencode_dataset(DATASET, out, cameras=["top"], overrides=overrides)
    info = read_json(out / "meta/info.json")
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert (info["total_episodes"], info["total_frames"], info["splits"]) == (3, 72, {"train": "0:3"})
    assert DEPTH not in info["features"]
    feature = info["features"][TOP]
    assert (feature["dtype"], feature["shape"]) == ("video", [240, 320, 3])
    block = dict(feature["info"])
    made_by = read_json(out / "meta/ffenc.json")["cameras"][TOP]["video.encoder"]
    assert block == {
        "video.height": 240,
        "video.width": 320,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.fps": 30,
        "video.channels": 3,
        "has_audio": False,
        "video.g": 2,
        "video.crf": 20,
        "video.preset": None,
        "video.fast_decode": 0,
        "video.video_backend": "pyav",
        "video.extra_options": {"bf": 2},
        "is_depth_map": False,
    }
    assert (made_by["encoder"], made_by["ffmpeg_version"]) == ("libx264", toolchain.version)
    assert made_by["encoder_version"].startswith("16")
    assert VideoEncoderConfig.from_video_info(feature["info"]) == VideoEncoderConfig(
        vcodec="h264", crf=20, extra_options={"bf": 2}
    )


def test_a_preset_names_cameras_and_the_others_take_its_default(tmp_path: Path) -> None:
    preset = tmp_path / "robot.yaml"
    preset.write_text(
        "camera_encoder: {vcodec: h264, crf: 25}\n"
        "cameras:\n  top: {width: 640, height: 480, encoder: {vcodec: hevc, crf: 18, preset: ultrafast}}\n"
    )
    with pytest.warns(FfencWarning, match="does not name angle"):
        reencode_dataset(DATASET, tmp_path / "out", preset=preset, cameras=RGB)
    features = read_json(tmp_path / "out/meta/info.json")["features"]
    found = {
        key: (features[key]["info"]["video.codec"], features[key]["info"]["video.crf"])
        for key in (TOP, ANGLE)
    }
    assert found == {TOP: ("hevc", 18), ANGLE: ("h264", 25)}
    assert probe(video_of(tmp_path / "out", TOP)).codec == "hevc"


def test_episodes_left_out_are_gone_and_the_rest_numbered_anew(
    tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    out = tmp_path / "out"
    reencode_dataset(DATASET, out, cameras=["observation.images.top"], episodes=[2, 0], overrides=H264)
    rows, source = rows_of(out), rows_of(DATASET)
    chosen = [*range(24), *range(41, 72)]
    assert rows["index"].to_pylist() == list(range(55))
    assert rows["episode_index"].to_pylist() == [0] * 24 + [1] * 31
    assert rows["observation.state"].to_pylist() == source["observation.state"].take(chosen).to_pylist()
    assert rows["task_index"].to_pylist() == source["task_index"].take(chosen).to_pylist()
    table = episodes_of(out)
    assert table["episode_index"].to_pylist() == [0, 1]
    assert table["dataset_from_index"].to_pylist() == [0, 24]
    assert table["dataset_to_index"].to_pylist() == [24, 55]
    assert table["stats/index/max"].to_pylist() == [[23], [54]]
    info = read_json(out / "meta/info.json")
    assert (info["total_episodes"], info["total_frames"], info["splits"]) == (2, 55, {"train": "0:2"})
    stats = read_json(out / "meta/stats.json")
    state = np.array(source["observation.state"].take(chosen).to_pylist())
    np.testing.assert_allclose(stats["observation.state"]["mean"], state.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["observation.state"]["std"], state.std(0), atol=1e-6)
    np.testing.assert_allclose(stats["observation.state"]["max"], state.max(0), atol=1e-6)
    assert stats["index"]["max"] == [54]
    assert stats["index"]["count"] == [55]
    shown = decode(video_of(out, TOP))
    for got, row in zip(shown, chosen, strict=True):
        assert psnr(got, pixels(images[TOP][row])) > 30


def test_a_png_tree_becomes_a_whole_dataset(
    tmp_path: Path, png_tree: Path, images: dict[str, list[bytes]]
) -> None:
    out = tmp_path / "out"
    reencode_dataset(png_tree, out, fps=25, task="transfer the cube", overrides=H264)
    rows = rows_of(out)
    assert rows.column_names == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    assert rows["frame_index"].to_pylist() == [i for n in LENGTHS for i in range(n)]
    np.testing.assert_allclose(rows["timestamp"].to_numpy(), rows["frame_index"].to_numpy() / 25, atol=1e-6)
    table = episodes_of(out)
    assert table["tasks"].to_pylist() == [["transfer the cube"]] * 3
    assert table["length"].to_pylist() == list(LENGTHS)
    info = read_json(out / "meta/info.json")
    assert (info["fps"], info["total_frames"], info["total_tasks"]) == (25, 72, 1)
    assert (
        json.loads(rows.schema.metadata[b"huggingface"])["info"]["features"]["timestamp"]["dtype"]
        == "float32"
    )
    assert pq.read_table(out / "meta/tasks.parquet").to_pylist() == [
        {"task_index": 0, "task": "transfer the cube"}
    ]
    for key in (TOP, ANGLE):
        shown = decode(video_of(out, key))
        assert min(psnr(got, pixels(want)) for got, want in zip(shown, images[key], strict=True)) > 28

    # Statistics are computed where the source has none: of all these frames, as there are fewer than 100.
    stats = read_json(out / "meta/stats.json")
    assert set(stats) == set(info["features"])
    values = np.concatenate([pixels(image).reshape(-1, 3) for image in images[ANGLE]]) / 255
    assert stats[ANGLE]["count"] == [72]
    np.testing.assert_allclose(np.ravel(stats[ANGLE]["mean"]), values.mean(0), atol=1e-6)
    np.testing.assert_allclose(np.ravel(stats[ANGLE]["std"]), values.std(0), atol=1e-6)
    known = read_json(DATASET / "meta/stats.json")  # of every second pixel of the larger camera
    np.testing.assert_allclose(np.ravel(stats[TOP]["mean"]), np.ravel(known[TOP]["mean"]), atol=2e-3)
    assert table[f"stats/{TOP}/count"].to_pylist() == [[24], [17], [31]]


def test_other_tree_layouts_are_known(tmp_path: Path, png_tree: Path) -> None:
    lerobot = tmp_path / "lerobot"
    for folder in sorted(png_tree.glob("episode_*/top")):
        target = lerobot / "images" / TOP / folder.parent.name
        target.mkdir(parents=True)
        for image in folder.iterdir():
            image.rename(target / image.name.replace("-", "_"))
    flat = png_tree / "episode_000002/angle"
    reencode_dataset(lerobot, tmp_path / "a", fps=30, overrides=H264)
    assert episodes_of(tmp_path / "a")["length"].to_pylist() == list(LENGTHS)
    assert probe(video_of(tmp_path / "a", TOP)).frames == 72
    reencode_dataset(flat, tmp_path / "b", fps=30, overrides=H264)
    assert probe(video_of(tmp_path / "b", ANGLE)).frames == 31


def test_files_end_before_the_size_limit_and_episodes_never_span_two(
    dataset_copy: Path, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    info = read_json(dataset_copy / "meta/info.json")
    info |= {"video_files_size_in_mb": 0.02, "chunks_size": 2}
    (dataset_copy / "meta/info.json").write_text(json.dumps(info))
    out = tmp_path / "out"
    reencode_dataset(dataset_copy, out, cameras=["top"], overrides=H264)
    table = episodes_of(out)
    places = list(
        zip(
            table[f"videos/{TOP}/chunk_index"].to_pylist(),
            table[f"videos/{TOP}/file_index"].to_pylist(),
            strict=True,
        )
    )
    assert places == [(0, 0), (0, 1), (1, 0)]
    assert table[f"videos/{TOP}/from_timestamp"].to_pylist() == [0, 0, 0]
    for (chunk, file), length, start in zip(places, LENGTHS, starts(), strict=True):
        shown = decode(out / f"videos/{TOP}/chunk-{chunk:03d}/file-{file:03d}.mp4")
        assert len(shown) == length
        assert psnr(shown[-1], pixels(images[TOP][start + length - 1])) > 30


@pytest.mark.parametrize(
    ("toolchain", "fps"),
    [
        *(("newest", fps) for fps in (10, 25, 29.97, "30000/1001")),
        pytest.param("system", "30000/1001", marks=pytest.mark.long),
    ],
    indirect=["toolchain"],
)
def test_joined_episodes_stay_on_the_grid_however_many(
    toolchain: Toolchain, tmp_path: Path, fps: object, images: dict[str, list[bytes]]
) -> None:
    """8 episodes of 3 and 4 frames with B-frames; hundreds are joined in the tests of joining."""
    tree = tmp_path / "tree"
    count = 0
    for episode in range(8):
        folder = tree / f"episode_{episode:03d}/cam"
        folder.mkdir(parents=True)
        for i in range(3 + episode % 2):
            (folder / f"{i}.png").write_bytes(images[ANGLE][count % 72])
            count += 1
    overrides = [*H264, (("camera_encoder", "g"), None), (("camera_encoder", "extra_options"), {"bf": 3})]
    reencode_dataset(tree, tmp_path / "out", fps=fps, overrides=overrides)
    info = probe(video_of(tmp_path / "out", "observation.images.cam"), times=True)
    rate = Fraction(str(fps))
    assert info.fps == rate
    assert info.times is not None
    assert [t * info.time_base for t in info.times] == [i / rate for i in range(count)]


def test_extra_files_go_along(dataset_copy: Path, tmp_path: Path) -> None:
    (dataset_copy / "README.md").write_text("about")
    (dataset_copy / "meta/subtasks.parquet").write_bytes(b"x")
    reencode_dataset(dataset_copy, tmp_path / "out", cameras=RGB, overrides=H264)
    assert (tmp_path / "out/README.md").read_text() == "about"
    assert (tmp_path / "out/meta/subtasks.parquet").read_bytes() == b"x"


def test_a_plan_writes_nothing_and_its_estimate_is_near(tmp_path: Path) -> None:
    plan = plan_reencode(DATASET, tmp_path / "out", cameras=RGB, overrides=H264)
    guess = estimate(plan)
    assert (plan.frames, plan.rows, len(plan.episodes)) == (144, 72, 3)
    assert set(plan.commands()) == {TOP, ANGLE}
    assert everything_in(tmp_path) == []
    summary = reencode_dataset(DATASET, tmp_path / "out", cameras=RGB, overrides=H264)
    assert 0.5 < guess.video_bytes / summary.video_bytes < 2


def test_the_estimate_of_video_is_of_the_frames_that_stay(two_cameras: Path, tmp_path: Path) -> None:
    wanted = {"cameras": [ANGLE], "overrides": H264, "fps": 10}
    guess = estimate(plan_reencode(two_cameras, tmp_path / "out", **wanted))
    summary = reencode_dataset(two_cameras, tmp_path / "out", **wanted)
    assert guess.sampled_frames == 8  # every third of 24
    assert 0.5 < guess.video_bytes / summary.video_bytes < 2


def test_memory_is_that_of_one_page_with_long_episodes(tmp_path: Path) -> None:
    """250 images of 700 kB each: one page of 175 MB, as LeRobot's writer makes it.

    Nearly all of their bytes are in a chunk that is not pixels: an encoder would be long at so much noise.
    """
    rng = np.random.default_rng(0)
    source = tmp_path / "source"
    plain = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 100, 50)).save(plain, "PNG")
    n = 250
    column = [{"bytes": padded(plain.getvalue(), rng.bytes(700_000)), "path": f"{i}.png"} for i in range(n)]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = ("frame_index", "index", "episode_index", "task_index")
    numbers = {name: np.arange(n) if name in names[:2] else np.zeros(n, np.int64) for name in names}
    table = pa.table(
        {TOP: pa.array(column, image), "timestamp": pa.array(np.arange(n) / 30, pa.float32()), **numbers}
    )
    (source / "data/chunk-000").mkdir(parents=True)
    pq.write_table(table, source / "data/chunk-000/file-000.parquet")
    del table, column
    (source / "meta/episodes/chunk-000").mkdir(parents=True)
    tasks = pq.read_table(DATASET / "meta/tasks.parquet")
    row = {
        "episode_index": 0,
        "tasks": tasks["task"].to_pylist()[:1],
        "length": n,
        "data/chunk_index": 0,
        "data/file_index": 0,
    }
    row |= {"dataset_from_index": 0, "dataset_to_index": n}
    pq.write_table(pa.Table.from_pylist([row]), source / "meta/episodes/chunk-000/file-000.parquet")
    (source / "meta/tasks.parquet").write_bytes((DATASET / "meta/tasks.parquet").read_bytes())
    info = read_json(DATASET / "meta/info.json")
    keep = {k: info["features"][k] for k in (TOP, "timestamp", *names)}
    info |= {"features": keep, "total_episodes": 1, "total_frames": n, "splits": {}}
    info["features"][TOP]["shape"] = [48, 64, 3]
    (source / "meta/info.json").write_text(json.dumps(info))
    script = f"""
from pathlib import Path
from ffenc import reencode_dataset
overrides = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]
summary = reencode_dataset({str(source)!r}, {str(tmp_path / "out")!r}, overrides=overrides)
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(summary.frames, int(peak) / 1024)
"""
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    frames, megabytes = result.stdout.split()
    assert int(frames) == n
    assert float(megabytes) < 700  # the page, once more as it is stored, and what all runs take


def padded(png: bytes, more: bytes) -> bytes:
    """A PNG with a chunk of its own kind at the end, which decoders pass over."""
    body = b"prVt" + more
    chunk = struct.pack(">I", len(more)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:-12] + chunk + png[-12:]


GRAY16 = [(("depth_encoder", "vcodec"), "ffv1"), (("depth_encoder", "pix_fmt"), "gray16le")]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"cameras": ["tpo"]}, ConfigError, "no camera 'tpo'.*did you mean 'top'"),
        ({"cameras": RGB, "episodes": [0, 9]}, ConfigError, "no episode 9; there are 0 to 2"),
        ({"cameras": RGB, "fps": 60}, ConfigError, "fps=60 is more than the dataset's 30"),
        ({"cameras": RGB, "task": "x"}, ConfigError, "task is for .*image trees"),
        ({"cameras": RGB, "task": " "}, ConfigError, "task: ' ' is not accepted; expected a text"),
        ({"cameras": "top"}, ConfigError, "cameras: 'top' is not accepted"),
        *(
            ({"overrides": [((name,), value)]}, ConfigError, f"{name} would have no effect")
            for name, value in {
                "queue_maxsize": 5,
                "on_full": "drop",
                "video": False,
                "encode": "after",
            }.items()
        ),
        ({"overrides": [(("robot_type",), "arm")]}, ConfigError, "robot_type would have no effect"),
        *(
            (
                {"overrides": [*GRAY16, (("depth_encoder", name), value)]},
                ConfigError,
                f"depth_encoder.{name} would have no effect: gray16le stores depth as it is",
            )
            for name, value in {"depth_max": 5, "invalid": "clip", "use_log": False}.items()
        ),
        ({"cameras": RGB, "shard": (5, 3)}, ConfigError, r"shard=\[5, 3\] is not accepted"),
        *(
            ({"cameras": RGB, name: bad}, ConfigError, f"{name}: {bad!r} is not accepted; expected a whole")
            for name in ("workers", "encoder_threads")
            for bad in (0, -3, 1.5, "x")
        ),
        ({"cameras": RGB, "preset": "so10"}, ConfigError, "there is no preset 'so10'.*so10"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        reencode_dataset(DATASET, tmp_path / "out", **arguments)
    assert everything_in(tmp_path) == []


def test_a_destination_that_is_taken_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(DestinationError, match="not empty"):
        reencode_dataset(DATASET, out, cameras=RGB)
    assert everything_in(tmp_path) == ["out", "out/precious"]
    (out / "precious").unlink()
    assert reencode_dataset(DATASET, out, cameras=["angle"], overrides=H264).frames == 72


def test_a_loaded_preset_can_be_given(tmp_path: Path) -> None:
    """Also one with which images were recorded: its encoder settings are for now."""
    preset = load_preset("aloha_sim", [(("camera_encoder", "vcodec"), "h264"), (("video",), False)])
    summary = reencode_dataset(DATASET, tmp_path / "out", preset=preset, cameras=["angle"])
    assert summary.cameras[ANGLE]["codec"] == "h264"


def test_progress_only_grows_and_ends_at_the_total(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    reencode_dataset(
        DATASET,
        tmp_path / "out",
        cameras=RGB,
        overrides=H264,
        workers=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    done = [count for count, _ in told]
    assert done == sorted(done)
    assert told[-1] == (144, 144)
