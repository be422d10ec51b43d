"""RealSense recordings come back sample for sample; written and read by the SDK itself."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import shutil
import sqlite3
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyrealsense2 as rs
import pytest

from ffenc.config.source import CameraSource
from ffenc.errors import CameraError, FfencWarning
from ffenc.recording.cameras import open_camera, read_number
from ffenc.recording.cameras.newest import Newest
from ffenc.recording.cameras.realsense import DepthScale, RealsenseDevice
from ffenc.recording.cameras.realsense_file import RealsenseFile
from tests.conftest import FIXTURES
from tests.recording.realsense import START, SoftwareCamera, numbered, write_recording

FPS = Fraction(30)
SHAPE = (48, 64)
WAIT = 20.0


def recording(file, *, depth=True, unit="mm", fps=FPS, **size):
    camera = RealsenseFile("head", file, fps=fps, use_depth=depth, unit=unit, **size)
    camera.open()
    return camera


def read_all(camera):
    frames = []
    while (found := camera.read(WAIT)) is not None:
        frames.append(found)
    return frames


@pytest.fixture(scope="module")
def raw() -> list[np.ndarray]:
    """Depth of every value a device can give, holes among them."""
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 65536, (12, *SHAPE)).astype(np.uint16)
    depth[:, :4] = 0
    depth[:, 4, :6] = [0, 1, 5, 999, 65534, 65535]
    return list(depth)


@pytest.fixture(scope="module")
def colours() -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (12, *SHAPE, 3)).astype(np.uint8))


def pairs(colours, raw):
    return [
        frame
        for i, (c, d) in enumerate(zip(colours, raw, strict=True))
        for frame in (("colour", i, c), ("depth", i, d))
    ]


@pytest.mark.parametrize(("units", "unit"), [(0.001, "mm"), (0.0001, "mm"), (0.0001, "m"), (0.002, "mm")])
def test_every_sample_comes_back_in_the_unit_asked_for(tmp_path: Path, raw, colours, units, unit) -> None:
    write_recording(tmp_path / "a.db3", pairs(colours, raw), units=units)
    camera = recording(tmp_path / "a.db3", unit=unit)
    found = read_all(camera)
    camera.close()
    assert [(s.name, s.format, s.depth_unit, s.width, s.height) for s in camera.streams] == [
        ("head", "rgb24", None, 64, 48),
        ("head_depth", "depth", unit, 64, 48),
    ]
    assert len(found) == len(raw)
    for i, frames in enumerate(found):
        np.testing.assert_array_equal(frames["head"].data, colours[i])
        exact = raw[i] / round(1 / units)
        depth = frames["head_depth"].data
        if unit == "m":
            assert depth.dtype == np.float32
            np.testing.assert_allclose(depth, exact, rtol=1e-6)
        else:
            assert depth.dtype == np.uint16
            expected = np.rint(raw[i] * 1000.0 / round(1 / units)).clip(0, 65535)
            expected[(raw[i] > 0) & (expected == 0)] = 1
            np.testing.assert_array_equal(depth, expected)
        assert ((depth == 0) == (raw[i] == 0)).all()
        assert frames["head"].timestamp == pytest.approx(START + i / 30, abs=1e-3)


def test_a_millimetre_is_taken_as_it_is() -> None:
    every = np.arange(65536).astype(np.uint16)
    np.testing.assert_array_equal(DepthScale(0.0010000000474974513, "mm").of(every), every)


def test_the_fixture_holds_the_same_number_in_colour_and_depth_and_can_be_read_again() -> None:
    source = CameraSource(type="realsense", file=str(FIXTURES / "realsense.db3"), use_depth=True)
    camera = open_camera("head", source, width=160, height=120, fps=FPS)
    camera.open()
    assert not camera.live
    assert not camera.paced
    for stop in (3, None):  # from the middle, and from the end
        camera.rewind()
        numbers = []
        while len(numbers) != stop and (frames := camera.read(WAIT)) is not None:
            numbers.append(tuple(read_number(frames[name].data) for name in ("head", "head_depth")))
        assert numbers == [(i, i) for i in range(stop or 40)]
    assert camera.read(WAIT) is None
    camera.close()
    camera.close()


def test_a_slow_reader_misses_nothing(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.db3", numbered(40, SHAPE))
    camera = recording(tmp_path / "a.db3")
    never = threading.Event()
    numbers = []
    while (frames := camera.read(WAIT)) is not None:
        numbers.append([read_number(frame.data) for frame in frames.values()])
        never.wait(0.02)  # slower than the file by far; the SDK's queues would overflow
    camera.close()
    assert numbers == [[i, i] for i in range(40)]


def test_frames_are_paired_by_their_times_and_what_has_no_partner_is_left_out(tmp_path: Path) -> None:
    frames = numbered(40, SHAPE)
    depth, colour = frames[::2], frames[1::2]
    # Depth starts two frames later, comes twenty frames after its colours, and one of each was lost.
    arriving = (
        colour[:20] + [f for pair in zip(depth[2:22], colour[20:], strict=True) for f in pair] + depth[22:]
    )
    arriving = [f for f in arriving if (f[0], f[1]) not in (("colour", 7), ("depth", 11))]
    write_recording(tmp_path / "a.db3", arriving)
    camera = recording(tmp_path / "a.db3")
    numbers = [tuple(read_number(frame.data) for frame in found.values()) for found in read_all(camera)]
    with pytest.warns(FfencWarning, match=r"4 frames of .*a\.db3 left out: the other stream has no frame"):
        camera.close()
    assert numbers == [(i, i) for i in range(2, 40) if i not in (7, 11)]
    camera.close()  # says it once


def test_depth_is_brought_into_the_colours_pixels(tmp_path: Path) -> None:
    near = np.full(SHAPE, 1000, np.uint16)
    colour = np.zeros((*SHAPE, 3), np.uint8)
    write_recording(tmp_path / "a.db3", [("colour", 0, colour), ("depth", 0, near)], apart=0.25)
    camera = recording(tmp_path / "a.db3")
    (found,) = read_all(camera)
    camera.close()
    depth = found["head_depth"].data
    # A quarter of a metre at a metre's distance is a quarter of the width here.
    assert (depth[:, :15] == 0).all()
    assert (depth[:-1, 17:] == 1000).all()


def test_colours_alone(tmp_path: Path, raw, colours) -> None:
    write_recording(tmp_path / "a.db3", pairs(colours, raw))
    camera = recording(tmp_path / "a.db3", depth=False)
    found = read_all(camera)
    camera.close()
    assert [list(frames) for frames in found] == [["head"]] * 12
    np.testing.assert_array_equal(found[-1]["head"].data, colours[-1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fps": Fraction(60)}, "has 30 frames per second, not 60: pass fps=30"),
        ({"width": 320}, "colour frames of 160x120, but the camera's width is 320"),
    ],
)
def test_a_recording_of_another_rate_or_size_is_refused(settings, words) -> None:
    with pytest.raises(CameraError, match=words):
        recording(FIXTURES / "realsense.db3", **settings)


def test_no_recording_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="does not exist"):
        recording(tmp_path / "a.db3")
    (tmp_path / "b.db3").write_bytes(b"no database" * 100)
    with pytest.raises(CameraError, match="cannot be read as a RealSense recording"):
        recording(tmp_path / "b.db3")


def test_a_file_that_is_damaged_further_on_is_told_at_its_end(tmp_path: Path) -> None:
    shutil.copyfile(FIXTURES / "realsense.db3", tmp_path / "a.db3")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db3")) as data, data:
        of_colour = "topic_id IN (SELECT id FROM topics WHERE name LIKE '%Color_0/image/data%')"
        [(tenth,)] = data.execute(f"SELECT id FROM messages WHERE {of_colour} ORDER BY id LIMIT 1 OFFSET 10")
        data.execute("UPDATE messages SET data = zeroblob(50) WHERE id = ?", (tenth,))
    camera = recording(tmp_path / "a.db3")
    with pytest.raises(CameraError, match=r"of 40 color frames in .*damaged"):
        read_all(camera)
    camera.close()


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name, *rest):
        if name == "pyrealsense2":
            raise ImportError("No module named 'pyrealsense2'")
        return real(name, *rest)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", missing)
    assert builtins.__import__("ffenc.recording.cameras")  # needs no such library by itself
    with pytest.raises(CameraError, match=r"pip install 'ffenc\[realsense\]'"):
        recording(FIXTURES / "realsense.db3")


def device(software: SoftwareCamera | None, **settings) -> RealsenseDevice:
    context = rs.context()
    if software is not None:
        software.plug_into(context)
    return RealsenseDevice("head", fps=FPS, context=context, **settings)


def test_no_device_and_an_unknown_serial_number() -> None:
    with pytest.raises(CameraError, match="no RealSense camera is connected"):
        device(None).open()
    with pytest.raises(CameraError, match=r"'99'; connected are: 012345678901 \(Stand-in D435\)"):
        device(SoftwareCamera(SHAPE), serial="99").open()


@pytest.mark.parametrize("serial", [None, "012345678901", "Stand-in D435"])
def test_a_device_gives_colour_and_depth_until_it_gives_no_more(serial) -> None:
    software = SoftwareCamera(SHAPE)
    camera = device(software, serial=serial, width=64, height=48, use_depth=True)
    camera.open()
    assert camera.live
    newest = Newest(camera, timeout=1.0)
    try:
        seen = set()
        for kind, number, pixels in numbered(20, SHAPE):
            (software.give_colour if kind == "colour" else software.give_depth)(number, pixels)
            frames = newest.take(0.05) if kind == "colour" else None
            if frames is not None:
                seen.add(read_number(frames["head"].data))
                assert read_number(frames["head_depth"].data) in range(20)
        assert len(seen) > 2
        with pytest.raises(CameraError, match="gave no frame in 1 s"):
            while True:
                newest.take(WAIT)
    finally:
        newest.close()
        camera.close()
