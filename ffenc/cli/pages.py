"""Options and output of commands that write a page with a dataset's frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ffenc.cli import output
from ffenc.cli.common import PathName
from ffenc.cli.display import progress_bar
from ffenc.cli.values import EPISODES

if TYPE_CHECKING:
    from ffenc.report.contact import Finding

Function = TypeVar("Function", bound=Callable[..., Any])


def page_options(function: Function) -> Function:
    """Add ``--report``, ``--episodes`` and ``--overwrite``."""
    options = [
        click.option(
            "--report",
            type=PathName(),
            metavar="FILE.html",
            help="Write an HTML page with the first, middle and last frame of each episode and camera.",
        ),
        click.option(
            "--episodes",
            type=EPISODES,
            metavar="0,2,5-9",
            help="With --report: show only these episodes, in the order of the dataset.",
        ),
        click.option("--overwrite", is_flag=True, help="With --report: replace FILE if it exists."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def asked_page(report: str | None, *, episodes: str | None, overwrite: bool) -> Path | None:
    """Return the requested page if it may be written; None: no page is requested.

    Raises:
        click.UsageError: an option without effect.
        ConfigError: not a valid name of a page.
        DestinationError: the page exists, or its folder does not.
    """
    if report is None:
        for name, given in (("--episodes", episodes is not None), ("--overwrite", overwrite)):
            if given:
                raise click.UsageError(f"{name} has no effect without --report; pass --report FILE.html too")
        return None
    from ffenc.report.page import checked_page  # noqa: PLC0415 - loads Pillow

    return checked_page(report, overwrite=overwrite)


def write_contact(
    page: Path,
    source: Path,
    *,
    title: str,
    intro: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    findings: Sequence[Finding] = (),
    episodes: str | None,
    follow_links: bool,
    as_json: bool,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> None:
    """Write the page with :func:`ffenc.report.contact.write_contact_page`, and print its path."""
    from ffenc.report.contact import write_contact_page  # noqa: PLC0415

    with progress_bar("reading frames", None) as on_frames:
        write_contact_page(
            page,
            source,
            title=title,
            intro=intro,
            tables=tables,
            findings=findings,
            episodes=episodes,
            follow_links=follow_links,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
            on_frames=on_frames,
        )
    (output.note if as_json else output.summary)(f"{page}: open it in a browser")
