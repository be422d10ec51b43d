"""A dataset on one page: every episode's pictures, and what is wrong with links to them."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from ffenc import ConfigError, VideoReader
from ffenc.report.contact import MOST_BYTES, Finding, _width, write_contact_page
from ffenc.tune.footage import open_footage
from tests.conftest import DATASET, FIXTURES, TOP, starts
from tests.support.browser import opened_browser, picture_of

VIDEO = FIXTURES / "aloha_video_v30"
FILE = VIDEO / "videos" / TOP / "chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video dataset with zeros in the middle of the top camera's file, in episode 1."""
    root = tmp_path_factory.mktemp("damaged") / "broken"
    shutil.copytree(VIDEO, root)
    path = root / FILE.relative_to(VIDEO)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    return root


def test_the_page_of_info_has_every_episode_and_camera(ffenc, tmp_path: Path) -> None:
    page = tmp_path / "info.html"
    done = ffenc.done("info", VIDEO, "--report", page)
    assert f"{page}: open it in a browser" in done.out
    text = page.read_text()
    assert page.stat().st_size < 1_000_000
    images = re.findall(r'<img src="([^"]+)" alt="(\w+), episode (\d+), frame (\d+)"', text)
    assert len(images) == 3 * 3 * 3
    assert [int(frame) for _, name, episode, frame in images if (name, episode) == ("top", "1")] == [0, 8, 16]
    # They are the very frames, smaller.
    address = next(one[0] for one in images if one[1:] == ("top", "1", "8"))
    shown = picture_of(address).astype(float)
    with VideoReader(FILE) as reader:
        frame = reader[starts()[1] + 8].astype(float)
    small = frame.reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    assert shown.shape == small.shape == (120, 160, 3)
    assert np.abs(shown - small).mean() < 4
    assert "3 episodes, 72 frames" in text
    assert "crf 30, g 2, preset 12" in text


def test_the_page_of_verify_leads_from_a_fault_to_its_frames(ffenc, damaged: Path, tmp_path: Path) -> None:
    page = tmp_path / "verify.html"
    found = ffenc.run("verify", damaged, "--deep", "--json", "--report", page)
    assert found.status == 1
    [fault] = found.json["faults"]
    text = page.read_text()
    assert text.count("<b class=bad>fault</b>") == 1
    assert 'href="#e1"' in text
    with opened_browser(tmp_path / "profile") as browser:
        browser.open(page)
        browser.check_alone(page)
        browser.run("document.querySelector('a').click()")
        place = browser.run("return document.querySelector(':target').textContent")
        assert place.startswith("episode 1: 17 frames")
        assert "1 wrong" in place
        row = browser.run("return document.querySelectorAll('table')[1].rows[1].textContent")
        assert fault["fix"] in row
        bars = browser.run("return charts[0].chart.data.datasets[0].data")
        assert bars == [24, 17, 31]
        loaded = "return [...document.images].filter(one => !one.complete || !one.naturalWidth).length"
        assert browser.run(loaded) == 0
        browser.open(page, width=390)
        assert browser.run("return document.documentElement.scrollWidth") == 390


def test_what_cannot_be_read_is_said_in_its_place(damaged: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cut"
    shutil.copytree(damaged, broken)
    path = broken / FILE.relative_to(VIDEO)
    path.write_bytes(path.read_bytes()[:40_000])
    page = tmp_path / "cut.html"
    write_contact_page(page, broken, title="cut", intro=[], findings=[Finding("cut", "restore it")])
    text = page.read_text()
    assert "No frames are shown, because the dataset cannot be opened" in text or 'class="bad">' in text
    assert "restore it" in text
    image = tmp_path / "images.html"
    write_contact_page(image, DATASET, title="images", intro=[], episodes="2")
    assert set(re.findall(r'id="e(\d)"', image.read_text())) == {"2"}
    single = tmp_path / "file.html"
    write_contact_page(single, FILE, title="file", intro=[])
    assert single.read_text().count("<img") == 3


def test_pictures_are_as_small_as_they_have_to_be() -> None:
    with ExitStack() as closing:
        one, *_ = open_footage(VIDEO, closing)
    many = [replace(one, episodes=dict.fromkeys(range(500), 300))] * 3
    assert 100 <= _width(many) <= 160
    assert _width([one]) == 160
    too_many = [replace(one, episodes=dict.fromkeys(range(5000), 300))] * 3
    with pytest.raises(ConfigError, match="5,000 episodes of 3 cameras do not fit on a page of 20 MB"):
        _width(too_many)
    assert MOST_BYTES == 20_000_000


def test_options_of_the_page_need_it(ffenc) -> None:
    refused = ffenc.run("info", VIDEO, "--episodes", "1")
    assert "--episodes has no effect" in refused.err
    refused = ffenc.run("verify", VIDEO, "--overwrite")
    assert "--overwrite has no effect" in refused.err
