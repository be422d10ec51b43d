"""Pages are drawn in a real browser, with nothing from elsewhere, and show what --json has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ffenc.report.page import write_page
from ffenc.report.tune_page import write_tune_page
from ffenc.tune.candidates import Lists
from ffenc.tune.fields import tuning_fields
from tests.conftest import ANGLE, DATASET, DEPTH, pixels, starts
from tests.support.browser import Browser, embedded, opened_browser, picture_of
from tests.support.runs import tuned

WORDS = ["--cameras", "angle,angle_depth", "--episodes", "1", "--vcodec", "h264", "--crf", "23,35"]
WORDS.append("--depth_encoder.preset=ultrafast")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with opened_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A page of tune, and what --json has beside it."""
    folder = tmp_path_factory.mktemp("page")
    found = tuned(
        folder / "sample",
        cameras=["angle", "angle_depth"],
        episodes="1",
        overrides=[(("depth_encoder", "preset"), "ultrafast")],
        lists=Lists(vcodec=["h264"], crf=[23, 35]),
    )
    page, fields = folder / "tune.html", tuning_fields(found)
    write_tune_page(page, found, fields)
    return page, fields


def test_the_page_of_tune(browser: Browser, made: tuple[Path, dict], images) -> None:
    page, fields = made
    data = embedded(page)
    assert data["report"] == fields
    assert page.stat().st_size < 3_000_000
    browser.open(page)
    browser.check_alone(page)

    # It draws: every chart has more than one colour.
    blank = browser.run(
        "const pixels = one => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.buffer;"
        "return [...document.querySelectorAll('canvas')]"
        ".filter(one => new Set(new Uint32Array(pixels(one))).size < 8).length"
    )
    assert blank == 0
    assert browser.run("return document.querySelectorAll('canvas').length") == 5

    # A candidate may be larger than the source.
    said = "const row = DATA.report.cameras[0].candidates[0]; return about({...row, ratio: arguments[0]})[0]"
    assert browser.run(said, 0.4).endswith(" a frame, 2.5 times larger than the source")
    assert browser.run(said, 4).endswith(" a frame, 4.0 times smaller than the source")

    # Figures of the table are those of --json.
    colour, depth = fields["cameras"]
    rows = browser.run(
        "return [...document.querySelectorAll('#camera-0 tbody tr')].map(row => [row.dataset.number, "
        "...[...row.children].map(cell => cell.textContent)])"
    )
    assert len(rows) == 2
    for number, settings, size, smaller, mean, low, worst, *_ in rows:
        row = colour["candidates"][int(number)]
        assert settings.startswith(row["label"])
        assert size == f"{row['bytes_per_frame']:.0f}"
        assert smaller == f"{row['ratio']:.1f}x"
        quality = row["quality"]["vmaf"]
        assert [mean, low, worst] == [f"{quality[name]:.1f}" for name in ("mean", "p5", "worst")]
    shown = browser.run("return document.querySelector('#camera-1 tbody').textContent")
    for row in depth["candidates"]:
        assert row["label"] in shown
        assert f"{row['depth']['all']['max']:.1f}" in shown

    # Hovering says what a point is, clicking chooses it.
    other = next(n for n in (0, 1) if n != colour["recommendation"]["candidate"])
    browser.run("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    x, y = browser.run(
        "const chart = charts[0].chart, place = charts[0].canvas.getBoundingClientRect();"
        "for (const [i, set] of chart.data.datasets.entries()) for (const [j, one] of set.data.entries())"
        " if (one.number === arguments[0]) { const at = chart.getDatasetMeta(i).data[j];"
        " return [place.left + at.x, place.top + at.y]; }",
        other,
    )
    browser.move(x, y)
    title, lines = browser.wait(
        "const tip = charts[0].chart.tooltip; return tip && tip.opacity && [tip.title, tip.body[0].lines]"
    )
    assert title == [colour["candidates"][other]["label"]]
    assert any(f"VMAF {colour['candidates'][other]['quality']['vmaf']['mean']:.1f}" in line for line in lines)
    browser.click(x, y)
    browser.wait(
        "return document.querySelector('#camera-0 tr.chosen').dataset.number === arguments[0]", f"{other}"
    )
    yaml = browser.run("return document.querySelector('#camera-0 pre').textContent")
    assert f"crf: {colour['candidates'][other]['settings']['crf']}" in yaml
    assert browser.run("return document.getElementById('preset').textContent").startswith("# Chosen by")

    # The slider moves the bar, zooms, and shows the source's very pixels.
    clip = browser.run(
        "const range = document.querySelector('#camera-0 input[type=range]'); range.value = 250;"
        "range.dispatchEvent(new Event('input'));"
        "return document.querySelector('#camera-0 img.over').style.clipPath"
    )
    assert "25%" in clip
    browser.run(
        "[...document.querySelectorAll('#camera-0 button')].find(one => one.textContent === '4x').click()"
    )
    place = data["pictures"][ANGLE]["places"][0]
    width = browser.run("return document.querySelector('#camera-0 img.over').getBoundingClientRect().width")
    assert width == 4 * place["width"]
    source = pixels(images[ANGLE][starts()[1] + place["frame"]])
    across = slice(place["x"], place["x"] + place["width"])
    down = slice(place["y"], place["y"] + place["height"])
    assert np.array_equal(picture_of(place["source"]), source[down, across])
    pair = data["pictures"][ANGLE]["candidates"]
    fine, coarse = (picture_of(pair[name][0]).astype(int) for name in ("0", "1"))
    assert np.abs(fine - source[down, across]).mean() < np.abs(coarse - source[down, across]).mean()
    assert set(data["pictures"]) == {ANGLE, DEPTH}
    assert browser.driver.get_log("browser") == []


def test_a_page_is_for_dark_rooms_phones_and_paper(
    ffenc, browser: Browser, made: tuple[Path, dict], tmp_path: Path
) -> None:
    page, _ = made
    browser.open(page, dark=True)
    assert browser.screenshot()[450:, :20].mean() < 60
    browser.open(page, width=390)
    assert browser.screenshot()[450:, :10].mean() > 240
    wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide == [390, 390]
    browser.open(page, dark=True)
    assert browser.pdf().startswith(b"%PDF")
    # Paper is white: the charts are drawn again for it, and back.
    assert not browser.run("return document.documentElement.classList.contains('print')")
    browser.check_alone(page)
    refused = ffenc.run("tune", DATASET, *WORDS, "--report", page)
    assert "exists; choose another name, or pass --overwrite" in refused.err
    wrong = ffenc.run("tune", DATASET, *WORDS, "--report", tmp_path / "tune.txt")
    assert "ends in .html" in wrong.err


def test_texts_of_a_dataset_cannot_act_in_a_page(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "strange.html"
    text = "</script><script>document.title = 'taken'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
    write_page(page, title=text, intro=[text], data={"text": text}, scripts=("page.js",), foot=[text])
    browser.open(page)
    assert browser.run("return DATA.text") == text
    assert browser.run("return document.title") == text
    browser.check_alone(page)
