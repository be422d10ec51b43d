"""``ffenc inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ffenc.cli import output
from ffenc.cli.common import PathName, SourceName, json_option, program_options
from ffenc.cli.display import human_bytes, report_console, report_table
from ffenc.cli.output import print_json
from ffenc.fields import plain_fields
from ffenc.words import count

if TYPE_CHECKING:
    from ffenc.dataset.sources.contents import Contents

_SHOWN = 60  # number of arrays or topics


@click.command("inspect")
@click.argument("path", type=SourceName(remote=True), metavar="FILE")
@click.option(
    "--write-mapping", type=PathName(), metavar="M.yaml", help="Write the suggested mapping to this file."
)
@click.option(
    "--sheet", type=PathName(), metavar="S.png", help="Draw the first frame of each camera to this file."
)
@click.option(
    "--mapping", type=SourceName(), metavar="FILE", help="With --sheet: draw the cameras of this mapping."
)
@json_option
@program_options
def command(
    path: str,
    write_mapping: str | None,
    sheet: str | None,
    mapping: str | None,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
) -> None:
    """Show what an HDF5 file, zarr store, ROS 2 bag or MCAP file contains, and print a mapping for it.

    A mapping says which arrays or topics are which cameras and features; pass it to `ffenc reencode
    --mapping`. For a folder of files, the first file is inspected.

    \b
    Examples:
      ffenc inspect episode_0.hdf5
      ffenc inspect episode_0.hdf5 --sheet cameras.png
      ffenc inspect demo.hdf5 --write-mapping demo.yaml
      ffenc inspect demo.hdf5 --mapping demo.yaml --sheet cameras.png
    """
    from ffenc.dataset.sources import contents  # noqa: PLC0415 - keeps --help quick

    if mapping is not None and sheet is None:
        raise click.UsageError("--mapping has no effect without --sheet; pass --sheet FILE.png too")
    found = contents.inspect_source(path)
    faults: list[str] = []
    if sheet is not None:
        faults = contents.contact_sheet(
            path, sheet, mapping=mapping, contents=found, ffmpeg=ffmpeg, ffprobe=ffprobe
        )
    if write_mapping is not None:
        contents.write_mapping(found, write_mapping)
    if as_json:
        fields = plain_fields(found) | {"path": str(found.path), "fault": found.fault, "not_shown": faults}
        print_json(fields)
        return
    _show(found)
    for fault in faults:
        output.note(f"not on the contact sheet: {fault}")
    for name in (sheet, write_mapping):
        if name is not None:
            output.summary(f"{name}: written")


def _show(found: Contents) -> None:
    console = report_console()
    layout = f", layout of {found.layout}" if found.layout else ""
    more = f"; the first of {count(found.files, 'file')}" if found.files > 1 else ""
    console.print(f"{found.path}: {found.what}{layout}{more}", soft_wrap=True)
    timed = any(one.rate is not None for one in found.held)
    noted = any(one.notes for one in found.held)
    columns = [
        "name",
        "type",
        *(["notes"] if noted else []),
        "count",
        *(["a second"] if timed else []),
        "bytes",
    ]
    table = report_table(*columns, numbers=("count", "a second", "bytes"))
    for one in found.held[:_SHOWN]:
        rate = "" if one.rate is None else f"{one.rate:.1f}"
        table.add_row(
            *(one.name, one.kind, *([one.notes] if noted else [])),
            *(f"{one.count:,}", *([rate] if timed else []), human_bytes(one.bytes)),
        )
    console.print(table)
    if len(found.held) > _SHOWN:
        console.print(f"... and {len(found.held) - _SHOWN} more; --json has all")
    console.print()
    console.print(found.yaml().rstrip(), soft_wrap=True)
    if found.fault is not None:
        console.print(f"# not yet usable: {found.fault}", soft_wrap=True)
