"""ROS 2 bags and MCAP files become datasets; their times are put on the grid, and what is missing is said."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffenc import ConfigError, FfencWarning, SourceError, plan_reencode, reencode_dataset, verify_dataset
from ffenc.cli.app import run
from ffenc.config.mapping import build_mapping, load_mapping
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.dataset.sources.ros import RosSource
from ffenc.frames.depth_images import read_depth
from tests.conftest import pixels, psnr
from tests.support.read import column, frames_of, info_of, notes_of
from tests.support.recorded import (
    Recorded,
    Sample,
    _Messages,
    bag_messages,
    jpeg,
    samples,
    video_packets,
    write_bag,
    write_mcap,
)

FINE = [
    (("camera_encoder", "vcodec"), "h264"),
    (("camera_encoder", "crf"), 8),
    (("depth_encoder", "preset"), "ultrafast"),
]
JOINTS = {"path": "/joint_states", "names": [f"joint_{i}" for i in range(14)], "dtype": "float32"}
MAPPING: dict[str, Any] = {
    "fps": 10,
    "task": {"path": "/task"},
    "cameras": {
        "top": {"path": "/top/image_raw"},
        "wrist": {"path": "/wrist/image_raw/compressed"},
        "depth": {"path": "/depth/image_raw", "depth": True},
        "packed": {"path": "/depth/image_raw/compressedDepth", "depth": True},
    },
    "features": {"observation.state": JOINTS, "action": {"path": "/command", "dtype": "float32"}},
}
TOP: dict[str, Any] = {"fps": 10, "cameras": {"top": {"path": "/top/image_raw"}}}
BEGIN, STEP, LATE = 1_700_000_000_000_000_000, 100_000_000, 4_000_000


@pytest.fixture(scope="module")
def recorded() -> list[Sample]:
    return samples(6)


@pytest.fixture(scope="module")
def mcap(recorded: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mcap(
        tmp_path_factory.mktemp("mcap") / "a.mcap", bag_messages(recorded[0]), chunk_size=150_000
    )


def opened(path: Path, values: dict[str, Any], **options: Any) -> DatasetSource:
    return open_source(path, Opening(mapping=build_mapping(values), **options))


def shown(source: DatasetSource, camera: str = "top", episode: int = 0) -> list[bytes]:
    frames = source.frames(f"observation.images.{camera}", source.episodes[episode])
    return [frame.data for frame in frames]


def test_a_bag_and_an_mcap_file_come_frame_by_frame_and_value_by_value(
    recorded: list[Sample], mcap: Path, tmp_path: Path
) -> None:
    one = recorded[0]
    bag = write_bag(tmp_path / "bag", bag_messages(one))
    out = tmp_path / "out"
    reencode_dataset(bag, out, mapping=build_mapping(MAPPING), overrides=FINE)
    assert min(psnr(a, b) for a, b in zip(frames_of(out, "top"), one.angle, strict=True)) > 36
    given = [pixels(jpeg(frame)) for frame in one.angle]
    assert min(psnr(a, b) for a, b in zip(frames_of(out, "wrist"), given, strict=True)) > 36
    assert np.array_equal(column(out, "observation.state"), one.state)
    assert np.array_equal(column(out, "action"), one.action)
    assert np.allclose(column(out, "timestamp"), np.arange(6) / 10)
    info = info_of(out)
    assert info["features"]["observation.state"]["names"] == JOINTS["names"]
    assert info["features"]["observation.images.depth"]["info"]["is_depth_map"]
    notes = notes_of(out, 0)
    assert notes["source"] == {"file": "bag", "begin_ns": BEGIN, "cut_seconds": [0.0, pytest.approx(0.004)]}
    assert notes["stamps_ns"]["top"] == [BEGIN + i * STEP for i in range(6)]
    top = next(stream for stream in notes["streams"] if stream["topic"] == "/top/image_raw")
    assert (top["messages"], top["rate"], top["received_after_header"]) == (6, 10.0, [0.004, 0.004])
    checked = verify_dataset(out, against=bag)
    assert checked.sound, checked.faults
    compared = {one.camera: one.compared for one in checked.cameras}
    for name in ("depth", "packed"):
        depth = compared[f"observation.images.{name}"]
        assert depth is not None
        assert depth.differing == 0

    sources = [opened(path, MAPPING) for path in (bag, mcap)]  # the same, whatever they are kept in
    assert [source.tasks() for source in sources] == [["lift the cube"]] * 2
    for camera in MAPPING["cameras"]:
        assert shown(sources[0], camera) == shown(sources[1], camera)
    assert shown(sources[1], "wrist") == [jpeg(frame) for frame in one.angle]
    tables = [next(iter(source.read(source.episodes))).rows for source in sources]
    assert tables[0].equals(tables[1])


def test_the_mapping_that_inspect_writes_reads_the_file(
    mcap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, sheet = tmp_path / "m.yaml", tmp_path / "s.png"
    assert run(["inspect", str(mcap), "--write-mapping", str(written), "--sheet", str(sheet)]) == 0
    said = capsys.readouterr()
    assert "/joint_states" in said.out
    assert "not on the contact sheet" not in said.err
    assert sheet.is_file()
    mapping = load_mapping(written)
    assert (mapping.fps, list(mapping.cameras)) == (10, ["depth", "depth_2", "top", "wrist"])
    source = open_source(mcap, Opening(mapping=mapping))
    assert [episode.length for episode in source.episodes] == [6]
    assert source.tasks() == ["lift the cube"]
    with pytest.raises(ConfigError, match="is a ROS 2 bag: describe its 7 topics with mapping=FILE"):
        plan_reencode(mcap, tmp_path / "out")


def raw_images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Encoding -> pixels as they are in a message, and the RGB that they show: red at the left, else blue."""
    height, width = 64, 96
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2], rgb[:, width // 2 :] = (220, 40, 30), (20, 60, 200)
    alpha = np.dstack([rgb, np.full((height, width), 255, np.uint8)])
    gray = np.tile(np.arange(width, dtype=np.uint8) * 2, (height, 1))
    found = {
        "rgb8": (rgb, rgb),
        "bgr8": (rgb[..., ::-1], rgb),
        "rgba8": (alpha, rgb),
        "bgra8": (alpha[..., [2, 1, 0, 3]], rgb),
        "mono8": (gray, np.repeat(gray[..., None], 3, -1)),
    }
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    luma = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256  # BT.601, limited range
    blue = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    red = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    packed = np.empty((height, width // 2, 4), np.uint8)
    packed[..., 0], packed[..., 1], packed[..., 2] = blue[:, ::2], luma[:, ::2], red[:, ::2]
    packed[..., 3] = luma[:, 1::2]
    for name, order in {"yuv422": [0, 1, 2, 3], "uyvy": [0, 1, 2, 3], "yuv422_yuy2": [1, 0, 3, 2]}.items():
        found[name] = (packed[..., order].reshape(height, width, 2), rgb)
    for pattern in ("rggb", "bggr", "gbrg", "grbg"):
        mosaic = np.empty((height, width), np.uint8)
        for place, colour in enumerate(pattern):
            row, column = divmod(place, 2)
            mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
        found[f"bayer_{pattern}8"] = (mosaic, rgb)
    return found


def test_raw_images_have_the_colours_that_their_encoding_says(tmp_path: Path) -> None:
    make, images = _Messages(), raw_images()
    messages = [
        (f"/{name}", BEGIN + i * STEP, make.image(BEGIN + i * STEP, pixels, name, padding=4))
        for i in range(2)
        for name, (pixels, _) in images.items()
    ]
    path, out = write_mcap(tmp_path / "a.mcap", messages), tmp_path / "out"
    mapping = build_mapping({"fps": 10, "cameras": {name: {"path": f"/{name}"} for name in images}})
    fine = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 4)]
    reencode_dataset(path, out, mapping=mapping, task="x", overrides=fine)
    for name, (_, wanted) in images.items():
        inner = [(slice(4, 60), slice(6, 40)), (slice(4, 60), slice(56, 90))]  # away from the edges
        for shown in frames_of(out, name):
            for place in inner:
                assert np.abs(shown[place].astype(int) - wanted[place]).max() <= 12, name


def test_depth_in_metres_and_of_the_other_byte_order(recorded: list[Sample], tmp_path: Path) -> None:
    make, depth = _Messages(), recorded[0].depth[0]
    big = make.image(BEGIN, depth.astype(">u2"), "16UC1")
    big.is_bigendian = 1
    metres = (depth / 1000).astype(np.float32)
    messages = [("/big", BEGIN, big), ("/metres", BEGIN, make.image(BEGIN, metres, "32FC1"))]
    cameras = {name: {"path": f"/{name}", "depth": True} for name in ("big", "metres")}
    source = opened(write_mcap(tmp_path / "a.mcap", messages), {"fps": 10, "cameras": cameras})
    for name, wanted, unit in (("big", depth, "mm"), ("metres", metres, "m")):
        (frame,) = source.frames(f"observation.images.{name}", source.episodes[0])
        assert np.array_equal(read_depth(frame), wanted)
        assert next(one.unit for one in source.cameras if one.key.endswith(name)) == unit


def test_frames_can_be_sent_to_another_process(mcap: Path) -> None:
    source = opened(mcap, MAPPING)
    for camera in MAPPING["cameras"]:
        frames = source.frames(f"observation.images.{camera}", source.episodes[0])
        sent = pickle.loads(pickle.dumps(frames))
        assert [frame.data for frame in sent] == [frame.data for frame in frames]
        assert sent.fingerprint() == frames.fingerprint()


def test_states_are_interpolated_where_asked_for_and_a_camera_that_is_too_slow_is_an_error(
    recorded: list[Sample], mcap: Path
) -> None:
    joints = {**TOP, "features": {"observation.state": {**JOINTS, "dtype": "float64"}}}
    fast = {**joints, "fps": 20}
    with pytest.raises(
        SourceError, match=r"/top/image_raw has no message within 0.025 s of frame 1 .at 0.050 s"
    ):
        opened(mcap, fast)
    fast["cameras"] = {"top": {"path": "/top/image_raw", "tolerance": 0.06}}
    state = recorded[0].state.astype(np.float64)
    middle = (state[:-1] + state[1:]) / 2
    for interpolate, near in ((True, 1e-6), (False, np.abs(np.diff(state, axis=0)).max() / 9)):
        feature = {**JOINTS, "dtype": "float64", "interpolate": interpolate}
        source = opened(mcap, {**fast, "features": {"observation.state": feature}})
        assert source.episodes[0].length == 11
        table = next(iter(source.read(source.episodes))).rows
        values = np.array(table["observation.state"].to_pylist())
        assert np.allclose(values[::2], state, atol=1e-6)
        assert np.abs(values[1::2] - middle).max() <= near
    assert shown(source)[0] == shown(source)[1] != shown(source)[2]  # the nearest, of two as near the earlier


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_packets_of_video_are_copied_onto_the_grid_or_decoded_where_they_do_not_fit(
    recorded: list[Sample], tmp_path: Path, codec: str
) -> None:
    make, pictures = _Messages(), recorded[0].angle
    packets = video_packets(pictures, codec)
    stamps = [BEGIN + i * STEP for i in range(6)]
    messages = [("/cam", t + LATE, make.video(t, p, codec)) for t, p in zip(stamps, packets, strict=True)]
    path, out = write_mcap(tmp_path / "a.mcap", messages), tmp_path / "out"
    mapping = build_mapping({"fps": 10, "cameras": {"cam": {"path": "/cam"}}})
    assert reencode_dataset(path, out, mapping=mapping, task="x").copied == 1
    video = out / "videos/observation.images.cam/chunk-000/file-000.mp4"
    kept = video.read_bytes()
    assert all(packet[-200:] in kept for packet in packets)  # nothing was encoded
    assert min(psnr(a, b) for a, b in zip(frames_of(out, "cam"), pictures, strict=True)) > 36
    assert verify_dataset(out, against=path).sound
    if codec == "h265":
        return
    write_mcap(path, messages[1:3])
    with pytest.raises(SourceError, match="/cam: has no key frame in packets with start codes"):
        opened(path, {"fps": 10, "cameras": {"cam": {"path": "/cam"}}})
    write_mcap(path, messages[1:])  # begins between key frames, as a recording does
    with pytest.warns(FfencWarning, match="/cam: 2 packets before the first key frame cannot be decoded"):
        late = opened(path, {"fps": 10, "cameras": {"cam": {"path": "/cam"}}})
    notes = late.notes(late.episodes[0])
    assert isinstance(notes, dict)
    assert notes["stamps_ns"]["cam"] == stamps[3:]
    assert isinstance(late, RosSource)
    assert late.video("observation.images.cam", late.episodes[0]).start == 0
    write_mcap(path, messages)
    source = opened(path, {"fps": 20, "cameras": {"cam": {"path": "/cam", "tolerance": 0.06}}})
    frames = [np.frombuffer(data, np.uint8).reshape(pictures[0].shape) for data in shown(source, "cam")]
    wanted = pictures[[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]]
    assert min(psnr(a, b) for a, b in zip(frames, wanted, strict=True)) > 36
    write_mcap(path, [("/cam", BEGIN, make.video(BEGIN, b"x", "vp9"))])
    with pytest.raises(SourceError, match="/cam: holds packets of vp9; H.264 and H.265 are supported"):
        opened(path, {"fps": 20, "cameras": {"cam": {"path": "/cam"}}})


def without(messages: Recorded, topic: str, numbers: range) -> Recorded:
    place, kept = -1, []
    for one in messages:
        place += one[0] == topic
        if one[0] != topic or place not in numbers:
            kept.append(one)
    return kept


def test_what_is_missing_is_an_error_repeated_split_or_left_out(
    recorded: list[Sample], tmp_path: Path
) -> None:
    folder = tmp_path / "bags"
    folder.mkdir()
    whole = bag_messages(recorded[0])
    write_mcap(folder / "a.mcap", without(whole, "/top/image_raw", range(2, 4)))
    write_mcap(folder / "b.mcap", whole)
    with pytest.raises(
        SourceError, match=r"a.mcap: /top/image_raw has no message within 0.05 s of frame 2 .* nor of 1 "
    ):
        opened(folder, MAPPING)
    with pytest.warns(FfencWarning, match="a.mcap: /top/image_raw: 2 frames repeat the previous message"):
        source = opened(folder, MAPPING, on_gap="repeat")
    frames = shown(source)
    assert [episode.length for episode in source.episodes] == [6, 6]
    assert frames[1] == frames[2] == frames[3] != frames[4]
    notes = source.notes(source.episodes[0])
    assert isinstance(notes, dict)
    assert notes["repeated"] == {"top": [2, 3]}
    assert notes["on_gap"] == "repeat"
    with pytest.warns(FfencWarning, match="a.mcap: split into 2 episodes"):
        source = opened(folder, {**MAPPING, "time": {"on_gap": "split"}})
    assert [episode.length for episode in source.episodes] == [2, 2, 6]
    assert shown(source, episode=1) == shown(source, episode=2)[4:]
    with pytest.warns(FfencWarning, match="a.mcap: left out, because some frames have no message"):
        source = opened(folder, MAPPING, on_gap="drop-episode")
    assert [episode.length for episode in source.episodes] == [6]
    with pytest.raises(ConfigError, match="on_gap is for ROS 2 bags"):
        plan_reencode(Path("fixtures/aloha_image_v30"), tmp_path / "out", on_gap="repeat")


def test_messages_out_of_order_and_doubled_are_put_in_order_and_reported(
    recorded: list[Sample], tmp_path: Path
) -> None:
    messages = bag_messages(recorded[0])
    places = [place for place, one in enumerate(messages) if one[0] == "/top/image_raw"]
    late = messages.pop(places[2])  # recorded after the one that follows it
    after = messages[places[3] - 1]
    messages.insert(places[3], ("/top/image_raw", after[1] + 1000, late[2]))
    messages.append(("/top/image_raw", messages[-1][1] + 1, messages[places[1]][2]))  # once more
    source = opened(write_mcap(tmp_path / "a.mcap", messages), TOP)
    straight = opened(write_mcap(tmp_path / "b.mcap", bag_messages(recorded[0])), TOP)
    assert shown(source) == shown(straight)
    notes = source.notes(source.episodes[0])
    assert isinstance(notes, dict)
    stream = notes["streams"][0]
    assert (stream["out_of_order"], stream["duplicates"]) == (2, 1)


def test_a_topic_cuts_a_recording_into_episodes(recorded: list[Sample], tmp_path: Path) -> None:
    make, messages = _Messages(), bag_messages(recorded[0])
    for seconds, running in ((-0.01, True), (0.25, False), (0.35, True), (0.55, False)):
        messages.append(("/running", BEGIN + int(seconds * 1e9), make.flag(running)))
    path = write_mcap(tmp_path / "a.mcap", sorted(messages, key=lambda one: one[1]))
    source = opened(path, {**TOP, "episodes": {"topic": "/running"}})
    assert [episode.length for episode in source.episodes] == [3, 2]
    whole = shown(opened(path, TOP))
    assert shown(source) + shown(source, episode=1) == [*whole[:3], *whole[4:]]


def test_the_number_of_an_episode_may_be_0(recorded: list[Sample], tmp_path: Path) -> None:
    make, messages = _Messages(), bag_messages(recorded[0])
    for seconds, number in ((-0.01, 0), (0.15, 1), (0.35, 2)):
        messages.append(("/episode", BEGIN + int(seconds * 1e9), make.number(number)))
    path = write_mcap(tmp_path / "a.mcap", sorted(messages, key=lambda one: one[1]))

    def lengths(**episodes: Any) -> list[int]:
        source = opened(path, {**TOP, "episodes": {"topic": "/episode", **episodes}})
        return [episode.length for episode in source.episodes]

    with pytest.warns(FfencWarning, match=r"/episode has 3 values, .* write between: \[\] under episodes"):
        assert lengths() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lengths(between=[0]) == [2, 2]
        assert lengths(between=[]) == [2, 2, 2]
        assert lengths(between=[1, -1]) == [2, 2]
    with pytest.raises(SourceError, match=r"begins no episode: all its values are among \[0, 1, 2\]"):
        lengths(between=[0, 1, 2])


def test_headers_without_times_and_stamps_that_are_kept(recorded: list[Sample], tmp_path: Path) -> None:
    messages = bag_messages(recorded[0])
    for _, _, message in messages:
        if hasattr(message, "header"):
            message.header.stamp.sec = message.header.stamp.nanosec = 0
    path = write_mcap(tmp_path / "a.mcap", messages)
    with pytest.raises(
        SourceError, match="headers of /top/image_raw have no timestamps .all are 0.; write stamps: received"
    ):
        opened(path, TOP)
    source = opened(path, {**TOP, "time": {"stamps": "received", "keep": True}})
    table = next(iter(source.read(source.episodes))).rows
    assert np.allclose(table["observation.stamps.top"].to_pylist(), np.arange(6) / 10)
    assert "timestamp" not in table.column_names  # the writer gives every row the time of its frame


def test_a_file_that_is_cut_short_is_read_up_to_there_and_a_damaged_one_is_not(
    recorded: list[Sample], mcap: Path, tmp_path: Path
) -> None:
    whole, path = mcap.read_bytes(), tmp_path / "a.mcap"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.warns(
        FfencWarning,
        match="a.mcap: has no index, as after a crash: .* messages are read, up to where it is cut short",
    ):
        source = opened(path, TOP)
    count = source.episodes[0].length
    assert 2 <= count < 6
    assert shown(source) == shown(opened(mcap, TOP))[:count]
    notes = source.notes(source.episodes[0])
    assert isinstance(notes, dict)
    assert "is cut short" in notes["recovered"]
    path.write_bytes(whole[:100])
    with pytest.raises(SourceError, match="a.mcap: is truncated, and contains no complete message"):
        opened(path, TOP)
    at = len(whole) // 3
    path.write_bytes(whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 64]) + whole[at + 64 :])
    with pytest.raises(SourceError, match="a.mcap: is damaged: "):
        opened(path, TOP)
    bag = write_bag(tmp_path / "bag", bag_messages(recorded[0]))
    database = next(bag.glob("*.db3"))
    alone = opened(database, TOP)  # without its metadata
    assert len(shown(alone)) == 6
    database.write_bytes(database.read_bytes()[:5000])
    with pytest.raises(SourceError, match=r"bag: (cannot be read as a ROS 2 bag|is damaged)"):
        opened(bag, TOP)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cameras": {"top": {"path": "/top"}}}, "there is no topic /top; it has /command"),
        ({"cameras": {"top": {"path": "/joint_states"}}}, "its messages are sensor_msgs/msg/JointState"),
        (
            {"cameras": {"top": {"path": "/depth/image_raw"}}},
            "its encoding is 16UC1, and the mapping does not say depth",
        ),
        (
            {"cameras": {"top": {"path": "/top/image_raw", "depth": True}}},
            "its encoding is bgr8, and the mapping says depth",
        ),
        ({"cameras": {"top": {"path": "/depth/image_raw/compressedDepth"}}}, "does not say depth: true"),
        (
            {"cameras": {"top": {"path": "/top/image_raw", "white": 1}}},
            "white: does not apply to ROS 2 bags",
        ),
        ({"features": {"x": {"path": "/joint_states", "names": ["a"]}}}, "has no joint 'a'; it has joint_"),
        (
            {"features": {"x": {"path": "/joint_states", "field": "pos"}}},
            "has no field 'pos' of pos; it has header, name",
        ),
        ({"episodes": {"ends": "meta"}}, "ends: does not apply to ROS 2 bags"),
    ],
)
def test_what_a_topic_cannot_be_is_refused(mcap: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((SourceError, ConfigError), match=said):
        opened(mcap, {**TOP, **changes})


def test_hostile_and_broken_messages_are_named(recorded: list[Sample], tmp_path: Path) -> None:
    make, path = _Messages(), tmp_path / "a.mcap"
    image = recorded[0].angle[0]
    for change, said in (
        ({"height": 1 << 20}, "is 160x1048576; at most 16384 pixels a side"),
        ({"height": 200}, "is cut short: .* expected 200 rows of 480"),
        ({"step": 9}, "is cut short: .* in rows of 9; expected 120 rows of 480"),
        ({"encoding": "nv21"}, "its encoding is 'nv21'; supported are rgb8"),
        ({"encoding": "8UC3"}, "its encoding is '8UC3'; write channels: rgb or bgr in the mapping"),
    ):
        message = make.image(BEGIN, image, "rgb8")
        for name, value in change.items():
            setattr(message, name, value)
        write_mcap(path, [("/top/image_raw", BEGIN, message)])
        with pytest.raises(SourceError, match=f"/top/image_raw, message 0: {said}"):
            opened(path, TOP)
    write_mcap(path, [("/top/image_raw", BEGIN, make.image(BEGIN, image, "rgb8"))])
    with pytest.raises(SourceError, match="channels: bgr would have no effect: its encoding is rgb8"):
        opened(path, {"fps": 10, "cameras": {"top": {"path": "/top/image_raw", "channels": "bgr"}}})
    write_mcap(path, [("/top/image_raw", BEGIN, make.compressed(BEGIN, b"RIFF", "webp"))])
    with pytest.raises(
        SourceError, match="message 0: is cut short; restore|is not a PNG, JPEG or TIFF image"
    ):
        opened(path, TOP)
