"""Show a recording session: as a screen that is redrawn, as plain lines, or as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import sys
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

import click

from ffenc.cli import output
from ffenc.cli.display import human_bytes, human_seconds
from ffenc.recording.events import (
    EpisodeDiscarded,
    EpisodeEncoding,
    EpisodeEnded,
    EpisodeSaved,
    EpisodeSaving,
    EpisodeStarted,
    Event,
    FrameRepeated,
    RowDropped,
    SessionEnded,
    SessionStarted,
    Status,
)
from ffenc.words import count

if TYPE_CHECKING:
    from rich.console import RenderableType
    from typing_extensions import Self

_REFRESH_SECONDS = 0.25
_END_SECONDS = 10.0
_SHOWN_EPISODES = 5  # the last saved ones

KEYS = "→ end the episode   ← record it again   Esc stop   Ctrl-C leave"
_RESET_KEYS = "→ go on   ← record the last episode again   Esc stop   Ctrl-C leave"
_NEXT_KEYS = "→ go on   Esc stop   Ctrl-C leave"  # after a discarded episode
_BUSY_KEYS = "Esc stop   Ctrl-C leave"  # while an episode is saved or waits for its first frames
_LATE = "row times missed"
_EXPLAINED = (
    f"{_LATE}: frame times without a row, because a camera or this machine was late; the times in the "
    "table do not show the gap"
)


class Screen(ABC):
    """Shows events on a thread of its own, so that a blocked terminal does not stop the recording loop.

    Attributes:
        status_seconds: interval at which a status is shown.
        wiped: whether the output has disappeared at the end.
    """

    status_seconds = 1.0
    wiped = False

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
        """Queue an event, without waiting."""
        self._events.put(event)

    def say(self, text: str) -> None:
        """Queue a line for people, without waiting."""
        self._events.put(text)

    @abstractmethod
    def _run(self) -> None:
        """Show queued items until None."""


class _Lines(Screen):
    """Shows events one by one."""

    def _run(self) -> None:
        # The reader of the output may close it; the recording continues.
        with contextlib.suppress(OSError, ValueError):
            while (event := self._events.get()) is not None:
                if isinstance(event, str):
                    click.echo(output.printable(event), err=True)
                else:
                    self._show(event)

    @abstractmethod
    def _show(self, event: Event) -> None:
        """Show one event."""


class JsonLines(_Lines):
    """One line of JSON per event, on standard output."""

    def _show(self, event: Event) -> None:
        click.echo(output.json_text(event.fields()))
        sys.stdout.flush()


class PlainLines(_Lines):
    """One line per event, without a terminal: results on standard output, the rest on standard error."""

    status_seconds = 10.0

    def _show(self, event: Event) -> None:
        line = _line(event)
        if isinstance(event, EpisodeSaved):
            output.summary(line)
        elif line:
            output.aside(line)


class LiveScreen(Screen):
    """One screen, redrawn at most four times per second.

    Args:
        keys: whether keys can be pressed.
    """

    status_seconds = _REFRESH_SECONDS
    wiped = True

    def __init__(self, *, keys: bool) -> None:
        super().__init__()
        self._keys = keys
        self._session: SessionStarted | None = None
        self._episode = ""  # its title
        self._phase = ""
        self._until: float | None = None  # end of the reset time, which is counted down
        self._hint = _BUSY_KEYS
        self._status: Status | None = None
        self._saved: list[EpisodeSaved] = []

    def _run(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only if it is shown
        from rich.live import Live  # noqa: PLC0415

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        # The screen's thread draws, so that a burst of events is drawn once.
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
                if isinstance(event, EpisodeDiscarded):  # saved episodes are listed at the end
                    live.console.print(output.printable(_line(event)), soft_wrap=True)

    def _note(self, event: Event) -> None:
        if isinstance(event, SessionStarted):
            self._session = event
        elif isinstance(event, EpisodeStarted):
            self._status = None
            self._episode = _name(event)
            self._show("waiting for the first frames", _BUSY_KEYS)
        elif isinstance(event, Status):
            self._status = event
            self._show(f"{event.seconds_left:.1f} s left, {event.fps:.1f} rows/s, {_rows(event)}", KEYS)
        elif isinstance(event, EpisodeEnded):
            self._show(count(event.rows, "row"), _RESET_KEYS, event.reset_seconds)
        elif isinstance(event, EpisodeDiscarded):
            self._show("discarded", _NEXT_KEYS, event.reset_seconds)
        elif isinstance(event, EpisodeSaving):
            self._show("saving", _BUSY_KEYS)
        elif isinstance(event, EpisodeEncoding):
            self._show(_encoded(event), _BUSY_KEYS)
        elif isinstance(event, EpisodeSaved):
            self._saved.append(event)

    def _show(self, phase: str, hint: str, seconds: float = 0.0) -> None:
        self._phase = f"{self._episode}: {phase}"
        self._hint = hint
        self._until = time.monotonic() + seconds if seconds else None

    def _drawn(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if self._session is None:
            return Text("")
        lines: list[RenderableType] = [
            Text(output.printable(_line(one))) for one in self._saved[-_SHOWN_EPISODES:]
        ]
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
            table.add_row(
                output.printable(name),
                f"{camera.width}x{camera.height}",
                camera.encoder or camera.codec,
                *figures,
            )
        phase = self._phase
        if self._until is not None:
            phase += f"; {max(0.0, self._until - time.monotonic()):.0f} s left to set up the scene"
        lines += [Text(output.printable(phase)), table]
        if self._keys:
            lines.append(Text(self._hint, style="dim"))
        return Group(*lines)


def _name(event: EpisodeStarted) -> str:
    """Return an episode's title: its index in the dataset, and its number in this session."""
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"episode {event.episode} ({event.number} of {event.episodes}){again}"


def _rows(event: Status | EpisodeSaved) -> str:
    """Return the numbers of rows written and missing."""
    said = [count(event.rows, "row")]
    said += [f"{event.dropped} dropped"] if event.dropped else []
    said += [f"{event.late} {_LATE}"] if event.late else []
    return ", ".join(said)


def _encoded(event: EpisodeEncoding) -> str:
    return f"encoding, {event.frames} of {count(event.of, 'frame')}"


def _to_set_up(seconds: float) -> str:
    return f"; {seconds:g} s to set up the scene" if seconds else ""


def _line(event: Event) -> str:
    """Return an event as one line; "" if the next event's line says it."""
    if isinstance(event, SessionStarted):
        cameras = ", ".join(
            f"{name} {one.width}x{one.height} {one.encoder or one.codec}"
            for name, one in event.cameras.items()
        )
        episodes = count(event.episodes, "episode")
        return f"recording {episodes} of {event.seconds:g} s at {event.fps:g} rows/s: {cameras}"
    if isinstance(event, EpisodeStarted):
        return f"{_name(event)} begins"
    if isinstance(event, Status):
        left = f"{event.seconds_left:.1f} s left"
        return f"episode {event.episode}: {_rows(event)}, {event.fps:.1f} rows/s, {left}"
    if isinstance(event, RowDropped):
        return (
            f"episode {event.episode}: frame {event.frame} is dropped, before row {event.row}: "
            f"no room for {', '.join(event.cameras)}"
        )
    if isinstance(event, FrameRepeated):
        return f"episode {event.episode}, row {event.row}: {event.camera} repeats the previous frame"
    if isinstance(event, EpisodeEnded):
        return (
            f"episode {event.episode}: {count(event.rows, 'row')} recorded{_to_set_up(event.reset_seconds)}"
        )
    if isinstance(event, EpisodeEncoding):
        return f"episode {event.episode}: {_encoded(event)}"
    if isinstance(event, EpisodeSaved):
        said = [_rows(event)]
        repeated = sum(event.repeated.values())
        said += [f"{count(repeated, 'frame')} repeated"] if repeated else []
        said += [human_bytes(sum(event.bytes.values())), f"saved in {human_seconds(event.seconds)}"]
        return f"episode {event.episode}: {', '.join(said)}"
    if isinstance(event, EpisodeDiscarded):
        what = f"attempt {event.attempt} at episode {event.episode}: {count(event.rows, 'row')}, discarded"
        return f"{what}{_to_set_up(event.reset_seconds)}"
    if isinstance(event, (EpisodeSaving, SessionEnded)):
        return ""
    return json.dumps(event.fields())


def summary_lines(saved: list[EpisodeSaved], ended: SessionEnded, *, episodes: bool) -> list[str]:
    """Return the lines on what a session has recorded, and what to do with it.

    Args:
        saved: its episodes.
        ended: how the session has ended.
        episodes: add a line for each episode.
    """
    lines = [_line(one) for one in saved] if episodes else []
    lines += [_EXPLAINED] if any(one.late for one in saved) else []
    total = human_bytes(sum(sum(one.bytes.values()) for one in saved))
    how = ", interrupted" if ended.interrupted else ""
    what = f"{count(ended.episodes, 'episode')}, {count(ended.rows, 'row')}"
    lines.append(f"{ended.root}: {what}, {total}{how}")
    if saved:
        root = shlex.quote(ended.root)
        lines.append(f"look at it: ffenc info {root}; ffenc verify {root}")
    return lines
