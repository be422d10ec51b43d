"""A report on a dataset: the first, middle and last frame of each episode and camera, and all findings."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.dataset.choice import Episodes
from ffenc.errors import ConfigError, FfencError
from ffenc.frames.pictures import DepthPicture
from ffenc.parallel.pool import run_units
from ffenc.parallel.progress import FrameCount
from ffenc.quality.depth import DepthHistory
from ffenc.report.page import CHARTS, Html, small_picture, table_html, write_page
from ffenc.spelling import argument
from ffenc.tune.footage import Footage, open_footage

MOST_BYTES = 20_000_000  # of a report
_FOR_PICTURES = 15_000_000
_WIDEST, _NARROWEST = 160, 64  # width of images in pixels
_BYTES_A_PIXEL = 0.35  # of a small JPEG in base64
_SHOWN_FRAMES = 40  # faulty frames with an image of their own
_LISTED = 500  # number of listed findings
_DAMAGE_SHOWN = 20  # number of episodes without images whose damage is shown


class Finding(Struct, frozen=True):
    """A fault or a note.

    Attributes:
        text: what was found, and where.
        advice: what to do about it.
        fault: the finding makes the dataset unsound.
        camera, episode, frame: the place; None: not of a single one.
    """

    text: str
    advice: str
    fault: bool = True
    camera: str | None = None
    episode: int | None = None
    frame: int | None = None


class _Strip(Struct, frozen=True):
    """The small images of one episode and camera: RGB, or millimetres; or why they are missing."""

    frames: Sequence[int]
    pictures: Sequence[npt.NDArray[Any]]
    why: str = ""


def write_contact_page(
    path: Path,
    source: Path,
    *,
    title: str,
    intro: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = (),
    findings: Sequence[Finding] = (),
    episodes: Episodes | None = None,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_frames: Callable[[int, int], None] | None = None,
) -> None:
    """Write a report with frames of a dataset or video file. Unreadable frames are replaced by the reason.

    Args:
        path: the report.
        source: the dataset or file.
        title, intro: see :func:`~ffenc.report.page.write_page`.
        tables: heading, columns and rows of each table.
        findings: faults and notes; those of an episode link to its images.
        episodes: episodes to show; None: all.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_frames: called with the number of frames read so far, and of all frames.

    Raises:
        ConfigError: too many frames for one report, or an unknown episode.
    """
    strips: dict[tuple[int, int], _Strip] = {}
    footage: list[Footage] = []
    said = list(intro)
    damage: dict[int, str] = {}
    extra: dict[int, str] = {}
    with ExitStack() as closing:
        try:
            footage = open_footage(
                source,
                closing,
                episodes=episodes if source.is_dir() else None,
                follow_links=follow_links,
                scattered=True,
                ffmpeg=ffmpeg,
                ffprobe=ffprobe,
                on_damage=damage.__setitem__,
            )
        except ConfigError:
            raise
        except FfencError as error:
            said.append(f"No frames are shown, because the dataset cannot be opened: {error.cause}")
        for number, what in list(damage.items())[:_DAMAGE_SHOWN]:
            said.append(f"No frames of episode {number} are shown: {what}")
        if len(damage) > _DAMAGE_SHOWN:
            said.append(f"{len(damage) - _DAMAGE_SHOWN} more damaged episodes are not shown either.")
        if footage:
            width = _width(footage)
            strips = _read(footage, width, on_frames)
            extra = _frames_of(findings, footage, width)
    lengths = footage[0].episodes if footage else {}
    faulty = sorted({one.episode for one in findings if one.episode is not None and one.fault})
    body = "".join(f"<h2>{html.escape(name)}</h2>\n{table_html(head, rows)}" for name, head, rows in tables)
    body += _findings_html(findings, lengths, extra)
    if lengths:
        body += '<h2>Length of the episodes</h2>\n<div class="card" id="lengths"></div>\n'
        body += "<h2>First, middle and last frame</h2>\n" + _strips_html(footage, strips, findings)
    if len(body) > MOST_BYTES - 1_000_000:
        raise _too_much(footage)
    write_page(
        path,
        title=title,
        intro=said,
        data={
            "lengths": [[number, frames] for number, frames in lengths.items()],
            "fps": float(footage[0].fps) if footage else 0.0,
            "faulty": faulty,
        },
        scripts=(CHARTS, "page.js", "contact.js"),
        body=body,
    )


def _width(footage: Sequence[Footage]) -> int:
    """Return the greatest width at which all images fit in the report."""
    pictures = 3 * sum(len(one.episodes) for one in footage)
    tall = max(one.height / one.width for one in footage)
    width = int(math.sqrt(_FOR_PICTURES / (pictures * _BYTES_A_PIXEL * tall)))
    if width < _NARROWEST:
        raise _too_much(footage)
    return min(width, _WIDEST)


def _too_much(footage: Sequence[Footage]) -> ConfigError:
    episodes = max((len(one.episodes) for one in footage), default=0)
    return ConfigError(
        f"the frames of {episodes:,} episodes of {len(footage)} cameras do not fit on a page of "
        f"{MOST_BYTES // 1_000_000} MB; select some with {argument('episodes')}, such as "
        f"{argument('episodes', '0-499')}"
    )


def _three(length: int) -> list[int]:
    return sorted({0, (length - 1) // 2, length - 1})


def _read(
    footage: Sequence[Footage], width: int, on_frames: Callable[[int, int], None] | None
) -> dict[tuple[int, int], _Strip]:
    """Read the images of all cameras, several cameras at once; return camera number and episode -> strip."""
    total = sum(len(_three(length)) for one in footage for length in one.episodes.values())
    count = FrameCount(total, on_frames)
    stopped: list[bool] = []

    def work(number: int) -> dict[int, _Strip]:
        one, found = footage[number], {}
        for episode, length in one.episodes.items():
            if stopped:
                break
            frames = _three(length)
            try:
                pictures = [_small(picture, width) for picture in one.pick(episode, frames)]
                found[episode] = _Strip(frames, pictures)
            except FfencError as error:
                found[episode] = _Strip(frames, (), error.cause)
            count.add(len(frames))
        return found

    strips: dict[tuple[int, int], _Strip] = {}
    threads = max(1, min(len(footage), 4))
    for number, found in run_units(
        range(len(footage)), work, threads=threads, stop=lambda: stopped.append(True)
    ):
        strips |= {(number, episode): strip for episode, strip in found.items()}
    return strips


def _small(picture: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Return fewer pixels, to save memory: of colours twice the final width, which is averaged later."""
    step = max(1, picture.shape[1] // (width if picture.ndim == 2 else 2 * width))
    return np.ascontiguousarray(picture[::step, ::step])


def _drawn(footage: Footage, strips: Mapping[int, _Strip], width: int) -> dict[int, list[str]]:
    """Return each episode's images as data URLs; all depth of a camera is drawn in one range."""
    if not footage.depth:
        return {n: [small_picture(one, width) for one in strip.pictures] for n, strip in strips.items()}
    history = DepthHistory()
    for strip in strips.values():
        for picture in strip.pictures:
            history.add(picture)
    known = history.suggested()
    near, far = (known.depth_min, known.depth_max) if known is not None else (0.0, 10.0)
    draw = DepthPicture(near, far, 64)
    return {
        number: [small_picture(draw.colours(picture), width) for picture in strip.pictures]
        for number, strip in strips.items()
    }


def _strips_html(
    footage: Sequence[Footage], strips: Mapping[tuple[int, int], _Strip], findings: Sequence[Finding]
) -> str:
    width = _width(footage)
    drawn = [
        _drawn(one, {episode: strip for (at, episode), strip in strips.items() if at == number}, width)
        for number, one in enumerate(footage)
    ]
    wrong: dict[tuple[int, str | None], int] = {}
    for finding in findings:
        if finding.episode is not None and finding.fault:
            place = finding.episode, finding.camera
            wrong[place] = wrong.get(place, 0) + 1
    parts = []
    for episode, length in footage[0].episodes.items():
        figures = []
        for number, one in enumerate(footage):
            strip = strips.get((number, episode))
            if strip is None:
                continue
            faults = wrong.get((episode, one.key), 0)
            name = html.escape(one.name)
            images = "".join(
                f'<img src="{address}" alt="{name}, episode {episode}, frame {frame}">'
                for frame, address in zip(strip.frames, drawn[number][episode], strict=False)
            )
            if strip.why:
                images = f'<p class="bad">{html.escape(strip.why)}</p>'
            mark = f' <span class="bad">{faults} wrong</span>' if faults else ""
            caption = f"{name}, frames {', '.join(map(str, strip.frames))}{mark}"
            figures.append(
                f'<figure id="e{episode}-{number}"><div class="strip">{images}</div>'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        here = sum(times for (at, _), times in wrong.items() if at == episode)
        mark = f' <span class="bad">{here} wrong</span>' if here else ""
        seconds = length / float(footage[0].fps)
        parts.append(
            f'<section id="e{episode}"><h3>episode {episode}: {length} frames, {seconds:.1f} s{mark}</h3>\n'
            f'<div class="sheet">{"".join(figures)}</div></section>\n'
        )
    return "".join(parts)


def _frames_of(findings: Sequence[Finding], footage: Sequence[Footage], width: int) -> dict[int, str]:
    """Return images of faulty frames that can be read: number of the finding -> image."""
    by_key = {one.key: one for one in footage}
    found: dict[int, str] = {}
    for number, one in enumerate(findings):
        known = by_key.get(one.camera or "")
        if known is None or one.episode not in known.episodes or one.frame is None or known.depth:
            continue
        if not 0 <= one.frame < known.episodes[one.episode] or len(found) == _SHOWN_FRAMES:
            continue
        try:
            found[number] = small_picture(next(iter(known.pick(one.episode, [one.frame]))), width)
        except (FfencError, StopIteration):
            continue
    return found


def _findings_html(findings: Sequence[Finding], lengths: Mapping[int, int], extra: Mapping[int, str]) -> str:
    if not findings:
        return ""
    rows = []
    for number, one in enumerate(findings[:_LISTED]):
        text = html.escape(one.text)
        if one.episode in lengths:
            text = f'<a href="#e{one.episode}">{text}</a>'
        if number in extra:
            text += f'<br><img src="{extra[number]}" alt="frame {one.frame}">'
        rows.append([Html("<b class=bad>fault</b>") if one.fault else "note", Html(text), one.advice])
    more = f"<p>... and {len(findings) - _LISTED} more</p>\n" if len(findings) > _LISTED else ""
    return "<h2>What is wrong</h2>\n" + table_html(("", "what", "what to do"), rows) + more
