"""Which settings are tried, and the search for a crf: plain values in, plain values out."""

from __future__ import annotations

import math

import pytest

from ffenc import ConfigError, DepthEncoderConfig, VideoEncoderConfig, load_preset
from ffenc.codecs.table import CODECS
from ffenc.tune.candidates import (
    Lists,
    candidates,
    label,
    middle_crf,
    read_list,
    read_numbers,
    settings_of,
    tried_codecs,
)
from ffenc.tune.choice import Point, front, recommend, shown
from ffenc.tune.search import CrfSearch, Target, read_target

SOFTWARE = [CODECS["libsvtav1"], CODECS["h264"]]


def test_lists_of_numbers_are_read() -> None:
    assert read_numbers("18:36:4", "--crf") == [18, 22, 26, 30, 34]
    assert read_numbers("1, 2,10:12,2", "--g", whole=True) == [1, 2, 10, 11, 12]
    assert read_numbers("20:21:0.5", "--crf") == [20, 20.5, 21]
    assert read_list("h264,libsvtav1,h264", "--vcodec") == ["h264", "libsvtav1"]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5:1", "1:5:0", "-1", "nan", "inf", "0:9999"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--crf"):
        read_numbers(text, "--crf")


def test_a_whole_number_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="whole numbers"):
        read_numbers("1.5", "--g", whole=True)


def test_the_grid_varies_one_setting_at_a_time_from_the_middle() -> None:
    made = candidates(SOFTWARE, Lists(), VideoEncoderConfig(), search=False)
    words = [label(config) for config in made]
    assert words[:2] == ["libsvtav1 preset 10 crf 30 g 2", "h264 preset veryfast crf 23 g 2"]
    assert len(words) == len(set(words)) == 16
    for expected in (
        "libsvtav1 preset 8 crf 30 g 2",
        "libsvtav1 preset 10 crf 30 g 30",
        "h264 preset veryfast crf 28 g 2",
        "h264 preset veryfast crf 23 g 2 fast_decode 1",
        "h264 preset veryfast crf 23 g 2 yuv444p",
    ):
        assert expected in words
    searched = candidates(SOFTWARE, Lists(), VideoEncoderConfig(), search=True)
    assert {config.crf for config in searched} == {30, 23}


def test_every_usual_value_is_accepted_by_its_codec() -> None:
    for row in tried_codecs(Lists()):
        for config in candidates([row], Lists(), VideoEncoderConfig(), search=False):
            assert config.get_codec_options()
        if row.crf_range is not None:
            assert row.crf_range[0] <= min(row.usual_crf) <= max(row.usual_crf) <= row.crf_range[1]
    # What needs a bit rate, or takes minutes, is not tried unasked.
    assert not {"libaom-av1", "ffv1", "h264_v4l2m2m"} & {row.name for row in tried_codecs(Lists())}


def test_the_users_lists_are_combined_and_the_rest_is_the_bases() -> None:
    base = VideoEncoderConfig(vcodec="h264", preset="slow", g=5, extra_options={"tune": "film"})
    lists = Lists(vcodec=["h264", "libsvtav1"], crf=[20, 60], g=[1, 10])
    made = candidates(tried_codecs(lists), lists, base, search=False)
    assert [label(config) for config in made] == [
        "h264 preset slow crf 20 g 1 tune film",
        "h264 preset slow crf 20 g 10 tune film",
        "libsvtav1 preset 10 crf 20 g 1",
        "libsvtav1 preset 10 crf 20 g 10",
        "libsvtav1 preset 10 crf 60 g 1",
        "libsvtav1 preset 10 crf 60 g 10",
    ]


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        (Lists(vcodec=["libsvtav1"], preset=["veryfast"]), "encoder preset veryfast"),
        (Lists(vcodec=["h264"], crf=[60]), "crf=60.*h264 0 to 51"),
        (Lists(vcodec=["ffv1"], fast_decode=[1]), "fast_decode=True: ffv1"),
        (Lists(vcodec=["h265"]), "vcodec: 'h265' is not known.*hevc"),
        (Lists(vcodec=["auto"]), "vcodec='auto'"),
    ],
)
def test_a_value_that_no_codec_takes_is_refused(lists: Lists, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        candidates(tried_codecs(lists), lists, VideoEncoderConfig(), search=False)


def test_settings_are_those_that_a_preset_may_say() -> None:
    assert "crf" not in settings_of(DepthEncoderConfig())
    assert settings_of(VideoEncoderConfig(crf=22, fast_decode=1)) == {
        **{"vcodec": "libsvtav1", "pix_fmt": "yuv420p", "g": 2, "crf": 22, "preset": 12, "fast_decode": 1},
    }
    for config in (DepthEncoderConfig(), VideoEncoderConfig(vcodec="ffv1"), VideoEncoderConfig()):
        again = type(config)(**settings_of(config))
        assert again.get_codec_options() == config.get_codec_options()


# ---- the search ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["vmaf=95", "ssim=0.98", "psnr=40", "size=4kB", "size=500B", "size=5%"])
def test_targets_are_read(target: str) -> None:
    assert str(read_target(target)).startswith(target.split("=", maxsplit=1)[0])


@pytest.mark.parametrize(
    "text", ["vmaf", "vmaf=101", "vmaf=", "size=0%", "size=5", "size=5x", "ssim=2", "bytes=4", "vmaf=95%"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="target="):
        read_target(text)


def quality(crf: float) -> float:
    return 99 - (crf / 10) ** 2  # as VMAF falls


@pytest.mark.parametrize("start", [0, 10, 23, 40, 51])
@pytest.mark.parametrize("wanted", [80, 93, 97.5])
def test_the_search_ends_at_the_largest_crf_that_meets_the_target(start: float, wanted: float) -> None:
    search = CrfSearch(Target("vmaf", wanted), wanted, 0, 51, start)
    while (crf := search.next()) is not None:
        search.add(crf, quality(crf))
    best = max(crf for crf, value in search.found.items() if value >= wanted)
    assert len(search.found) <= 7
    assert quality(best + 1) < wanted or quality(best) - wanted <= 0.3


def test_a_size_is_searched_from_above() -> None:
    search = CrfSearch(Target("size", 0.05, share=True), 4000.0, 0, 63, 30)
    while (crf := search.next()) is not None:
        search.add(crf, 40000 * math.exp(-crf / 12))
    best = min(crf for crf, value in search.found.items() if value <= 4000)
    assert 4000 * 0.97 <= 40000 * math.exp(-best / 12) <= 4000 or 40000 * math.exp(-(best - 1) / 12) > 4000


def test_a_target_out_of_reach_ends_at_the_end_of_the_scale() -> None:
    search = CrfSearch(Target("vmaf", 99.9), 99.9, 0, 51, 23)
    while (crf := search.next()) is not None:
        search.add(crf, quality(crf))
    assert 0 in search.found
    easy = CrfSearch(Target("vmaf", 1), 1, 0, 51, 23)
    while (crf := easy.next()) is not None:
        easy.add(crf, quality(crf))
    assert max(easy.found) == 51


def test_identical_pictures_do_not_stop_the_search() -> None:
    search = CrfSearch(Target("psnr", 40), 40, 0, 51, 0, step=0.5)
    while (crf := search.next()) is not None:
        search.add(crf, math.inf if crf == 0 else 60 - crf)
    assert max(crf for crf, value in search.found.items() if value >= 40) == pytest.approx(20, abs=0.5)


# ---- the choice ----------------------------------------------------------------------------------------


def point(size: float, value: float, read: float = 0.01, fps: float = 100) -> Point:
    return Point(size, value, read, fps)


def test_what_another_beats_is_not_shown() -> None:
    points = {
        0: point(100, 95),
        1: point(120, 94),
        2: point(90, 93),
        3: point(130, 96, 0.02),
        4: point(101, 95, 0.005),
    }
    assert front(points) == [2, 0, 4, 3]
    many = {n: point(100 + n, 50 + n) for n in range(30)}
    rows = shown(front(many), [29, 7], many)
    assert len(rows) == 8
    assert {0, 7, 29} <= set(rows)


def test_the_smallest_that_meets_all_is_recommended_and_the_reason_says_why() -> None:
    points = {
        0: point(100, 94.9),  # misses the target
        1: point(200, 96, fps=20),  # too slow to record
        2: point(210, 96, read=0.05),  # slow to read
        3: point(300, 96),
        4: point(400, 97),
    }
    common = {"metric": "vmaf", "source_bytes": 9000.0, "needed_fps": 60.0, "cameras": 2}
    chosen = recommend(points, Target("vmaf", 95), **common)
    assert (chosen.number, chosen.meets) == (3, True)
    assert "VMAF 95 (4 of 5)" in chosen.reason
    assert "2 cameras live (60 frames/s)" in chosen.reason
    slow = recommend({1: points[1]}, Target("vmaf", 95), **common)
    assert "none encodes 60 frames/s" in slow.reason
    missed = recommend(points, Target("vmaf", 99), **common)
    assert (missed.number, missed.meets) == (4, False)
    assert missed.reason == "has the highest VMAF of what was tried, which does not reach vmaf=99"
    small = recommend(points, Target("size", 0.04, share=True), **common)  # 360 bytes
    assert small.number == 3
    assert recommend(points, Target("size", 10.0), **common).number == 0


def test_the_preset_of_a_robot_is_the_base() -> None:
    base = load_preset("so101").encoder_for("front")
    assert candidates(SOFTWARE, Lists(), base, search=False)
    assert middle_crf(CODECS["h264"]) == 23
