"""``ffenc probe``."""

from __future__ import annotations

import click

from ffenc.cli.common import SourceName
from ffenc.cli.output import print_json


@click.command("probe")
@click.argument("file", type=SourceName())
@click.option(
    "--ffprobe",
    metavar="PROGRAM",
    help="The ffprobe to use [default: FFENC_FFPROBE, the Python package's, or PATH's].",
)
def command(file: str, ffprobe: str | None) -> None:
    """Print the stream fields of a video file as JSON, as in a dataset's meta/info.json.

    \b
    Example:
      ffenc probe videos/observation.images.top/chunk-000/file-000.mp4
    """
    from ffenc.dataset.info_block import stream_fields  # noqa: PLC0415 - keeps --help quick
    from ffenc.ffmpeg.probe import probe  # noqa: PLC0415

    print_json(stream_fields(probe(file, ffprobe=ffprobe)))
