"""Show results: tables, progress bars, and numbers in readable form."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from ffenc.cli import output
from ffenc.cli.output import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table


_WIDTH = 110  # if the output is not a terminal
_NARROWEST = 10  # characters of a table's column whose cells are wrapped


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether a stream is a terminal. A stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar with rate and remaining time on a terminal; elsewhere show nothing.

    Yields a function that takes the number of frames done; if ``total`` is None also the total number and a
    description of the step; and the unit if frames are not what is counted.
    """
    if output.is_quiet() or not is_terminal(sys.stderr):
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415 - only if a bar is shown
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{f'{task.speed:.0f}' if task.speed else '-'} {task.fields['unit']}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, unit="frames")

        def update(done: int, of: int | None = total, what: str = label, unit: str = "frames") -> None:
            if unit != progress.tasks[0].fields["unit"]:
                progress.reset(task, unit=unit)  # elapsed time and rate belong to the previous unit
            progress.update(task, completed=done, total=of, description=what)

        yield update


def report_console(*, stderr: bool = False) -> Console:
    """Return the console for tables: as wide as the terminal; otherwise plain, COLUMNS or 110 wide."""
    from rich.console import Console  # noqa: PLC0415 - only if it is used

    class Shown(Console):
        def print(self, *objects: Any, **how: Any) -> None:
            super().print(*(_shown(one) for one in objects), **how)
            output.log_table(objects)

        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - rich calls this while the error is handled, and would exit with 1

    # No markup: paths, names and FFmpeg's messages contain brackets and colons.
    asked = os.environ.get("COLUMNS", "")
    columns = int(asked) if re.fullmatch(r"[1-9]\d{0,4}", asked) else _WIDTH
    width = None if is_terminal(sys.stderr if stderr else sys.stdout) else columns
    return Shown(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def report_table(*columns: str, numbers: Collection[str] = ()) -> Table:
    """Return an empty table; the columns in ``numbers`` are right-aligned and never truncated.

    If the output is too narrow for it, each row is a block of lines, one for each cell.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Shown(Table):
        def __init__(self) -> None:
            super().__init__(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
            self.listed: list[list[str]] = []

        def add_row(self, *cells: Any, **how: Any) -> None:
            self.listed.append([printable(cell) for cell in cells])
            super().add_row(*(_shown(cell) for cell in cells), **how)

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
            heads = [str(column.header) for column in self.columns]
            needed = -2
            for column, head, *cells in zip(self.columns, heads, *self.listed, strict=True):
                longest = max(map(len, [head, *cells]))
                needed += 2 + (longest if column.no_wrap else min(longest, _NARROWEST))
            if needed <= options.max_width:
                yield from super().__rich_console__(console, options)
                return
            for cells in self.listed:
                for head, cell in zip(heads, cells, strict=True):
                    yield Text(f"{head}: {cell}" if head else cell, overflow="fold")
                yield Text()

    table = Shown()
    for column in columns:
        right = column in numbers
        table.add_column(
            printable(column), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    return table


def _shown(one: Any) -> Any:
    return printable(one) if isinstance(one, str) else one


def human_bytes(count: float) -> str:
    """Format a number of bytes: ``7.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Format a duration in seconds: ``1 h 05 min``, ``3 min 20 s``, ``2.4 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
