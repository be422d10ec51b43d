"""The report of ``ffenc tune``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.encoder import DepthEncoderConfig
from ffenc.frames.pictures import DepthPicture
from ffenc.report.page import CHARTS, exact_picture, write_page
from ffenc.temporary import temporary_folder
from ffenc.tune.depth import decoded_depth, stored_depth
from ffenc.tune.measure import decoded_part, encode_part
from ffenc.tune.preset import preset_text
from ffenc.tune.tuning import CameraTuning, Tuning
from ffenc.words import count

_CROP = 192, 144  # width and height of a crop in pixels
_CELL = 16  # step in pixels of the search for the worst region


def write_tune_page(
    path: Path,
    found: Tuning,
    fields: Mapping[str, Any],
    *,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the report of tuning.

    Args:
        path: the file.
        found: the results, with the sample still on disk.
        fields: the results as plain values, from :func:`ffenc.tune.fields.tuning_fields`; every figure of the
            report is one of them.
        on_step: called with a text on the next step.

    Raises:
        FfmpegError: a candidate cannot be encoded again.
    """
    pictures = {}
    for camera in found.cameras:
        if camera.recommendation is not None:
            on_step(f"{camera.sample.footage.name}: pictures of {count(len(camera.shown), 'candidate')}")
            pictures[camera.sample.footage.key] = _pictures(camera, found.metric)
    machine = fields["machine"]
    early = {
        "budget": "The budget was used up before all candidates were tried.",
        "interrupted": "The run was interrupted.",
    }
    write_page(
        path,
        title=f"Encoder settings for {found.source.name}",
        intro=[
            f"{found.source}, chosen for {fields['target']}"
            + (f", with the preset {found.preset}" if found.preset else ""),
            *([early[found.stopped]] if found.stopped else []),
        ],
        data={"report": fields, "pictures": pictures, "yaml": preset_text(found)},
        scripts=(CHARTS, "page.js", "slider.js", "tune.js"),
        foot=[
            f"Measured on {machine['processor'] or machine['system']}, {machine['cores']} cores, "
            f"{machine['system']}; quality by FFmpeg {machine['ffmpeg']}, frames read by "
            f"{', '.join(machine['readers'])}.",
            "Quality is measured on luma, against the source's pixels as readers return them. "
            "Speeds depend on this machine and whatever else it was doing.",
        ],
    )


def _pictures(camera: CameraTuning, metric: str) -> dict[str, Any]:
    """Return crops of the source, and of each shown candidate at the same places."""
    assert camera.recommendation is not None
    sample, choice = camera.sample, camera.recommendation.number
    trial = camera.rows[choice].trial
    rng = np.random.default_rng(int(sample.digest[:8], 16))
    worst = int(rng.integers(len(sample))) if camera.depth else trial.quality.summary(metric).frame
    frames = {"worst": worst, "random": int(rng.integers(len(sample)))}
    shown = {number: _decoded(camera, number, sorted(set(frames.values()))) for number in camera.shown}
    draw: Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]] = np.asarray
    if camera.depth:
        draw = _colours(camera)
    places: list[dict[str, Any]] = []
    for name, frame in frames.items():
        source = np.asarray(sample.pictures[frame])
        x, y, width, height = _region(source, shown[choice][frame], rng if name == "random" else None)
        _, episode, number = sample.place(frame)
        titles = {
            "worst": "Depth of a frame" if camera.depth else "Worst region of its worst frame",
            "random": "Depth of another frame" if camera.depth else "A region of a frame, at random",
        }
        places.append(
            {
                "name": titles[name],
                "episode": episode,
                "frame": number,
                "sample": frame,
                **{"x": x, "y": y, "width": width, "height": height},
                "source": exact_picture(draw(source)[y : y + height, x : x + width]),
            }
        )
    return {
        "places": places,
        "candidates": {
            str(number): [
                exact_picture(
                    draw(own[place["sample"]])[
                        place["y"] : place["y"] + place["height"], place["x"] : place["x"] + place["width"]
                    ]
                )
                for place in places
            ]
            for number, own in shown.items()
        },
    }


def _decoded(camera: CameraTuning, number: int, frames: list[int]) -> dict[int, npt.NDArray[Any]]:
    """Return some of the sample's frames as decoded from a candidate, which is encoded again."""
    row, at = camera.rows[number], 0
    found: dict[int, npt.NDArray[Any]] = {}
    with temporary_folder() as folder:
        output = Path(folder) / "part.mp4"
        for stretch, pictures in camera.sample.parts():
            wanted = [frame - at for frame in frames if at <= frame < at + stretch.frames]
            if wanted:
                config = row.config
                shown: Sequence[npt.NDArray[Any]]
                if isinstance(config, DepthEncoderConfig):
                    encode_part(row.encoding.command(output), stored_depth(pictures, config))
                    shown = decoded_depth(output, row.encoding, wanted)
                else:
                    encode_part(row.encoding.command(output), pictures)
                    shown = decoded_part(output, row.encoding, wanted)
                found.update(zip([at + frame for frame in wanted], shown, strict=True))
            at += stretch.frames
    return found


def _region(
    source: npt.NDArray[Any], shown: npt.NDArray[Any], rng: np.random.Generator | None
) -> tuple[int, int, int, int]:
    """Return place and size of a crop: the one with the greatest error, or a random one."""
    height, width = source.shape[:2]
    across, down = min(_CROP[0], width), min(_CROP[1], height)
    if rng is not None:
        x, y = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
        return x, y, across, down
    error = np.abs(source.astype(np.float64) - shown)
    error = (error if error.ndim == 2 else error.mean(axis=2)) ** 2
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = error.cumsum(axis=0).cumsum(axis=1)
    ys = np.unique([*range(0, height - down + 1, _CELL), height - down])
    xs = np.unique([*range(0, width - across + 1, _CELL), width - across])
    inside = (
        sums[np.ix_(ys + down, xs + across)]
        - sums[np.ix_(ys, xs + across)]
        - sums[np.ix_(ys + down, xs)]
        + sums[np.ix_(ys, xs)]
    )
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(xs[column]), int(ys[row]), across, down


def _colours(camera: CameraTuning) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]:
    """Return a function that draws depth in colours, without a scale."""
    near, far = (camera.range.depth_min, camera.range.depth_max) if camera.range else (0.0, 10.0)
    picture = DepthPicture(near, far, camera.sample.footage.height)
    return lambda depth: picture.colours(np.rint(depth).astype(np.uint16))
