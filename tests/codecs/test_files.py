"""No option makes an encoder open files, whoever names it."""

from __future__ import annotations

from typing import Any

import pytest

from ffenc import ConfigError, SourceError, VideoEncoderConfig
from ffenc.codecs.files import FILE_OPTIONS, FILE_SUB_KEYS, check_from_dataset
from ffenc.codecs.table import CODECS
from ffenc.config.preset import load_preset


@pytest.mark.parametrize(
    ("params", "key"), [(params, key) for params, keys in FILE_SUB_KEYS.items() for key in sorted(keys)]
)
def test_a_sub_key_that_opens_a_file_is_refused_in_every_spelling(params: str, key: str) -> None:
    for spelt in (
        f"{key}=x",
        f"--{key}=/home/u/x",
        f"bframes=2:{key.replace('-', '_')}=x",
        key.upper(),
        f"no-{key}",
    ):
        with pytest.raises(ConfigError, match=f"extra_options: {params} (no-)?{key} makes the encoder open"):
            VideoEncoderConfig(vcodec="h264", extra_options={params: spelt})
        with pytest.raises(SourceError, match=r"^info\.json: top: '"):
            check_from_dataset({params: spelt}, "info.json: top")


def test_an_option_that_opens_a_file_is_refused() -> None:
    for option in (*FILE_OPTIONS, "stats:v", "passlogfile:v:0"):
        with pytest.raises(ConfigError, match=f"extra_options: {option} makes the encoder open other files"):
            VideoEncoderConfig(extra_options={option: "x"})
    with pytest.raises(ConfigError, match="x264opts cqmfile"):
        VideoEncoderConfig(vcodec="h264", extra_options={"x264opts": "cqmfile=x"})
    with pytest.raises(ConfigError, match="x265-params lambda-file"):
        load_preset(None, [(("camera_encoder", "extra_options"), {"x265-params": "lambda-file=x"})])


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"tune": "film", "profile:v": "high", "bf": 2, "aq-mode": 3},
        {"x265-params": "lossless=1"},
        {"x265-params": "no-sao=1:aq-mode=3:deblock=-1,-1:open-gop=0"},
        {"x264opts": "no-cabac:ref=4", "svtav1-params": "film-grain=8:enable-overlays=1"},
        {"aom-params": "enable-qm=1:deltaq-mode=0", "spatial_aq": 1},
    ],
)
def test_options_that_tune_are_taken_from_a_dataset(extra: dict[str, Any]) -> None:
    assert check_from_dataset(extra, "x") == extra


def test_options_of_a_dataset_that_were_in_force_are_in_its_settings() -> None:
    extra = {"tune": "film", "profile:v": "high", "bf": 2, "b:v": "4M", "crf": 20.5}
    block = {"video.codec": "h264", "video.extra_options": extra}
    used = {"tune": "film", "profile:v": "high", "bf": 2}  # crf is 30
    assert VideoEncoderConfig.from_video_info(block).extra_options == used


@pytest.mark.parametrize(
    "extra",
    [
        {"f": "null"},
        {"attach": "/etc/passwd"},
        {"filter:v": "movie=/etc/passwd"},
        {"vf": "movie=x"},
        {"map": "0"},
        {"i": "x"},
        {"dump_attachment": "x"},
        {"filter_script": "x"},
        {"tune": "/etc/passwd"},
        {"tune": ["film"]},
        {"x265-params": "unknown-key=1"},
        {"x265-params": "film-grain=x.bin"},
        {"x265-params": "bframes=../x"},
        {"x264-params": {"bframes": 1}},
        {"kvazaar-params": "roi=x"},
        ["tune"],
        "tune",
    ],
)
def test_other_options_are_not_taken_from_a_dataset(extra: object) -> None:
    with pytest.raises(SourceError, match=r"^meta/info\.json: "):
        check_from_dataset(extra, "meta/info.json")
    with pytest.raises((SourceError, ConfigError)):
        VideoEncoderConfig.from_video_info({"video.codec": "hevc", "video.extra_options": extra})


def test_every_params_option_of_the_codec_table_has_its_list() -> None:
    assert {row.params for row in CODECS.values() if row.params} == set(FILE_SUB_KEYS)
