"""What a recording session shows: a screen that is drawn anew, plain lines, or lines of JSON."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import sys
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

import click
from typing_extensions import Self

from ffenc.cli.common import human_bytes, human_seconds
from ffenc.recording.session import (
    EpisodeDiscarded,
    EpisodeEncoding,
    EpisodeEnded,
    EpisodeSaved,
    EpisodeStarted,
    Event,
    FrameRepeated,
    RowDropped,
    SessionEnded,
    SessionStarted,
    Status,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_SECONDS = 0.25
_END_SECONDS = 10.0
_SHOWN_EPISODES = 5  # the last that were saved

KEYS = "→ end the episode   ← record it again   Esc stop   Ctrl-C leave"
_RESET_KEYS = "→ go on   ← record the last episode again   Esc stop"


class Screen(ABC):
    """Tells events on a thread of its own: a terminal that does not take them must not hold the loop up.

    Attributes:
        status_seconds: how often a status is worth telling.
    """

    status_seconds = 1.0

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event | str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ffenc-screen", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.put(None)
        self._thread.join(_END_SECONDS)

    def tell(self, event: Event) -> None:
        """Take note of an event, at once."""
        self._events.put(event)

    def say(self, text: str) -> None:
        """Take note of a line for people, at once."""
        self._events.put(text)

    @abstractmethod
    def _run(self) -> None:
        """Show what comes, until None does."""


class _Lines(Screen):
    """Shows event by event."""

    def _run(self) -> None:
        # Who reads the output may go away; the recording goes on.
        with contextlib.suppress(OSError, ValueError):
            while (event := self._events.get()) is not None:
                if isinstance(event, str):
                    click.echo(event, err=True)
                else:
                    self._show(event)

    @abstractmethod
    def _show(self, event: Event) -> None:
        """Show one event."""


class JsonLines(_Lines):
    """One line of JSON an event, on standard output."""

    def _show(self, event: Event) -> None:
        click.echo(json.dumps(event.fields(), ensure_ascii=False))
        sys.stdout.flush()


class PlainLines(_Lines):
    """One line an event, where nobody watches a terminal."""

    status_seconds = 10.0

    def _show(self, event: Event) -> None:
        line = _line(event)
        if line:
            click.echo(line, err=True)


class LiveScreen(Screen):
    """One screen, drawn four times a second at most.

    Args:
        keys: whether keys can be pressed.
    """

    status_seconds = _REFRESH_SECONDS

    def __init__(self, *, keys: bool) -> None:
        super().__init__()
        self._keys = keys
        self._session: SessionStarted | None = None
        self._phase = ""
        self._hint = KEYS
        self._status: Status | None = None
        self._saved: list[EpisodeSaved] = []

    def _run(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where it is shown
        from rich.live import Live  # noqa: PLC0415

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        # The screen's own thread draws it, so that a burst of events costs nothing.
        with (
            contextlib.suppress(OSError, ValueError),
            Live(
                console=console,
                get_renderable=self._drawn,
                refresh_per_second=1 / _REFRESH_SECONDS,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as live,
        ):
            while (event := self._events.get()) is not None:
                if isinstance(event, str):
                    live.console.print(event, soft_wrap=True)
                    continue
                self._note(event)
                if isinstance(event, EpisodeDiscarded):
                    live.console.print(_line(event))  # what was saved is said at the end, and until then here

    def _note(self, event: Event) -> None:
        if isinstance(event, SessionStarted):
            self._session = event
        elif isinstance(event, EpisodeStarted):
            self._status = None
            self._hint = KEYS
            self._phase = f"episode {event.number} of {event.episodes}: waiting for the first frames"
        elif isinstance(event, Status):
            self._status = event
            self._phase = (
                f"episode {event.number} of {event.episodes}: {event.seconds_left:.1f} s left, "
                f"{event.fps:.1f} rows/s, {event.rows} rows"
                + (f", {event.dropped} dropped" if event.dropped else "")
                + (f", {event.late} late" if event.late else "")
            )
        elif isinstance(event, EpisodeEncoding):
            self._phase = _line(event)
        elif isinstance(event, EpisodeSaved):
            self._saved.append(event)
        elif isinstance(event, EpisodeEnded):
            if event.reset_seconds:
                self._hint = _RESET_KEYS
                self._phase = f"{event.rows} rows; {event.reset_seconds:g} s to set the scene anew"
            else:
                self._phase = f"{event.rows} rows; saving"

    def _drawn(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if self._session is None:
            return Text("")
        lines: list[RenderableType] = [Text(_line(one)) for one in self._saved[-_SHOWN_EPISODES:]]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in ("camera", "size", "encoder", "waiting", "dropped", "repeated", "written"):
            right = column in ("waiting", "dropped", "repeated", "written")
            table.add_column(column, justify="right" if right else "left", no_wrap=True)
        for name, camera in self._session.cameras.items():
            now = self._status.cameras.get(name) if self._status is not None else None
            figures = (
                (
                    f"{now.queued}/{now.queue_maxsize}",
                    str(now.dropped),
                    str(now.repeated),
                    human_bytes(now.bytes),
                )
                if now is not None
                else ("", "", "", "")
            )
            table.add_row(name, f"{camera.width}x{camera.height}", camera.encoder or camera.codec, *figures)
        lines += [Text(self._phase), table]
        if self._keys:
            lines.append(Text(self._hint, style="dim"))
        return Group(*lines)


def _line(event: Event) -> str:
    """Say an event in one line."""
    if isinstance(event, SessionStarted):
        cameras = ", ".join(
            f"{name} {one.width}x{one.height} {one.encoder or one.codec}"
            for name, one in event.cameras.items()
        )
        return (
            f"recording {event.episodes} episodes of {event.seconds:g} s at {event.fps:g} rows/s: {cameras}"
        )
    if isinstance(event, EpisodeStarted):
        return f"episode {event.episode} ({event.number} of {event.episodes}) begins"
    if isinstance(event, Status):
        left = f"{event.seconds_left:.1f} s left"
        return f"episode {event.episode}: {event.rows} rows, {event.fps:.1f} rows/s, {left}"
    if isinstance(event, RowDropped):
        return (
            f"episode {event.episode}: frame {event.frame} is dropped, before row {event.row}: "
            f"no room for {', '.join(event.cameras)}"
        )
    if isinstance(event, FrameRepeated):
        return f"episode {event.episode}, row {event.row}: {event.camera} shows the frame before again"
    if isinstance(event, EpisodeEnded):
        wait = f"{event.reset_seconds:g} s to set the scene anew" if event.reset_seconds else "saving"
        return f"episode {event.episode}: {event.rows} rows, {wait}"
    if isinstance(event, EpisodeEncoding):
        return f"episode {event.episode}: encoding, {event.frames} of {event.of} frames"
    if isinstance(event, EpisodeSaved):
        repeated = sum(event.repeated.values())
        said = [
            f"{event.rows} rows",
            f"{event.dropped} dropped",
            f"{repeated} frames repeated",
            *([f"{event.late} late"] if event.late else []),
            human_bytes(sum(event.bytes.values())),
        ]
        return f"episode {event.episode}: {', '.join(said)}, saved in {human_seconds(event.seconds)}"
    if isinstance(event, EpisodeDiscarded):
        return f"episode {event.episode}: {event.rows} rows, discarded"
    if isinstance(event, SessionEnded):
        return ""  # the summary says it
    return json.dumps(event.fields())


def summary_lines(saved: list[EpisodeSaved], ended: SessionEnded) -> list[str]:
    """Say what a session has recorded, and what to do with it."""
    lines = [_line(one) for one in saved]
    total = human_bytes(sum(sum(one.bytes.values()) for one in saved))
    how = ", interrupted" if ended.interrupted else ""
    episodes = "1 episode" if ended.episodes == 1 else f"{ended.episodes} episodes"
    lines.append(f"{ended.root}: {episodes}, {ended.rows} rows, {total}{how}")
    if saved:
        root = shlex.quote(ended.root)
        lines.append(f"look at it: ffenc info {root}; ffenc verify {root}")
    return lines
