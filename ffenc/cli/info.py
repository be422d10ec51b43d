"""``ffenc info``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli.common import SourceName, json_option, links_option
from ffenc.cli.display import human_bytes, human_seconds, report_console, report_table
from ffenc.cli.output import print_json
from ffenc.cli.pages import asked_page, page_options, write_contact
from ffenc.fields import plain_fields
from ffenc.words import count

if TYPE_CHECKING:
    from ffenc.dataset.report import CameraReport, DatasetReport

_TASKS = 3
_TASK_LENGTH = 60
_PREFIX = "observation.images."
_NUMBERS = ("bytes", "a frame", "a second")


@click.command("info")
@click.argument("dataset", type=SourceName(remote=True))
@page_options
@links_option
@json_option
def command(
    dataset: str,
    report: str | None,
    episodes: str | None,
    overwrite: bool,
    follow_links: bool,
    as_json: bool,
) -> None:
    """Show what a LeRobot dataset (v3.0, v2.1 or v2.0) contains, without reading its rows.

    \b
    Examples:
      ffenc info my_video_dataset
      ffenc info my_image_dataset --json
      ffenc info hf://datasets/lerobot/pusht
      ffenc info my_video_dataset --report my_dataset.html --episodes 0-99
    """
    from ffenc.dataset.report import report_dataset  # noqa: PLC0415 - keeps --help quick

    page = asked_page(report, episodes=episodes, overwrite=overwrite)
    found = report_dataset(dataset, follow_links=follow_links)
    if as_json:
        print_json(_json_fields(found))
    else:
        _show(found)
    if page is not None:
        from ffenc.dataset.remote import source_path  # noqa: PLC0415

        write_contact(
            page,
            source_path(dataset),
            title=f"The dataset {found.root.name}",
            intro=_lines(found),
            tables=[("Cameras", *_camera_rows(found))],
            episodes=episodes,
            follow_links=follow_links,
            as_json=as_json,
        )


def _json_fields(report: DatasetReport) -> dict[str, Any]:
    from ffenc.config.framerate import fps_number  # noqa: PLC0415

    fields = plain_fields(report)
    fields |= {"root": str(report.root), "fps": fps_number(report.fps)}
    fields["seconds"] = None if report.seconds is None else round(report.seconds, 3)
    fields["cameras"] = {camera.pop("key"): camera for camera in fields["cameras"]}
    for camera in fields["cameras"].values():
        for name in ("bytes_per_frame", "bytes_per_second"):
            camera[name] = None if camera[name] is None else round(camera[name], 1)
    return fields


def _show(report: DatasetReport) -> None:
    console = report_console()
    for line in _lines(report):
        console.print(line, soft_wrap=True)
    if not report.cameras:
        return
    columns, rows = _camera_rows(report)
    table = report_table(*columns, numbers=("size", *_NUMBERS))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _lines(report: DatasetReport) -> list[str]:
    """Return the lines about the whole dataset."""
    robot = report.robot_type or "unknown"
    length = "unknown length" if report.seconds is None else human_seconds(report.seconds)
    return [
        f"{report.root}: LeRobot {report.layout}, robot {robot}, {float(report.fps):g} fps",
        f"{_count(report.episodes, 'episode')}, {_count(report.frames, 'frame')}, {length}, "
        f"{human_bytes(report.bytes)} in {_count(report.files, 'file')}",
        f"{_count(len(report.tasks), 'task')}{_tasks(report.tasks)}",
        *([] if report.cameras else ["no cameras"]),
    ]


def _camera_rows(report: DatasetReport) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table of cameras."""
    video = any(camera.kind == "video" for camera in report.cameras)
    columns = ["camera", "kind", "size", "codec", *(["settings", "encoder"] if video else []), *_NUMBERS]
    rows = [
        [
            camera.key.removeprefix(_PREFIX),
            f"{camera.kind}, depth" if camera.depth else camera.kind,
            f"{camera.width or '?'}x{camera.height or '?'}",
            _codec(camera),
            *([_settings(camera), _encoder(camera)] if video else []),
            ("about " if camera.estimated else "") + human_bytes(camera.bytes),
            "" if camera.bytes_per_frame is None else human_bytes(camera.bytes_per_frame),
            "" if camera.bytes_per_second is None else human_bytes(camera.bytes_per_second),
        ]
        for camera in report.cameras
    ]
    return columns, rows


def _count(number: int | None, what: str) -> str:
    if number is None:
        return f"an unknown number of {what}s"
    return count(number, what)


def _tasks(tasks: list[str]) -> str:
    shown = [" ".join(task.split()) for task in tasks[:_TASKS]]
    shown = [task if len(task) <= _TASK_LENGTH else f"{task[: _TASK_LENGTH - 3]}..." for task in shown]
    more = ["..."] if len(tasks) > _TASKS else []
    return f": {'; '.join([*shown, *more])}" if tasks else ""


def _codec(camera: CameraReport) -> str:
    if camera.kind == "video":
        return f"{camera.codec or 'unknown'} {camera.pix_fmt or ''}".strip()
    return f"{camera.codec}, {camera.bits} bits" if camera.codec else "unknown"


def _encoder(camera: CameraReport) -> str:
    """Return the encoder's name and version number, without the rest of the version."""
    version = re.match(r"v?(\d+(\.\d+)*)", str(camera.encoder.get("encoder_version", "")))
    return f"{camera.encoder.get('encoder', '')} {version[1] if version else ''}".strip()


def _settings(camera: CameraReport) -> str:
    settings = dict(camera.settings)
    extra = settings.pop("extra_options", None)
    parts = [f"{name} {settings[name]}" for name in ("crf", "g", "preset") if settings.get(name) is not None]
    if settings.get("fast_decode"):
        parts.append(f"fast_decode {settings['fast_decode']}")
    if isinstance(extra, dict):
        parts += [f"{name} {value}" for name, value in extra.items()]
    if settings.get("depth_max") is not None:
        parts.append(f"{settings.get('depth_min')}-{settings['depth_max']} m")
    return ", ".join(parts)
