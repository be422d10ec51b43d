"""The sample dataset's frames and rows in the formats that robots record in, written by their own libraries.

``python -m tests.support.recorded FOLDER`` writes all of them; those in ``fixtures/`` were made so.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.conftest import ANGLE, DATASET, DEPTH, LENGTHS, TOP, newest_program, starts

FRAMES = 8  # of each episode


@dataclass(frozen=True)
class Sample:
    """Some frames of one episode of the sample.

    Attributes:
        top, angle: RGB pixels, ``(N, H, W, 3)`` uint8.
        depth: millimetres, ``(N, H, W)`` uint16.
        state, action: ``(N, 14)`` float32.
    """

    top: np.ndarray
    angle: np.ndarray
    depth: np.ndarray
    state: np.ndarray
    action: np.ndarray


def samples(frames: int = FRAMES) -> list[Sample]:
    """The first frames of the sample's first two episodes, the second one shorter by one."""
    table = pq.read_table(DATASET / "data/chunk-000/file-000.parquet")
    found = []
    for number, (start, _) in enumerate(list(zip(starts(), LENGTHS, strict=True))[:2]):
        rows = table.slice(start, frames - number)

        def pixels(key: str, rows: Any = rows) -> np.ndarray:
            images = (Image.open(io.BytesIO(one["bytes"])) for one in rows[key].to_pylist())
            return np.stack([np.asarray(image) for image in images])

        state, action = (
            np.array(rows[key].to_pylist(), np.float32) for key in ("observation.state", "action")
        )
        found.append(Sample(pixels(TOP), pixels(ANGLE), pixels(DEPTH).astype(np.uint16), state, action))
    return found


def jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    """A JPEG, with halved chroma as cameras make it."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "jpeg", quality=quality)
    return data.getvalue()


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "png")
    return data.getvalue()


def rvl_bytes(depth: np.ndarray) -> bytes:
    """Depth as compressed_depth_image_transport's ``RvlCodec::CompressRVL`` writes it, number by number."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            value, low = value >> 3, value & 7
            nibbles.append(low | (8 if value else 0))
            if not value:
                return

    pixels, place, previous = depth.reshape(-1).tolist(), 0, 0
    while place < len(pixels):
        start = place
        while place < len(pixels) and not pixels[place]:
            place += 1
        put(place - start)
        start = place
        while place < len(pixels) and pixels[place]:
            place += 1
        put(place - start)
        for value in pixels[start:place]:
            put((value - previous) << 1 if value >= previous else ((previous - value) << 1) - 1)
            previous = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{one:x}" for one in nibbles[at : at + 8]), 16) for at in range(0, len(nibbles), 8)]
    return np.array([depth.shape[1], depth.shape[0], *words], "<u4").tobytes()


def inverse_depth(metres: np.ndarray, *, depth_max: float, quantization: float) -> tuple[bytes, np.ndarray]:
    """Metres as compressed_depth_image_transport makes codes of them: its header, and the codes."""
    a = np.float32(quantization * (quantization + 1))
    b = np.float32(1 - a / np.float32(depth_max))
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.where((metres > 0) & (metres < depth_max), a / metres + b, 0)
    return struct.pack("<iff", 0, a, b), np.minimum(codes, 65535).astype(np.uint16)


def write_aloha(folder: Path, recorded: list[Sample], *, compressed: bool = True) -> Path:
    """ALOHA's own layout, as its ``record_episodes.py`` writes it: one file an episode."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(recorded):
        cameras = {"cam_high": one.top, "cam_left_wrist": one.angle}
        with h5py.File(folder / f"episode_{number}.hdf5", "w", rdcc_nbytes=1024**2 * 2) as root:
            root.attrs["sim"] = False
            root.attrs["compress"] = compressed
            obs = root.create_group("observations")
            images = obs.create_group("images")
            lengths = []
            for name, pixels in cameras.items():
                if not compressed:
                    images.create_dataset(name, data=pixels, chunks=(1, *pixels.shape[1:]))
                    continue
                encoded = [jpeg(frame) for frame in pixels]
                lengths.append([len(data) for data in encoded])
                # as there: padded to the longest
                padded = np.zeros((len(encoded), max(map(len, encoded))), np.uint8)
                for row, data in zip(padded, encoded, strict=True):
                    row[: len(data)] = np.frombuffer(data, np.uint8)
                images.create_dataset(name, data=padded, chunks=(1, padded.shape[1]))
            for name in ("qpos", "qvel", "effort"):
                obs.create_dataset(name, data=one.state.astype(np.float64) * (name == "qpos"))
            root.create_dataset("action", data=one.action.astype(np.float64))
            if compressed:
                root.create_dataset("compress_len", data=np.array(lengths))
    return folder


def write_replay_buffer(
    path: Path, recorded: list[Sample], version: int = 2, *, packed: bool = False
) -> Path:
    """The layout of Diffusion Policy and UMI: episodes one after another, and the rows at which they end."""
    import zarr

    store = zarr.storage.ZipStore(path, mode="w") if packed else str(path)
    root = zarr.create_group(store, zarr_format=version)
    data, meta = root.create_group("data"), root.create_group("meta")
    arrays = {
        "img": np.concatenate([one.top for one in recorded]).astype(np.float32),
        "camera0_rgb": np.concatenate([one.angle for one in recorded]),
        "state": np.concatenate([one.state for one in recorded]),
        "action": np.concatenate([one.action for one in recorded]),
    }
    for name, values in arrays.items():
        data.create_array(name, data=values, chunks=(3, *values.shape[1:]))
    meta.create_array("episode_ends", data=np.cumsum([len(one.state) for one in recorded]))
    if packed:
        store.close()
    return path


def write_umi(path: Path, recorded: list[Sample]) -> Path:
    """UMI's ``dataset.zarr.zip``, as its ``07_generate_replay_buffer.py`` does: JPEG XL, a frame a chunk."""
    import zarr
    from imagecodecs.numcodecs import Jpegxl
    from numcodecs import Blosc

    store = zarr.storage.ZipStore(path, mode="w")
    root = zarr.create_group(store, zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    poses = np.concatenate([one.state for one in recorded])
    starts = np.concatenate([np.repeat(one.state[:1, :6], len(one.state), 0) for one in recorded])
    images = np.concatenate([one.angle[:, :120, :120] for one in recorded])
    arrays = {
        "robot0_eef_pos": poses[:, :3],
        "robot0_eef_rot_axis_angle": poses[:, 3:6],
        "robot0_gripper_width": poses[:, 6:7],
        "robot0_demo_start_pose": starts.astype(np.float64),
        "robot0_demo_end_pose": starts.astype(np.float64) + 1,
    }
    for name, values in arrays.items():
        blosc = Blosc(cname="lz4", clevel=5, shuffle=Blosc.NOSHUFFLE)
        data.create_array(name, data=values, chunks=values.shape, compressors=blosc)
    chunk = (1, *images.shape[1:])
    jpegxl = Jpegxl(level=99, lossless=False, numthreads=1)
    data.create_array("camera0_rgb", data=images, chunks=chunk, compressors=jpegxl)
    ends = np.cumsum([len(one.state) for one in recorded])
    meta.create_array("episode_ends", data=ends, compressors=None)
    store.close()
    return path


def write_pusht(path: Path, recorded: list[Sample]) -> Path:
    """Diffusion Policy's ``pusht_cchi_v7_replay.zarr``: images as floats from 0 to 255, and key points."""
    import zarr
    from numcodecs import Blosc

    root = zarr.create_group(str(path), zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    state, action = (np.concatenate([getattr(one, name) for one in recorded]) for name in ("state", "action"))
    arrays = {
        "action": action[:, :2],
        "img": np.concatenate([one.top[:, ::2, ::2][:, :96, :96] for one in recorded]).astype(np.float32),
        "keypoint": state[:, :4].reshape(-1, 2, 2),
        "n_contacts": state[:, :1],
        "state": state[:, :5],
    }
    for name, values in arrays.items():
        blosc = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)
        data.create_array(name, data=values, chunks=(161, *values.shape[1:]), compressors=blosc)
    ends = np.cumsum([len(one.state) for one in recorded])
    meta.create_array("episode_ends", data=ends, compressors=None)
    return path


class _Messages:
    """Messages of ROS 2, as they are recorded."""

    def __init__(self) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.store = get_typestore(Stores.ROS2_HUMBLE)
        self.types = self.store.types

    def header(self, stamp: int) -> Any:
        time = self.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return self.types["std_msgs/msg/Header"](stamp=time, frame_id="")

    def image(self, stamp: int, pixels: np.ndarray, encoding: str, padding: int = 0) -> Any:
        """An ``Image``, each row followed by so many bytes."""
        height, width = pixels.shape[:2]
        rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
        return self.types["sensor_msgs/msg/Image"](
            header=self.header(stamp),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=rows.shape[1],
            data=rows.reshape(-1),
        )

    def compressed(self, stamp: int, data: bytes, kind: str) -> Any:
        values = np.frombuffer(data, np.uint8)
        return self.types["sensor_msgs/msg/CompressedImage"](
            header=self.header(stamp), format=kind, data=values
        )

    def joints(self, stamp: int, names: list[str], position: np.ndarray) -> Any:
        empty = np.zeros(0)
        return self.types["sensor_msgs/msg/JointState"](
            header=self.header(stamp),
            name=names,
            position=np.ascontiguousarray(position),
            velocity=empty,
            effort=empty,
        )

    def array(self, values: np.ndarray) -> Any:
        layout = self.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        return self.types["std_msgs/msg/Float64MultiArray"](layout=layout, data=values)

    def video(self, stamp: int, packet: bytes, codec: str = "h264") -> Any:
        """A ``foxglove_msgs/msg/CompressedVideo``."""
        from rosbags.typesys import get_types_from_msg

        name = "foxglove_msgs/msg/CompressedVideo"
        if name not in self.types:
            text = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
            self.store.register(get_types_from_msg(text, name))
        data = np.frombuffer(packet, np.uint8)
        return self.types[name](timestamp=self.header(stamp).stamp, frame_id="", data=data, format=codec)

    def text(self, value: str) -> Any:
        return self.types["std_msgs/msg/String"](data=value)

    def flag(self, value: bool) -> Any:
        return self.types["std_msgs/msg/Bool"](data=value)

    def number(self, value: int) -> Any:
        return self.types["std_msgs/msg/Int32"](data=value)


Recorded = list[tuple[str, int, Any]]
"""Topic, time at which it was received in nanoseconds, and message."""


def video_packets(
    pixels: np.ndarray, codec: str = "h264", group: int = 3, *, bframes: int = 0, opened: bool = False
) -> list[bytes]:
    """Frames as packets of video in the order of decoding, a key frame every ``group``; by FFmpeg."""
    height, width = pixels.shape[1:3]
    encoder = {"h264": "libx264", "h265": "libx265"}[codec]
    params = f"aud=1:bframes={bframes}:b-adapt=0:open-gop={int(opened)}"
    params += "" if codec == "h264" else ":repeat-headers=1:log-level=none"
    command = [newest_program("ffmpeg"), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-i", "-", "-c:v", encoder, "-crf", "8", "-g", str(group)]
    command += [
        "-pix_fmt",
        "yuv420p",
        f"-{encoder[3:]}-params",
        params,
        "-f",
        {"h265": "hevc"}.get(codec, codec),
        "-",
    ]
    data = subprocess.run(command, input=pixels.tobytes(), check=True, capture_output=True).stdout
    mark = {"h264": b"\0\0\0\1\x09", "h265": b"\0\0\0\1\x46"}[codec]  # each begins with a delimiter
    return [mark + part for part in data.split(mark)[1:]]


def bag_messages(one: Sample, *, rate: int = 10, begin: int = 1_700_000_000_000_000_000) -> Recorded:
    """An episode as topics at their own rates: cameras at ``rate``, joints five times as often, a text once.

    Everything is received 4 ms after its header's time.
    """
    make, found = _Messages(), []
    step, late = 10**9 // rate, 4_000_000
    names = [f"joint_{i}" for i in range(14)]
    for i in range(len(one.top)):
        at = begin + i * step
        depth = bytes(12) + png(one.depth[i])
        for topic, message in (
            ("/top/image_raw", make.image(at, one.angle[i][..., ::-1], "bgr8", padding=5)),
            (
                "/wrist/image_raw/compressed",
                make.compressed(at, jpeg(one.angle[i]), "rgb8; jpeg compressed bgr8"),
            ),
            ("/depth/image_raw", make.image(at, one.depth[i], "16UC1")),
            ("/depth/image_raw/compressedDepth", make.compressed(at, depth, "16UC1; compressedDepth png")),
            ("/command", make.array(one.action[i].astype(np.float64))),
        ):
            found.append((topic, at + late, message))
    for i in range(5 * (len(one.top) - 1) + 1):  # positions between those of the frames are on a line
        share = i / 5 - i // 5
        before, after = one.state[i // 5], one.state[min(i // 5 + 1, len(one.state) - 1)]
        position = (before + (after - before) * share).astype(np.float64)
        order = names if i % 2 else names[::-1]  # the names say which is which
        at = begin + i * step // 5
        found.append(
            ("/joint_states", at + late, make.joints(at, order, position if i % 2 else position[::-1]))
        )
    found.append(("/task", begin + late, make.text("lift the cube")))
    return sorted(found, key=lambda each: each[1])


def write_mcap(path: Path, recorded: Recorded, **options: Any) -> Path:
    """An MCAP file, by Foxglove's library."""
    from mcap.writer import Writer

    make = _Messages()
    make.video(0, b"")  # makes the type known
    with path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start("ros2", "ffenc tests")
        channels: dict[str, int] = {}
        for sequence, (topic, received, message) in enumerate(recorded):
            kind = message.__msgtype__
            if topic not in channels:
                text, _ = make.store.generate_msgdef(kind, ros_version=2)
                schema = writer.register_schema(kind, "ros2msg", text.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            data = bytes(make.store.serialize_cdr(message, kind))
            writer.add_message(channels[topic], received, data, received, sequence)
        writer.finish()
    return path


def write_bag(path: Path, recorded: Recorded) -> Path:
    """A ROS 2 bag: a folder with metadata.yaml and a ``.db3``, by rosbags."""
    from rosbags.rosbag2 import Writer

    make = _Messages()
    with Writer(path, version=8) as writer:
        known: dict[str, Any] = {}
        for topic, received, message in recorded:
            kind = message.__msgtype__
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=make.store)
            writer.write(known[topic], received, make.store.serialize_cdr(message, kind))
    return path


def write_robomimic(path: Path, recorded: list[Sample]) -> Path:
    """The layout of robomimic: all episodes in one file, compressed raw images."""
    import h5py

    with h5py.File(path, "w") as root:
        data = root.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        data.attrs["total"] = sum(len(one.state) for one in recorded)
        for number, one in enumerate(recorded):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = len(one.state)
            for group in ("obs", "next_obs"):
                obs = demo.create_group(group)
                chunks = (2, *one.top.shape[1:])
                obs.create_dataset("agentview_image", data=one.top, compression="gzip", chunks=chunks)
                depth = one.depth[..., None].astype(np.float32) / 1000
                obs.create_dataset("agentview_depth", data=depth, compression="gzip")
                obs.create_dataset("robot0_eef_pos", data=one.state[:, :3].astype(np.float64))
                obs.create_dataset("robot0_eef_quat", data=one.state[:, 3:7].astype(np.float64))
                obs.create_dataset("robot0_gripper_qpos", data=one.state[:, 7:9].astype(np.float64))
                obs.create_dataset("object", data=one.state[:, 9:].astype(np.float64))
            demo.create_dataset("actions", data=one.action[:, :7].astype(np.float64))
            demo.create_dataset("rewards", data=np.arange(len(one.state)) / 10)
            demo.create_dataset("dones", data=np.eye(1, len(one.state), len(one.state) - 1, np.int64)[0])
            demo.create_dataset("states", data=one.state.astype(np.float64))
    return path


def small() -> list[Sample]:
    """What the files in ``fixtures/recorded`` were made of: three and two frames, all of 160x120."""
    return [Sample(one.top[:, ::2, ::2], one.angle, one.depth, one.state, one.action) for one in samples(3)]


def _packets() -> list[bytes]:
    return video_packets(small()[0].angle)


def _foxglove() -> Any:
    from tests.support import foxglove  # which imports this

    return foxglove


# The files in fixtures/recorded: name -> what writes it.
FILES: dict[str, Any] = {
    "aloha": lambda path: write_aloha(path, small()),
    "robomimic.hdf5": lambda path: write_robomimic(path, small()),
    "replay_v2.zarr.zip": lambda path: write_replay_buffer(path, small(), 2, packed=True),
    "replay_v3.zarr.zip": lambda path: write_replay_buffer(path, small(), 3, packed=True),
    "umi.zarr.zip": lambda path: write_umi(path, small()),
    "topics.mcap": lambda path: write_mcap(path, bag_messages(small()[0])),
    "protobuf.mcap": lambda path: _foxglove().write_protobuf(path, small()[0], _packets()),
    "json.mcap": lambda path: _foxglove().write_json(path, small()[0], _packets()),
    "bag": lambda path: write_bag(path, bag_messages(small()[0])),
}


def main(folder: str) -> None:
    """Write all files into a folder that is not there yet."""
    root = Path(folder)
    root.mkdir(parents=True)
    for name, write in FILES.items():
        write(root / name)


if __name__ == "__main__":
    main(sys.argv[1])
