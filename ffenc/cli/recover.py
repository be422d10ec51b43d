"""``ffenc recover``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import SourceName, json_option, program_options
from ffenc.cli.output import print_json
from ffenc.cli.verdict import steps
from ffenc.words import count

if TYPE_CHECKING:
    from ffenc.recording.recover import Recovered


@click.command("recover")
@click.argument("root", type=SourceName(), metavar="ROOT")
@click.option("--discard", is_flag=True, help="Delete interrupted episodes instead of recovering them.")
@click.option(
    "--partial",
    is_flag=True,
    help="Also recover episodes in which one camera ends seconds before the others, whose rest is lost.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Also complete episodes that were saved by another user or on another machine; lists their files.",
)
@json_option
@program_options
def command(
    root: str,
    discard: bool,
    partial: bool,
    trust: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
) -> None:
    """Recover episodes of the dataset ROOT whose recording was interrupted by a crash or a power cut.

    Each becomes the next episode of the dataset, up to the last row for which all cameras have a frame. It is
    read back and compared like any other episode. Existing episodes are not changed. The exit status is 1 if
    an episode could not be recovered.

    An episode that was interrupted while it was saved is completed by moving its files into the dataset. If
    another user or another machine saved it, --trust is required. No file outside ROOT is read or written.

    \b
    Examples:
      ffenc recover my_dataset
      ffenc recover my_dataset --discard
    """
    from ffenc.recording.recover import recover  # noqa: PLC0415 - keeps --help quick

    if trust:
        _say_moves(Path(root))
    with steps() as on_step:
        found = recover(
            root,
            discard=discard,
            partial=partial,
            trust=trust,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
            on_step=on_step,
        )
    if as_json:
        print_json(
            {
                "completed": found.completed,
                "episodes": [_fields(one) for one in found.episodes],
                "discarded": [str(path) for path in found.discarded],
            }
        )
    else:
        if found.completed:
            output.summary(f"{root}: {count(found.completed, 'saved episode')} completed")
        for one in found.episodes:
            (output.summary if one.error is None else output.error)(_line(one))
        for path in found.discarded:
            output.summary(f"{path}: deleted")
        if not (found.completed or found.episodes or found.discarded):
            output.summary(f"{root}: nothing to recover")
    sys.exit(1 if any(one.error is not None for one in found.episodes) else 0)


def _say_moves(root: Path) -> None:
    """Print the moves of files that an interrupted commit of an episode still has to make."""
    from ffenc.dataset.commit import commit_moves, pending_commits  # noqa: PLC0415

    for folder in pending_commits(root):
        for move in commit_moves(folder, root):
            output.note(f"{folder / move.source} -> {root / move.target}")


def _line(one: Recovered) -> str:
    if one.error is not None:
        return f"{one.folder}: cannot be recovered, and is kept (--discard deletes it): {one.error}"
    if one.index is None:
        frames = ", ".join(f"{name} {whole}" for name, whole in one.frames.items())
        rows = count(one.recorded, "row")
        return f"{one.folder}: nothing to recover from {rows} (complete frames: {frames}); deleted"
    lost = f"{one.lost} lost of {one.recorded}" if one.lost else "none lost"
    return f"episode {one.index}: {count(one.rows, 'row')} recovered, {lost}"


def _fields(one: Recovered) -> dict[str, Any]:
    return {
        "folder": str(one.folder),
        "episode": one.index,
        "rows": one.rows,
        "recorded": one.recorded,
        "lost": one.lost,
        "frames": one.frames,
        "error": str(one.error) if one.error is not None else None,
    }
