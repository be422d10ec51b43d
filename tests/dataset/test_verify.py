"""``verify_dataset``: every kind of damage is found and named, and what is sound has no faults."""

import io
import json
import re
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffenc import (
    ConfigError,
    Edits,
    FfencWarning,
    SourceError,
    VerificationError,
    edit_dataset,
    merge_datasets,
    probe,
    reencode_dataset,
    repair_dataset,
    verify_dataset,
)
from ffenc.dataset.columns import task_table
from ffenc.dataset.executors.local import LocalExecutor
from ffenc.dataset.job import tables
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.repair.salvage_rows import SalvagedRows
from ffenc.dataset.report import report_dataset
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.metadata import check_source
from ffenc.dataset.verify.records import DecodeRecords, Shown
from ffenc.dataset.videos import episode_videos
from ffenc.ffmpeg.cache import remember
from ffenc.layout import QUANTILES
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    find_toolchain,
    newest_program,
    notes_of,
    starts,
)
from tests.support.damage import statistics_of
from tests.support.make import drop_camera

LEROBOTS_VIDEO = FIXTURES / "aloha_video_v30"
DATA = "data/chunk-000/file-000.parquet"
LIST = "meta/episodes/chunk-000/file-000.parquet"
KEYS = (TOP, ANGLE, DEPTH)


VCODEC_H264 = (("camera_encoder", "vcodec"), "h264")


def video_of(key):
    return f"videos/{key}/chunk-000/file-000.mp4"


@pytest.fixture
def video(tmp_path):
    """A copy of the sample that LeRobot has written as video, to be damaged."""
    return shutil.copytree(LEROBOTS_VIDEO, tmp_path / "video")


@pytest.fixture
def small_video(tmp_path, two_cameras):
    """The same without its largest camera."""
    return shutil.copytree(two_cameras, tmp_path / "video")


@pytest.fixture(scope="module")
def shortest_episode(tmp_path_factory, one_episode):
    """One episode of them, as of a dataset that others wrote."""
    root = shutil.copytree(one_episode, tmp_path_factory.mktemp("shortest") / "episode")
    for name in ("videos.sha256", "ffenc.json"):
        (root / "meta" / name).unlink(missing_ok=True)
    return root


@pytest.fixture
def short_video(tmp_path, shortest_episode):
    """A copy of it, to be damaged."""
    return shutil.copytree(shortest_episode, tmp_path / "video")


@pytest.fixture
def old_video(tmp_path, video, whole_v21):
    """The sample's videos as a v2.1 dataset: the episodes cut out of LeRobot's files at their key frames."""
    root = tmp_path / "old"
    shutil.copytree(whole_v21 / "meta", root / "meta")
    info = json.loads((root / "meta/info.json").read_text())
    new = json.loads((video / "meta/info.json").read_text())
    for key in (TOP, ANGLE):
        info["features"][key] = new["features"][key]
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info))
    for episode, (start, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
        place = root / f"data/chunk-000/episode_{episode:06d}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        rows = pq.read_table(whole_v21 / f"data/chunk-000/episode_{episode:06d}.parquet")
        pq.write_table(rows.drop_columns([TOP, ANGLE]).replace_schema_metadata(), place)
        for key in (TOP, ANGLE):
            target = root / f"videos/chunk-000/{key}/episode_{episode:06d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            picked = f"select=between(n\\,{start}\\,{start + length - 1}),setpts=(N)/30/TB"
            encode(video / video_of(key), target, "-vf", picked, "-c:v", "libx264", "-r", "30")
            info["features"][key]["info"]["video.codec"] = "h264"
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def encode(source, target, *words):
    command = [
        newest_program("ffmpeg"),
        "-v",
        "error",
        "-y",
        "-i",
        f"file:{source}",
        *words,
        f"file:{target}",
    ]
    subprocess.run(command, check=True)


def change_info(root, change):
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_table(root, place, change):
    path = root / place
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed, path)


def set_column(name, change):
    """A change of a table: a column's values, given as a list, are changed in place."""

    def changed(table):
        values = table[name].to_pylist()
        values = change(values) or values
        at = table.column_names.index(name)
        return table.set_column(at, table.schema.field(name), pa.array(values, table[name].type))

    return changed


def swap(values, a, b):
    values[a], values[b] = values[b], values[a]


def kinds(found):
    return sorted({fault.kind for fault in found.faults})


def only(found, kind):
    """The faults, which are all of one kind."""
    assert kinds(found) == [kind], [str(fault) for fault in found.faults]
    return found.faults


# --- sound -------------------------------------------------------------------------------------------------


@pytest.mark.own_ffprobe
@pytest.mark.parametrize("deep", [False, True], ids=["normal", "deep"])
def test_the_samples_are_sound(toolchain, deep, dataset_v21):
    images = (DATASET, dataset_v21) if toolchain == find_toolchain("newest") else ()  # no FFmpeg reads them
    for root in (LEROBOTS_VIDEO, *images):
        found = verify_dataset(root, deep=deep)
        assert [str(fault) for fault in found.faults] == []
        assert found.sound
        assert (found.episodes, found.frames, found.deep) == (3, 72, deep)
        assert {(c.episodes, c.frames, c.faults) for c in found.cameras} == {(3, 72, 0)}
    rows = {c.camera: (c.kind, c.codec, c.pix_fmt, c.files) for c in verify_dataset(LEROBOTS_VIDEO).cameras}
    assert rows == {
        TOP: ("video", "av1", "yuv420p", 1),
        ANGLE: ("video", "av1", "yuv420p", 1),
        DEPTH: ("video", "hevc", "gray12le", 1),
    }


@pytest.mark.parametrize(
    ("toolchain", "overrides"),
    [
        ("newest", ()),
        ("newest", [VCODEC_H264, (("depth_encoder", "preset"), "ultrafast")]),
        pytest.param("system", [VCODEC_H264], marks=pytest.mark.long),
    ],
    indirect=["toolchain"],
    ids=["newest-av1", "newest-h264", "system-h264"],
)
def test_what_reencode_has_just_made_is_sound(toolchain, tmp_path, overrides):
    reencode_dataset(DATASET, tmp_path / "out", overrides=overrides, episodes=[1])
    found = verify_dataset(tmp_path / "out", deep=True)
    assert [str(fault) for fault in found.faults] == []
    assert [camera.max_deviation for camera in found.cameras] == [pytest.approx(0, abs=1e-9)] * 3


def test_a_part_of_a_dataset_is_sound(tmp_path):
    overrides = [(("camera_encoder", "vcodec"), "h264")]
    reencode_dataset(DATASET, tmp_path / "out", episodes=[0, 2], cameras=["angle"], overrides=overrides)
    assert [str(fault) for fault in verify_dataset(tmp_path / "out", deep=True).faults] == []


def test_a_v21_video_dataset_is_sound_and_its_damage_is_found(old_video):
    found = verify_dataset(old_video, deep=True)
    assert [str(fault) for fault in found.faults] == []
    assert [(camera.files, camera.frames) for camera in found.cameras] == [(3, 72), (3, 72)]
    places = [old_video / f"videos/chunk-000/{TOP}/episode_{e:06d}.mp4" for e in (0, 1)]
    places[1].unlink()
    (fault,) = only(verify_dataset(old_video), "video-missing")
    assert fault.file == f"videos/chunk-000/{TOP}/episode_000001.mp4"
    shutil.copy(places[0], places[1])
    (fault,) = only(verify_dataset(old_video), "frame-count")
    assert "has 24 frames, its 1 episodes have 17" in fault.what


def test_a_single_file_is_verified_by_itself(tmp_path):
    place = tmp_path / "one.mp4"
    shutil.copy(LEROBOTS_VIDEO / video_of(TOP), place)
    found = verify_dataset(place, deep=True)
    assert found.sound
    assert [(c.codec, c.frames) for c in found.cameras] == [("av1", 72)]
    place.write_bytes(place.read_bytes()[:150_000])
    assert "video-cut" in kinds(verify_dataset(place))


# --- videos ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("front", [True, False], ids=["index in front", "index at the end"])
def test_a_cut_off_video_is_found(video, share, front):
    place = video / video_of(ANGLE)
    if not front:
        encode(LEROBOTS_VIDEO / video_of(ANGLE), place, "-c", "copy")
    whole = place.read_bytes()
    assert (whole.index(b"moov") < whole.index(b"mdat")) == front
    place.write_bytes(whole[: int(len(whole) * share)])
    found = verify_dataset(video)
    allowed = {"video-cut"} if front else {"video-cut", "video-unreadable"}
    assert allowed & set(kinds(found))
    assert {(fault.file, fault.camera) for fault in found.faults} == {(video_of(ANGLE), ANGLE)}


def test_what_is_no_video_is_named(video):
    (video / video_of(TOP)).write_bytes(b"not a video" * 100)
    (fault,) = only(verify_dataset(video, deep=True), "video-unreadable")
    assert fault.file == video_of(TOP)


def test_the_size_is_read_by_the_names_of_the_axes(video):
    """Some writers put the channels first, and give axes no names."""

    def first(info, names):
        feature = info["features"][ANGLE]
        feature.update(shape=[3, 120, 160], names=names)
        for name in ("video.width", "video.height"):
            feature["info"].pop(name, None)

    change_info(video, lambda info: first(info, ["channels", "height", "width"]))
    assert verify_dataset(video).sound
    (camera,) = [camera for camera in report_dataset(video).cameras if camera.key == ANGLE]
    assert (camera.width, camera.height) == (160, 120)
    change_info(video, lambda info: first(info, None))
    assert kinds(verify_dataset(video)) == []
    for names in (["channels", "height", "width"], None):
        assert tables.sized_feature({"shape": [3, 120, 160], "names": names}, 80, 60)["shape"] == [3, 60, 80]


def test_a_dropped_frame_is_found_by_the_number_of_frames(video):
    encode(
        LEROBOTS_VIDEO / video_of(ANGLE), video / video_of(ANGLE),
        "-vf", "select=not(eq(n\\,30)),setpts=N/30/TB", "-c:v", "libx264", "-g", "1", "-r", "30",
    )  # fmt: skip
    change_info(video, lambda info: info["features"][ANGLE]["info"].update({"video.codec": "h264"}))
    found = verify_dataset(video)
    assert "has 71 frames, its 3 episodes have 72" in only(found, "frame-count")[0].what


def test_a_dropped_frame_that_leaves_a_gap_is_named(video):
    encode(
        LEROBOTS_VIDEO / video_of(ANGLE), video / video_of(ANGLE), "-c", "copy",
        "-bsf:v", "noise=drop=eq(n\\,31)",
    )  # fmt: skip
    found = verify_dataset(video)
    (fault,) = [fault for fault in found.faults if fault.kind == "frame-times"]
    assert (fault.frame, fault.camera) == (31, ANGLE)
    assert "is at 1.066667 s, not at 31/30 = 1.033333 s" in fault.what
    assert "frame-count" in kinds(found)


def test_frames_off_the_grid_are_found_and_small_deviations_only_told(video):
    place = video / video_of(ANGLE)
    shift = "setts=pts=PTS+{}*eq(N\\,10)"
    encode(LEROBOTS_VIDEO / video_of(ANGLE), place, "-c", "copy", "-bsf:v", shift.format(1))
    found = verify_dataset(video)
    assert found.sound
    assert found.cameras[1].max_deviation == pytest.approx(1 / 15360, abs=1e-9)
    encode(LEROBOTS_VIDEO / video_of(ANGLE), place, "-c", "copy", "-bsf:v", shift.format(2))
    assert only(verify_dataset(video), "frame-times")[0].frame == 10


def test_another_frame_rate_is_found(video):
    encode(
        LEROBOTS_VIDEO / video_of(ANGLE), video / video_of(ANGLE), "-c", "copy",
        "-bsf:v", "setts=ts=TS*1.2",
    )  # fmt: skip
    assert {"frame-rate", "frame-times"} <= set(kinds(verify_dataset(video)))


@pytest.mark.parametrize(
    ("name", "value", "found_value"),
    [
        ("video.codec", "h264", "av1"),
        ("video.pix_fmt", "yuv444p", "yuv420p"),
        ("video.height", 480, 240),
        ("video.width", 640, 320),
        ("video.channels", 1, 3),
        ("has_audio", True, False),
    ],
)
def test_a_wrong_field_of_the_stream_is_told_with_both_values(video, name, value, found_value):
    change_info(video, lambda info: info["features"][TOP]["info"].update({name: value}))
    (fault,) = only(verify_dataset(video), "video-fields")
    assert fault.camera == TOP
    assert fault.what == f"info.json has {name} {value!r}, the file is {found_value!r}"


def test_a_wrong_shape_and_rate_are_found(video):
    change_info(video, lambda info: info["features"][TOP].update({"shape": [480, 640, 3]}))
    change_info(video, lambda info: info["features"][TOP]["info"].update({"video.fps": 15}))
    texts = [fault.what for fault in only(verify_dataset(video), "video-fields")]
    assert any("has shape 640x480, the file is 320x240" in text for text in texts)
    assert any("has video.fps 15, the dataset's fps is 30" in text for text in texts)


def test_depth_that_became_8_bit_is_found(video):
    encode(
        LEROBOTS_VIDEO / video_of(DEPTH),
        video / video_of(DEPTH),
        "-c:v",
        "libx264",
        "-pix_fmt",
        "gray",
        "-g",
        "1",
    )
    change_info(video, lambda info: info["features"][DEPTH]["info"].update({"video.codec": "h264"}))
    (fault,) = only(verify_dataset(video), "depth")
    assert "12-bit depth was silently stored as 8-bit; expected gray12le or gray16le" in fault.what


def test_depth_whose_quantiser_or_reader_is_wrong_is_found(video):
    change_info(video, lambda info: info["features"][DEPTH]["info"].pop("video.shift"))
    found = verify_dataset(video)
    assert found.sound  # every reader takes the same default
    (note,) = notes_of(found)
    assert note.kind == "depth-defaults"
    assert "has no video.shift: readers assume LeRobot's defaults" in note.what
    change_info(video, lambda info: info["features"][DEPTH]["info"].update({"video.shift": "far"}))
    assert "shift" in only(verify_dataset(video, deep=True), "depth")[0].what
    change_info(
        video,
        lambda info: info["features"][DEPTH]["info"].update(
            {"video.shift": 3.5, "video.video_backend": "torchcodec"}
        ),
    )
    assert "'torchcodec'" in only(verify_dataset(video), "depth")[0].what
    change_info(video, lambda info: info["features"][DEPTH].update({"info": None}))
    what = only(verify_dataset(video), "depth")[0].what
    assert f"is gray12le, but meta/info.json does not mark {DEPTH} as depth: LeRobot shows it as RGB" in what


def test_a_missing_video_and_an_orphan_are_named(video):
    (video / video_of(TOP)).rename(video / f"videos/{TOP}/chunk-000/file-007.mp4")
    (video / "videos/.hidden").write_text("")
    (video / "README.md").write_text("mine")
    found = verify_dataset(video)
    assert [(fault.kind, fault.file) for fault in found.faults] == [
        ("video-missing", video_of(TOP)),
        ("orphan", f"videos/{TOP}/chunk-000/file-007.mp4"),
    ]
    assert "episodes 0 to 2 should be in it" in found.faults[0].what


@pytest.mark.parametrize("column", ["from_timestamp", "to_timestamp"])
@pytest.mark.parametrize("shift", [1 / 30, 0.5 / 30, 2 / 30])
def test_a_shifted_timestamp_is_found(video, column, shift):
    name = f"videos/{TOP}/{column}"
    change_table(video, LIST, set_column(name, lambda v: [v[0], v[1] + shift, v[2]]))
    found = verify_dataset(video)
    assert set(kinds(found)) <= {"episode-place", "key-frame"}
    assert {fault.camera for fault in found.faults} == {TOP}
    assert found.faults[0].episode == 1


def test_two_episodes_whose_timestamps_are_swapped_are_found(video):
    for column in ("from_timestamp", "to_timestamp"):
        change_table(video, LIST, set_column(f"videos/{TOP}/{column}", lambda v: swap(v, 0, 1)))
    found = verify_dataset(video)
    assert {fault.episode for fault in only(found, "episode-place")} >= {0, 1}


def test_an_episode_that_begins_on_no_key_frame_is_found(video):
    encode(LEROBOTS_VIDEO / video_of(ANGLE), video / video_of(ANGLE), "-c:v", "libx264", "-g", "72")
    change_info(video, lambda info: info["features"][ANGLE]["info"].update({"video.codec": "h264"}))
    assert [fault.episode for fault in only(verify_dataset(video), "key-frame")] == [1, 2]


# --- deep --------------------------------------------------------------------------------------------------


def packet_of(path, frame):
    """Where a frame is stored in a file: frames are not always stored in the order they are shown."""
    query = ["-show_entries", "packet=pts,pos", "-of", "json"]
    command = [newest_program("ffprobe"), "-v", "error", *query, str(path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(sorted(json.loads(answer)["packets"], key=lambda packet: packet["pts"])[frame]["pos"])


@pytest.mark.parametrize(("key", "frame"), [(ANGLE, 0), (ANGLE, 30), (ANGLE, 40), (DEPTH, 50)])
def test_a_byte_that_flipped_is_found(small_video, key, frame):
    video = small_video
    place = video / video_of(key)
    data = bytearray(place.read_bytes())
    pos = packet_of(place, frame)
    data[pos + (1 if key == DEPTH else 3)] ^= 0xFF  # of HEVC the length of a unit
    place.write_bytes(data)
    assert verify_dataset(video).sound, "its tables and index are whole"
    faults = only(verify_dataset(video, deep=True), "damaged-frame")
    assert {(fault.camera, fault.file) for fault in faults} == {(key, video_of(key))}
    episode = int(np.searchsorted(starts(), frame, side="right")) - 1
    assert any(fault.episode == episode and fault.frame <= frame - starts()[episode] for fault in faults), [
        str(fault) for fault in faults
    ]


def test_depth_that_does_not_match_its_statistics_is_found(small_video):
    for name in QUANTILES:
        statistics_of(DEPTH, name, [[[9000.0]]], listed=True)(small_video)
    fault, *_ = only(verify_dataset(small_video, deep=True), "other-content")
    assert (fault.camera, fault.episode) == (DEPTH, 1)
    assert re.search(r"its frames do not match its statistics: q\d\d is .*, 9000 is stored", fault.what)


def test_two_episodes_whose_content_is_swapped_are_found(png_tree, tmp_path):
    for folder in png_tree.glob("*/angle"):
        shutil.rmtree(folder)
    for folder in png_tree.glob("*/top"):
        for frame in sorted(folder.glob("*.png"))[17:]:
            frame.unlink()
    root = tmp_path / "even"
    reencode_dataset(png_tree, root, fps=30, task="hold")
    assert verify_dataset(root, deep=True).sound
    spans = ("17,33", "0,16", "34,50")
    picked = [
        f"[0:v]select=between(n\\,{s.replace(',', chr(92) + ',')}),setpts=N/30/TB[p{i}]"
        for i, s in enumerate(spans)
    ]
    graph = ";".join([*picked, "[p0][p1][p2]concat=n=3[out]"])
    swapped = tmp_path / "swapped.mp4"
    encode(
        root / video_of(TOP), swapped, "-filter_complex", graph, "-map", "[out]", "-c:v", "libx264", "-g", "1"
    )
    swapped.replace(root / video_of(TOP))
    (root / "meta/videos.sha256").unlink()  # as of a dataset that others wrote
    change_info(root, lambda info: info["features"][TOP]["info"].update({"video.codec": "h264"}))
    assert verify_dataset(root).sound, "only decoding shows it"
    (fault,) = only(verify_dataset(root, deep=True), "swapped")
    assert (fault.camera, fault.episode) == (TOP, 0)
    assert "episodes 0 and 1 seem swapped" in fault.what


def test_two_episodes_whose_depth_is_swapped_are_found(video, tmp_path):
    root = tmp_path / "depth"
    ultrafast = [(("depth_encoder", "preset"), "ultrafast")]
    reencode_dataset(DATASET, root, cameras=["angle_depth"], overrides=ultrafast)
    assert verify_dataset(root, deep=True).sound
    names = [
        f"stats/{DEPTH}/{name}" for name in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
    ]
    for name in names:
        change_table(root, LIST, set_column(name, lambda v: swap(v, 1, 2)))
    (fault,) = only(verify_dataset(root, deep=True), "swapped")
    assert "episodes 1 and 2" in fault.what


@pytest.mark.parametrize("settings", [{"vcodec": "h264", "crf": 51}, {"vcodec": "libsvtav1", "crf": 55}])
def test_noise_that_coding_takes_out_is_not_another_picture(tmp_path, settings):
    rng = np.random.default_rng(3)
    for episode, sigma in enumerate((128, 128, 5)):  # of one with little noise more of the std is left
        folder = tmp_path / f"tree/episode_{episode}/front"
        folder.mkdir(parents=True)
        for frame in range(4):
            pixels = rng.normal(128, sigma, (96, 128, 3)) if sigma < 9 else rng.integers(0, 256, (96, 128, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{frame:06d}.png")
    overrides = [(("camera_encoder", name), value) for name, value in settings.items()]
    reencode_dataset(tmp_path / "tree", tmp_path / "out", fps=30, overrides=overrides)
    assert [str(fault) for fault in verify_dataset(tmp_path / "out", deep=True).faults] == []


def test_another_picture_than_the_statistics_say_is_found(small_video):
    video = small_video
    change = set_column(f"stats/{ANGLE}/mean", lambda v: [v[0], [[[0.9]], [[0.9]], [[0.9]]], v[2]])
    change_table(video, LIST, change)
    found = verify_dataset(video, deep=True)
    assert kinds(found) == ["other-content", "statistics-differ"]  # stats.json has not followed
    (fault,) = (fault for fault in found.faults if fault.kind == "other-content")
    assert (fault.episode, fault.camera) == (1, ANGLE)


def test_damaged_images_are_named_and_missing_ones_found_without_decoding(dataset_copy):
    def damage(values):
        values[30]["bytes"] = values[30]["bytes"][:4000] + b"\0\0\0\0" + values[30]["bytes"][4004:]
        values[50]["bytes"] = None

    change_table(dataset_copy, DATA, set_column(TOP, damage))
    (fault,) = only(verify_dataset(dataset_copy), "image")
    assert (fault.camera, fault.episode) == (TOP, 2)
    assert "row 50 has no image" in fault.what
    faults = only(verify_dataset(dataset_copy, deep=True), "image")
    assert [(fault.episode, fault.frame) for fault in faults] == [(1, 6), (2, None)]
    assert "row 30: the image is damaged" in faults[0].what


def test_every_frame_is_compared_with_the_images_it_was_made_of(toolchain, two_cameras):
    found = verify_dataset(two_cameras, against=DATASET)
    assert [str(fault) for fault in found.faults] == []
    angle, depth = (camera.compared for camera in found.cameras)
    assert (angle.frames, angle.differing) == (72, None)
    assert 25 < angle.psnr_min <= angle.psnr_mean < 60
    assert 0.7 < angle.ssim_min <= angle.ssim_mean < 1
    assert angle.psnr_worst[0] in (0, 1, 2)
    assert (depth.frames, depth.differing, depth.max_difference) == (72, 0, 0)


def test_lossy_depth_is_judged_by_the_error_that_is_accepted(tmp_path):
    settings = [(("depth_encoder", "crf"), 20), (("depth_encoder", "extra_options"), {})]
    with pytest.warns(FfencWarning, match="160x120 depth is encoded with loss"):
        reencode_dataset(DATASET, tmp_path / "out", cameras=["angle_depth"], overrides=settings)
    found = verify_dataset(tmp_path / "out", against=DATASET)
    assert {fault.kind for fault in found.faults} == {"depth-error"}
    compared = found.cameras[0].compared
    episode, frame = compared.farthest
    assert any((fault.episode, fault.frame) == (episode, frame) for fault in found.faults)
    assert f"up to {compared.max_difference:.1f} mm off its source's, more than the 4.4 mm" in " ".join(
        fault.what for fault in found.faults
    )
    assert 0 < compared.mean_difference < compared.max_difference
    accepted = verify_dataset(tmp_path / "out", against=DATASET, max_depth_error=compared.max_difference)
    assert accepted.sound
    assert accepted.cameras[0].compared.farthest == compared.farthest


def test_a_limit_of_depth_that_judges_nothing_is_refused(video, png_tree):
    for limit, against, said in (
        (-1, DATASET, "is not a number of millimetres"),
        (float("nan"), DATASET, "is not a number of millimetres"),
        (5, None, "pass against=SRC too"),
        (5, png_tree, "have no depth camera in common"),
    ):
        with pytest.raises(ConfigError, match=said):
            verify_dataset(video, against=against, max_depth_error=limit)


def test_a_video_is_compared_with_a_video_and_with_a_tree(png_tree, two_cameras):
    found = verify_dataset(two_cameras, against=LEROBOTS_VIDEO)
    assert [camera.compared.psnr_min for camera in found.cameras] == [float("inf")] * 2
    found = verify_dataset(two_cameras, against=png_tree)
    assert found.sound
    assert [camera.compared is None for camera in found.cameras] == [False, True]
    assert [(note.kind, note.camera) for note in notes_of(found)] == [("not-compared", DEPTH)]


def test_the_source_is_opened_again_in_every_comparison(tmp_path, one_episode):
    source = shutil.copytree(one_episode, tmp_path / "source")
    drop_camera(source, DEPTH)
    without = verify_dataset(one_episode, against=source, executor=LocalExecutor())
    assert [(note.kind, note.camera) for note in notes_of(without)] == [("not-compared", DEPTH)]
    shutil.rmtree(source)
    shutil.copytree(one_episode, source)
    found = verify_dataset(one_episode, against=source, executor=LocalExecutor())
    assert [camera.compared.psnr_min for camera in found.cameras] == [float("inf")] * 2


def test_another_picture_than_the_sources_is_found(dataset_copy, two_cameras):
    black = io.BytesIO()
    Image.new("RGB", (160, 120), (255, 255, 255)).save(black, "PNG")

    def change(values):
        values[30]["bytes"] = black.getvalue()

    change_table(dataset_copy, DATA, set_column(ANGLE, change))
    (fault,) = only(verify_dataset(two_cameras, against=dataset_copy), "differs")
    assert (fault.camera, fault.episode, fault.frame) == (ANGLE, 1, 6)


# --- tables ------------------------------------------------------------------------------------------------


def test_a_cut_off_data_file_is_found(video):
    place = video / DATA
    place.write_bytes(place.read_bytes()[:9000])
    found = verify_dataset(video)
    assert only(found, "data-file")[0].file == DATA
    place.unlink()
    assert (
        "is missing; it should contain the rows of episodes 0 to 2"
        in only(verify_dataset(video), "data-file")[0].what
    )


@pytest.mark.parametrize(
    "name", ["action", "timestamp", "frame_index", "episode_index", "index", "task_index"]
)
def test_a_missing_column_is_named(video, name):
    change_table(video, DATA, lambda table: table.drop_columns([name]))
    found = verify_dataset(video)
    assert kinds(found) == ["columns", "schema-metadata"]
    assert any(f"has no column {name}," in fault.what for fault in found.faults)


def test_frames_are_checked_though_a_column_with_aggregated_quantiles_is_missing(video):
    change_table(video, DATA, lambda table: table.drop_columns(["action"]))
    found = verify_dataset(video, deep=True)
    assert kinds(found) == ["columns", "schema-metadata"]
    assert found.deep


def test_an_extra_column_and_wrong_schema_metadata_are_named(video):
    change_table(video, DATA, lambda table: table.append_column("reward", pa.array([0.5] * 72)))
    found = verify_dataset(video)
    assert kinds(found) == ["columns", "schema-metadata"]
    texts = [fault.what for fault in found.faults]
    assert any("has a column reward, which is not a feature" in text for text in texts)
    assert any("'huggingface' lacks reward" in text for text in texts)


def test_two_episodes_whose_rows_changed_places_are_found(video):
    change_table(video, DATA, lambda t: pa.concat_tables([t.slice(24, 17), t.slice(0, 24), t.slice(41)]))
    (fault,) = only(verify_dataset(video), "rows")
    assert "another order" in fault.what
    assert fault.episode == 1


def test_rows_that_carry_one_anothers_episode_are_found(video):
    change_table(video, DATA, set_column("episode_index", lambda v: [{0: 1, 1: 0, 2: 2}[one] for one in v]))
    found = verify_dataset(video)
    assert {"rows", "index"} <= set(kinds(found))
    assert any("has 17 rows, its length in meta/episodes is 24" in fault.what for fault in found.faults)


def test_values_that_stand_in_another_episode_are_found_by_the_statistics(video):
    def swapped(values):
        values[:17], values[24:41] = values[24:41], values[:17]

    change_table(video, DATA, set_column("action", swapped))
    faults = only(verify_dataset(video), "statistics-differ")
    assert [fault.episode for fault in faults if fault.episode is not None] == [0, 1]
    assert "of action[" in faults[-1].what


def made(root, lengths, seed=0, state_width=3):
    """A dataset without cameras, as large as one likes, made here."""
    generator = np.random.default_rng(seed)
    states = [(generator.normal(size=(n, state_width)) + generator.normal()).astype("f4") for n in lengths]
    first = np.cumsum([0, *lengths])
    numbering = ("timestamp", "frame_index", "episode_index", "index", "task_index")
    features = {"observation.state": {"dtype": "float32", "shape": [state_width], "names": None}}
    features |= {
        k: {"dtype": "float32" if k == "timestamp" else "int64", "shape": [1], "names": None}
        for k in numbering
    }
    data = {
        "observation.state": pa.FixedSizeListArray.from_arrays(np.concatenate(states).ravel(), state_width),
        "timestamp": np.concatenate([np.arange(n) / 30 for n in lengths]).astype("f4"),
        "frame_index": np.concatenate([np.arange(n) for n in lengths]),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(first[-1]),
        "task_index": np.zeros(first[-1], np.int64),
    }
    episodes = {
        "episode_index": np.arange(len(lengths)),
        "tasks": [["wave"]] * len(lengths),
        "length": np.array(lengths),
        "data/chunk_index": np.zeros(len(lengths), np.int64),
        "data/file_index": np.zeros(len(lengths), np.int64),
        "dataset_from_index": first[:-1],
        "dataset_to_index": first[1:],
    }
    stats = {}
    for key in features:
        column = np.concatenate(states) if key == "observation.state" else np.asarray(data[key])[:, None]
        parts = [column[a:b].astype(np.float64) for a, b in pairwise(first)]
        for name in ("min", "max", "mean", "std"):
            episodes[f"stats/{key}/{name}"] = [getattr(part, name)(axis=0).tolist() for part in parts]
        episodes[f"stats/{key}/count"] = [[n] for n in lengths]
        whole = column.astype(np.float64)
        stats[key] = {n: getattr(whole, n)(axis=0).tolist() for n in ("min", "max", "mean", "std")}
        stats[key]["count"] = [len(column)]
    for place in (DATA, LIST):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(data), root / DATA, row_group_size=100)
    pq.write_table(pa.table(episodes), root / LIST)
    pq.write_table(task_table(["wave"]), root / "meta/tasks.parquet")
    (root / "meta/stats.json").write_text(json.dumps(stats))
    info = {"codebase_version": "v3.0", "fps": 30, "features": features, "total_episodes": len(lengths)}
    info |= {"total_frames": int(first[-1]), "total_tasks": 1, "splits": {"train": f"0:{len(lengths)}"}}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def test_two_episodes_of_one_length_whose_values_are_swapped_are_named(tmp_path):
    root = made(tmp_path / "made", [40, 50, 40, 70])
    assert verify_dataset(root).sound

    def swapped(values):
        values[:40], values[90:130] = values[90:130], values[:40]

    change_table(root, DATA, set_column("observation.state", swapped))
    (fault,) = only(verify_dataset(root), "swapped")
    assert "episodes 0 and 2 seem swapped" in fault.what
    assert "observation.state" in fault.what


def test_an_episode_may_be_longer_than_what_is_read_at_once(tmp_path):
    root = made(tmp_path / "made", [3, 60_000, 80_000, 5], state_width=2)
    found = verify_dataset(root)
    # A float32 timestamp is off by more than LeRobot bears after half an hour.
    assert {(fault.kind, fault.episode) for fault in found.faults} <= {("timestamps", 2)}
    change_table(root, DATA, set_column("frame_index", lambda v: v[:70_000] + [7] + v[70_001:]))
    found = verify_dataset(root)
    (fault,) = [fault for fault in found.faults if fault.kind == "rows"]
    assert (fault.episode, fault.frame) == (2, 70_000 - 60_003)
    assert "row 70000 has frame_index 7; expected 9997" in fault.what


@pytest.mark.parametrize(
    ("name", "change", "kind", "said"),
    [
        ("frame_index", lambda v: v[:30] + [9] + v[31:], "rows", "row 30 has frame_index 9; expected 6"),
        ("timestamp", lambda v: v[:50] + [float("nan")] + v[51:], "timestamps", "row 50 has timestamp nan"),
        ("timestamp", lambda v: [*v[:50], v[50] + 2e-4, *v[51:]], "timestamps", "0.300200; expected 0.3000"),
        ("timestamp", lambda v: v[:50] + [None] + v[51:], "timestamps", "row 50 has timestamp nan"),
        ("index", lambda v: v[:50] + [3] + v[51:], "index", "row 50 has index 3; expected 50"),
        ("task_index", lambda v: v[:50] + [5] + v[51:], "task-index", "row 50 has task_index 5"),
        ("episode_index", lambda v: v[:50] + [None] + v[51:], "rows", "of an episode that is not listed"),
        ("episode_index", lambda v: v[:71] + [8], "rows", "of an episode that is not listed"),
    ],
)  # fmt: skip
def test_a_wrong_number_in_a_row_is_named(video, name, change, kind, said):
    change_table(video, DATA, set_column(name, change))
    found = verify_dataset(video)
    assert any(fault.kind == kind and said in fault.what for fault in found.faults), [
        str(f) for f in found.faults
    ]


def test_a_wrong_frame_index_is_one_fault_where_time_and_number_are_those_of_the_place(video):
    change_table(video, DATA, set_column("frame_index", lambda v: v[:30] + [9] + v[31:]))
    (fault,) = verify_dataset(video).faults
    assert (fault.kind, fault.episode, fault.frame) == ("rows", 1, 6)


def test_a_missing_row_is_named_once(video):
    change_table(video, DATA, lambda t: pa.concat_tables([t.slice(0, 30), t.slice(31)]))
    faults = only(verify_dataset(video), "rows")
    assert [fault.episode for fault in faults] == [1, 1]
    assert any("has 16 rows, its length in meta/episodes is 17" in fault.what for fault in faults)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("length", lambda v: [24, 0, 31], "its length is 0"),
        ("length", lambda v: [24, None, 31], "has None in length"),
        ("episode_index", lambda v: [0, 2, 1], "row 1 has episode_index 2"),
        ("dataset_from_index", lambda v: [0, 25, 41], "dataset_from_index is 25; expected 24"),
        ("dataset_to_index", lambda v: [24, 40, 72], "dataset_to_index 40 is not its length 17"),
        ("data/file_index", lambda v: [0, None, 0], "has None in data/file_index"),
        (f"videos/{TOP}/from_timestamp", lambda v: [0.0, float("nan"), v[2]], "has nan in videos"),
        ("meta/episodes/file_index", lambda v: [0, 3, 0], "meta/episodes/file_index is not 0"),
    ],
)  # fmt: skip
def test_a_wrong_episode_list_is_named(video, name, change, said):
    change_table(video, LIST, set_column(name, change))
    found = verify_dataset(video)
    assert any(
        fault.kind in ("episodes", "episode-columns") and said in fault.what for fault in found.faults
    ), kinds(found)


def test_a_task_that_is_not_known_is_named(video):
    change_table(video, LIST, set_column("tasks", lambda v: [v[0], ["juggle"], None]))
    texts = [fault.what for fault in only(verify_dataset(video), "tasks")]
    assert texts == ["task 'juggle' is not in the tasks table", "tasks is None; expected a list of texts"]


@pytest.mark.parametrize("part", ["length", "tasks", f"videos/{TOP}/from_timestamp", "data/file_index"])
def test_a_missing_column_of_the_episode_list_is_named(video, part):
    change_table(video, LIST, lambda table: table.drop_columns([part]))
    found = verify_dataset(video)
    assert any(f"has no column {part}" in fault.what for fault in found.faults)


# --- statistics and info.json ------------------------------------------------------------------------------


def test_missing_statistics_are_named_with_what_computes_them(video):
    path = video / "meta/stats.json"
    stats = json.loads(path.read_text())
    del stats[TOP], stats["action"]["std"]
    path.write_text(json.dumps(stats))
    change_table(video, LIST, lambda table: table.drop_columns([f"stats/{ANGLE}/mean"]))
    faults = only(verify_dataset(video), "statistics-missing")
    assert {(fault.camera, fault.file) for fault in faults} == {
        (TOP, "meta/stats.json"), ("action", "meta/stats.json"), (ANGLE, LIST),
    }  # fmt: skip
    assert all("merge_datasets(" in fault.fix for fault in faults)
    path.unlink()
    assert any(f.file == "meta/stats.json" for f in only(verify_dataset(video), "statistics-missing"))


@pytest.mark.parametrize(
    ("name", "value"), [("count", [71]), ("mean", [0.5] * 14), ("std", [float("nan")] * 14)]
)
def test_statistics_that_do_not_match_the_rows_are_found(video, name, value):
    path = video / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["action"][name] = value
    path.write_text(json.dumps(stats))
    (fault,) = verify_dataset(video).faults
    assert f"{name} of action" in fault.what or fault.what == f"has no usable {name} of action"


@pytest.mark.parametrize(
    ("feature", "name", "value", "kind"),
    [
        ("action", "q50", [float("nan")] * 14, "statistics-missing"),
        ("action", "q50", [0.1] * 13, "statistics-missing"),
        ("action", "mean", [0.1] * 13, "statistics-missing"),
        ("timestamp", "q90", [1e6], "statistics-differ"),
        ("timestamp", "q10", [0.9], "statistics-differ"),
        (TOP, "q99", [[[0.9]], [[float("nan")]], [[0.9]]], "statistics-missing"),
        (TOP, "max", [[[1.0]], [[1e6]], [[1.0]]], "statistics-differ"),
        (TOP, "std", [[[0.2]], [[-0.2]], [[0.2]]], "statistics-differ"),
        (ANGLE, "mean", [[[0.9]], [[0.9]], [[0.9]]], "statistics-differ"),
        (DEPTH, "count", [0], "statistics-differ"),
    ],
)
def test_statistics_that_cannot_be_are_found(video, feature, name, value, kind):
    path = video / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats[feature][name] = value
    path.write_text(json.dumps(stats))
    assert any(fault.camera == feature for fault in only(verify_dataset(video), kind))


@pytest.mark.parametrize(
    ("feature", "name", "value", "kind"),
    [
        ("action", "q10", [float("nan")] * 14, "statistics-differ"),
        ("index", "q90", [1e6], "statistics-differ"),
        (TOP, "q01", [], "statistics-missing"),
        (TOP, "min", [[[2.0]], [[2.0]], [[2.0]]], "statistics-differ"),
        (DEPTH, "count", [-1], "statistics-differ"),
    ],
)
def test_an_episodes_statistics_that_cannot_be_are_found(video, feature, name, value, kind):
    change_table(
        video, LIST, set_column(f"stats/{feature}/{name}", lambda values: [values[0], value, values[2]])
    )
    faults = only(verify_dataset(video), kind)
    assert {fault.camera for fault in faults} == {feature}
    if kind == "statistics-differ":
        assert 1 in {fault.episode for fault in faults}


def test_a_flipped_bit_of_a_number_is_found_where_ffenc_wrote_it(tmp_path):
    """In the last place of one: no statistic shows it."""
    root = tmp_path / "out"
    merge_datasets([LEROBOTS_VIDEO], root)
    path = root / DATA
    column = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[(column.dictionary_page_offset or column.data_page_offset) + 90] ^= 1
    path.write_bytes(content)
    assert only(verify_dataset(root), "data-file")[0].file == DATA
    with pytest.raises(SourceError, match=r"file-000\.parquet: cannot be read"):
        merge_datasets([root], tmp_path / "again")


def test_a_damaged_line_of_the_checksums_is_found(two_cameras, tmp_path):
    root = tmp_path / "out"
    merge_datasets([two_cameras], root)
    path = root / "meta/videos.sha256"
    whole = path.read_text()
    path.write_text(whole[1:])
    assert "line 1 cannot be read" in only(verify_dataset(root, deep=True), "checksum")[0].what
    path.write_text(whole[:-5])
    assert "is not a video of the dataset" in only(verify_dataset(root, deep=True), "checksum")[0].what


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda info: info.update(chunks_size=0), "info", "chunks_size is 0"),
        (lambda info: info.update(video_files_size_in_mb=-1), "info", "video_files_size_in_mb is -1"),
        (lambda info: info.update(codebase_version="v3.0x"), "info", "layout v3.0x is not known"),
        (
            lambda info: info["features"]["action"].update(dtype="flaot32"),
            "info",
            "dtype 'flaot32' of action",
        ),
        (lambda info: info["features"]["action"].update(shape=[7]), "columns", "has 14 numbers per row"),
        (lambda info: info["features"][TOP].update(shape=[240, 320]), "info", "shape [240, 320] of"),
        (lambda info: info.pop("total_frames"), "totals", "has no total_frames"),
    ],
)
def test_an_info_that_lerobot_refuses_or_takes_otherwise_is_found(video, change, kind, said):
    change_info(video, change)
    (fault,) = only(verify_dataset(video), kind)
    assert said in fault.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda info: info.update(total_frames=73), "total_frames is 73, the lists have 72"),
        (lambda info: info.update(total_episodes="three"), "total_episodes is 'three', the lists have 3"),
        (lambda info: info.update(total_tasks=1), "total_tasks is 1, the lists have 2"),
        (lambda info: info.update(splits={"train": "0:4"}), "split train is '0:4'"),
        (lambda info: info.update(splits=[1]), "split splits is [1]"),
        (lambda info: info.update(fps="fast"), "'fast' is not a frame rate"),
        (lambda info: info.update(features=[]), "features is not a mapping"),
        (lambda info: info.update(data_path="data/{nothing}.parquet"), "is not a path template"),
        (lambda info: info.update(codebase_version="v1.6"), "layout v1.6 is not known"),
    ],
)
def test_a_wrong_info_json_is_named(video, change, said):
    change_info(video, change)
    found = verify_dataset(video)
    assert any(said in fault.what and fault.file == "meta/info.json" for fault in found.faults), [
        str(fault) for fault in found.faults
    ]


BROKEN = [b"", b"{", b"[1, 2]", b"PAR1 no parquet PAR1", b"\xff\xfe\x00", b'{"a": ' * 3000]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_no_broken_file_is_a_crash(short_video, dataset_v21, content):
    for root in (short_video, dataset_v21):
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            whole = path.read_bytes()
            path.write_bytes(content)
            found = verify_dataset(root, deep=root == short_video)
            place = path.relative_to(root).as_posix()
            assert any(fault.file == place for fault in found.faults), place
            assert all(fault.fix for fault in found.faults)
            path.write_bytes(whole)


@pytest.fixture
def one_camera(small_video):
    """Depth alone, without quantiles: few columns are soon read, some hundred times."""
    drop_camera(small_video, ANGLE)
    path = small_video / "meta/stats.json"
    stats = json.loads(path.read_text())
    path.write_text(json.dumps({k: {n: v for n, v in s.items() if n[0] != "q"} for k, s in stats.items()}))
    gone = [n for n in pq.read_schema(small_video / LIST).names if "/q" in n]
    change_table(small_video, LIST, lambda table: table.drop_columns(gone))
    assert verify_dataset(small_video).sound
    return small_video


@pytest.mark.parametrize("place", [DATA, LIST])
def test_no_column_of_another_type_is_a_crash(one_camera, place):
    whole = pq.read_table(one_camera / place)
    count = len(whole)
    names = whole.column_names
    kept = [n for n in names if DEPTH in n or not n.startswith(("stats", "videos"))]
    # A least and a count of 1 can be, and of a least or greatest that is no number nothing can be said.
    possible = {("min", "[1.0]"), ("count", "[1.0]"), ("min", "nan"), ("max", "nan")}
    for name in kept:
        for values in (["text"] * count, [None] * count, [[1.0]] * count, [float("nan")] * count):
            table = whole.set_column(names.index(name), name, pa.array(values))
            pq.write_table(table, one_camera / place)
            known = name.startswith("stats") and (name.rpartition("/")[2], str(values[0])) in possible
            assert verify_dataset(one_camera).sound == known, (name, values[0])


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        verify_dataset(tmp_path / "nothing")
    with pytest.raises(SourceError, match=r"has no meta/info\.json"):
        verify_dataset(tmp_path)


def test_nothing_is_changed_and_what_an_interrupted_run_left_is_a_note(video):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in video.rglob("*")}

    before = state()
    pieces = video.parent / f".{video.name}.ffenc/pieces"
    pieces.mkdir(parents=True)
    (pieces / "one.json").write_text("{}")
    found = verify_dataset(video, deep=True)
    assert found.sound
    assert "interrupted run" in notes_of(found)[0].what
    assert state() == before
    assert probe(video / video_of(TOP)).frames == 72


def test_every_flipped_byte_of_what_ffenc_wrote_is_found(tmp_path):
    root = tmp_path / "made"
    reencode_dataset(FIXTURES / "aloha_image_v30", root, cameras=["angle_depth"], episodes=[1])
    path = root / video_of(DEPTH)
    whole = path.read_bytes()
    assert verify_dataset(root, deep=True).sound
    subprocess.run(["sha256sum", "--check", "meta/videos.sha256"], cwd=root, check=True, capture_output=True)
    rng = np.random.default_rng(7)
    for place in rng.integers(len(whole) // 50, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        found = verify_dataset(root, deep=True)
        assert not found.sound
        assert any(fault.kind == "checksum" and fault.file == video_of(DEPTH) for fault in found.faults)


def test_lossless_depth_that_is_not_its_source_is_found(small_video, dataset_copy):
    video = small_video
    sound = verify_dataset(video, against=dataset_copy)
    assert sound.sound
    place = "data/chunk-000/file-000.parquet"
    table = pq.read_table(dataset_copy / place)
    images = table[DEPTH].to_pylist()
    depth = np.array(Image.open(io.BytesIO(images[30]["bytes"])))
    depth[40:60, 40:60] = 500
    changed = io.BytesIO()
    Image.fromarray(depth).save(changed, "TIFF")
    images[30]["bytes"] = changed.getvalue()
    at = table.schema.get_field_index(DEPTH)
    column = pa.array(images, table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), column), dataset_copy / place)
    [fault] = verify_dataset(video, against=dataset_copy).faults
    assert (fault.kind, fault.camera, fault.episode, fault.frame) == ("differs", DEPTH, 1, 30 - 24)
    assert "though the settings are lossless" in fault.what


# --- verify and jobs come to the same view ----------------------------------------------------------------


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def nan_action(values):
    values[30] = [float("nan"), *values[30][1:]]


PASSED_ON = {
    "nan": (DATA, set_column("action", nan_action), "values", "has nan in action"),
    "null": (DATA, set_column("action", lambda v: [*v[:30], None, *v[31:]]), "columns", "rows without"),
    "ragged": (
        DATA, lambda t: with_column(t, "action", [r[: 13 + (i != 30)] for i, r in
        enumerate(t["action"].to_pylist())]), "columns", "different lengths",
    ),
    "extra column": (
        DATA, lambda t: t.append_column("reward", pa.array([0.5] * 72)), "columns", "has a column reward",
    ),
    "two of one name": (
        DATA, lambda t: t.append_column("action", t["action"]), "columns", "two columns named action",
    ),
    "struct": (
        DATA, lambda t: with_column(t, "action", [{"a": 1.0}] * 72), "columns", "without numbers",
    ),
    "map": (
        DATA, lambda t: t.set_column(t.column_names.index("action"), "action",
        pa.array([[("a", 1.0)]] * 72, pa.map_(pa.string(), pa.float64()))), "columns", "without numbers",
    ),
    "a row's task": (
        DATA, set_column("task_index", lambda v: [*v[:24], 1, *v[25:]]), "tasks", "does not list task",
    ),
    "no task": (LIST, set_column("tasks", lambda v: [v[0], [], v[2]]), "tasks", "a list of texts"),
    "a task too many": (
        LIST, set_column("tasks", lambda v: [v[0] + v[2], v[1], v[2]]), "tasks", "none of its rows has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED_ON)
def test_a_fault_that_a_copy_would_have_is_refused_with_the_words_of_verify(video, tmp_path, name):
    place, change, kind, said = PASSED_ON[name]
    change_table(video, place, change)
    found = [fault for fault in verify_dataset(video).faults if fault.kind == kind]
    assert any(said in fault.what for fault in found), kinds(verify_dataset(video))
    with pytest.raises(SourceError, match=re.escape(said.split(",")[0])):
        merge_datasets([video], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_episode_with_a_fault_can_be_left_out(video, tmp_path):
    """As the advice says."""
    change_table(video, DATA, set_column("action", nan_action))
    (fault,) = only(verify_dataset(video), "values")
    assert (fault.episode, fault.frame) == (1, 6)
    assert "`reencode_dataset(source=DATASET, destination=NEW, episodes=...)`" in fault.fix
    assert check_source(video, cameras=KEYS, episodes={0, 2}).episodes == frozenset()


def test_what_was_written_is_published_only_if_it_passes(tmp_path, monkeypatch, video):
    """The last place where a fault of ffenc's own would show."""
    written = tables.JobTables.write

    def spoilt(self):
        written(self)
        change_info(self._writer.folder, lambda info: info.update(total_frames=71))

    monkeypatch.setattr(tables.JobTables, "write", spoilt)
    with pytest.raises(VerificationError, match="total_frames is 71, the lists have 72"):
        merge_datasets([video], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stale_statistics_of_numbering_are_a_note_and_a_merge_computes_them(video, tmp_path):
    path = video / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["index"] |= {"mean": [99.0], "max": [143]}
    path.write_text(json.dumps(stats))
    found = verify_dataset(video)
    assert (found.sound, [(n.kind, n.severity, n.camera) for n in notes_of(found)]) == (
        True, [("statistics-stale", "note", "index")],
    )  # fmt: skip
    merge_datasets([video], tmp_path / "out")
    result = verify_dataset(tmp_path / "out")
    assert [str(one) for one in (*result.faults, *notes_of(result))] == []


@pytest.mark.parametrize("name", ["data_path", "video_path"])
def test_a_template_of_another_layout_does_not_make_good_files_orphans(video, name):
    old = {"data_path": LeRobotV21.data_path, "video_path": LeRobotV21.video_path}[name]
    usual = json.loads((video / "meta/info.json").read_text())[name]
    change_info(video, lambda info: info.update({name: old}))
    (fault,) = only(verify_dataset(video), "path-template")
    assert fault.fix == f"write {usual!r} there; no file has to be moved"
    change_info(video, lambda info: info.update({name: usual}))
    assert verify_dataset(video).sound


def test_no_file_is_to_be_moved_away_where_the_list_that_named_it_is_gone(video):
    (video / LIST).unlink()
    orphans = [fault for fault in verify_dataset(video).faults if fault.kind == "orphan"]
    assert len(orphans) == 4
    assert all(fault.fix.startswith("keep it") for fault in orphans)


@pytest.mark.parametrize("kind", ["schema-metadata", "episode-columns", "statistics-missing", "index"])
def test_what_a_merge_is_advised_for_it_corrects(small_video, tmp_path, kind):
    video = small_video
    if kind == "schema-metadata":
        drop = {b"huggingface": json.dumps({"info": {"features": {"action": {}}}}).encode()}
        change_table(video, DATA, lambda table: table.replace_schema_metadata(drop))
    elif kind == "episode-columns":
        change_table(video, LIST, set_column("dataset_from_index", lambda v: [0, 25, 41]))
    elif kind == "index":
        change_table(video, DATA, set_column("index", lambda v: [n + 100 for n in v]))
    else:
        change_table(video, LIST, lambda t: t.drop_columns(["stats/action/std"]))
    found = [fault for fault in verify_dataset(video).faults if fault.kind == kind]
    assert found
    assert all("`merge_datasets(sources=[DATASET], destination=NEW)`" in fault.fix for fault in found)
    merge_datasets([video], tmp_path / "out")
    assert [str(fault) for fault in verify_dataset(tmp_path / "out").faults] == []


def test_a_time_that_a_float32_cannot_say_is_a_note(tmp_path):
    root = made(tmp_path / "made", [130_000], state_width=1)
    found = verify_dataset(root)
    assert [note.kind for note in notes_of(found)] == ["timestamps-rounded"]
    assert found.sound


def test_a_dataset_whose_times_float32_rounds_can_be_edited_and_repaired(tmp_path):
    root, out = made(tmp_path / "made", [130_000], state_width=1), tmp_path / "out"
    with pytest.raises(ConfigError, match="every timestamp is frame_index / fps already"):
        merge_datasets([root], out, retime=True)
    assert repair_dataset(root, out, dry_run=True).actions == []
    with pytest.warns(FfencWarning, match="than 0.1 ms away"):
        edit_dataset(root, out, edits=Edits(robot_type="other"))
    times = [pq.read_table(folder / DATA)["timestamp"] for folder in (root, out)]
    assert times[0].equals(times[1])
    late = times[0].to_numpy() + np.float32(0.01) * (np.arange(130_000) == 100)
    change_table(root, DATA, set_column("timestamp", lambda _: late.tolist()))
    with pytest.raises(SourceError, match="row 100 has timestamp"):
        merge_datasets([root], tmp_path / "again")


def test_damage_in_lists_is_noticed_by_the_checksums_of_their_pages(tmp_path, one_episode):
    def damage(place, column):
        """Change the last value in a column's dictionary."""
        root = shutil.copytree(one_episode, tmp_path / column.replace("/", "-"))
        pq.write_table(pq.read_table(root / place), root / place, write_page_checksum=True)
        group = pq.read_metadata(root / place).row_group(0)
        chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
        data = bytearray((root / place).read_bytes())
        data[chunk.data_page_offset - 1] ^= 0x40
        (root / place).write_bytes(data)
        return root

    root = damage("meta/tasks.parquet", "task")
    [fault] = verify_dataset(root).faults  # nothing is compared with a table that cannot be read
    assert fault.kind == "tasks"
    assert "CRC" in fault.what
    root = damage(LIST, f"videos/{ANGLE}/from_timestamp")
    with pytest.raises(SourceError, match="CRC"):
        episode_videos(root)
    root = damage(LIST, "dataset_to_index")
    assert any("CRC" in fault.what for fault in verify_dataset(root).faults if fault.kind == "episodes")
    root = damage(LIST, "length")
    with pytest.raises(SourceError, match="CRC"):
        open_dataset(root)
    left = SalvagedRows(root, without=(), task=None, scratch=tmp_path)
    assert "its episodes are derived from their rows" in " ".join(map(str, left.actions))


def test_known_images_are_not_decoded_again_wherever_the_work_is_done(two_image_cameras):
    for recorded, executor in ((0, LocalExecutor()), (2, LocalExecutor()), (2, None)):
        found = verify_dataset(two_image_cameras, deep=True, known_images=True, executor=executor)
        assert (found.sound, found.recorded) == (True, recorded)
    with pytest.raises(ConfigError, match="known_images=True would have no effect"):
        verify_dataset(two_image_cameras, known_images=True)


def test_records_of_earlier_statistics_are_not_read():
    remember(["shown", "sum", 1], {"faults": [], "stats": {"0": {"min": [1]}}, "values": None})
    records, now = DecodeRecords(), Shown({0: {"min": [2]}})
    for known in (False, True):
        found, recorded = records.shown("sum", [1], Faults(), lambda _: now)
        assert (found.stats, recorded) == (now.stats, known)
