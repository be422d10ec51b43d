"""Write the recommended settings as a robot preset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ffenc.config.encoder import DepthEncoderConfig
from ffenc.config.preset import is_path
from ffenc.tune.candidates import settings_of
from ffenc.tune.fields import depth_settings
from ffenc.tune.tuning import CameraTuning, Tuning


def recommended(camera: CameraTuning) -> dict[str, Any] | None:
    """Return the recommended ``encoder`` settings of a camera; None if nothing was measured."""
    if camera.recommendation is None:
        return None
    config = camera.rows[camera.recommendation.number].config
    return depth_settings(config) if isinstance(config, DepthEncoderConfig) else settings_of(config)


def preset_text(found: Tuning, folder: Path | None = None) -> str:
    """Return the text of a preset that extends the given one with each camera's recommended settings.

    Args:
        found: the results.
        folder: folder of the file that the text is for, from which the path of the given preset is stated;
            None: the path stays as it is.
    """
    cameras: dict[str, Any] = {}
    for camera in found.cameras:
        encoder = recommended(camera)
        if encoder is not None:
            footage = camera.sample.footage
            own: dict[str, Any] = {"width": footage.width, "height": footage.height}
            if footage.depth:
                own["depth"] = True
            cameras[footage.name] = own | {"encoder": encoder}
    values: dict[str, Any] = {}
    if found.preset is not None:
        values["extends"] = found.preset if folder is None else _from(folder, found.preset)
    fps = found.cameras[0].sample.footage.fps
    values["fps"] = int(fps) if fps.denominator == 1 else str(fps)
    values["cameras"] = cameras
    head = [
        f"# Chosen by ffenc tune for {found.target} on {found.source}.",
        *(
            f"# {camera.sample.footage.name}: this {camera.recommendation.reason}."
            for camera in found.cameras
            if camera.recommendation is not None
        ),
    ]
    plain = [" ".join(line.split()) for line in head]
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join(plain) + "\n" + body


def _from(folder: Path, preset: str) -> str:
    """Return the name of a preset, or its path as seen from a folder."""
    if not is_path(preset):
        return preset
    path = os.path.relpath(Path(preset).resolve(), folder.resolve())
    return path if is_path(path) else f"./{path}"
