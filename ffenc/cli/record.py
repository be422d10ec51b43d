"""``ffenc record``."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    PresetName,
    RecordingCommand,
    force_space_option,
    json_option,
    named_twice,
    program_options,
    transform_options,
)
from ffenc.cli.display import is_terminal, report_console
from ffenc.cli.keys import keys
from ffenc.cli.output import print_json
from ffenc.cli.values import RATE, Real, ValueType, Whole
from ffenc.cli.verdict import print_verdict, steps
from ffenc.words import count

if TYPE_CHECKING:
    from ffenc.cli.record_screen import Screen
    from ffenc.config.preset import RobotPreset
    from ffenc.recording.cameras import Camera
    from ffenc.recording.events import Event
    from ffenc.recording.recorder import Recorder
    from ffenc.recording.setup import OpenCameras

Overrides = list[tuple[tuple[str, ...], Any]]

_CHECK_SECONDS = 3.0


class _Camera(ValueType):
    """``front=/dev/video0``."""

    name = "NAME=SOURCE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, Any]]:
        from ffenc.errors import ConfigError  # noqa: PLC0415
        from ffenc.recording.setup import parse_source  # noqa: PLC0415 - keeps --help quick

        name, equals, source = str(value).partition("=")
        if not equals or not name or not source:
            self.fail(f"{value!r} is not of the form NAME=SOURCE, such as front=/dev/video0", param, ctx)
        try:
            return name, parse_source(source)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


@click.command("record", cls=RecordingCommand)
@click.argument("preset", type=PresetName(), metavar="PRESET")
@click.argument("root", type=PathName(), metavar="ROOT", required=False)
@click.option("--dataset.root", "lerobot_root", type=PathName(), metavar="ROOT", help="The same as ROOT.")
@named_twice(
    "--episodes",
    "--dataset.num_episodes",
    default=1,
    type=Whole(1),
    show_default=True,
    help="Number of episodes to record.",
)
@named_twice(
    "--seconds",
    "--dataset.episode_time_s",
    default=60.0,
    type=Real(0, min_open=True),
    show_default=True,
    help="Longest duration of an episode, in seconds.",
)
@named_twice(
    "--reset-seconds",
    "--dataset.reset_time_s",
    default=0.0,
    type=Real(0),
    show_default=True,
    help="Time between two episodes to reset the scene, in seconds.",
)
@named_twice(
    "--task",
    "--dataset.single_task",
    default=None,
    metavar="TEXT",
    help='Task text, such as "pick up the cube" [default: unspecified].',
)
@click.option("--fps", type=RATE, metavar="RATE", help="Frames and rows per second [default: the preset's].")
@click.option(
    "--camera",
    "sources",
    type=_Camera(),
    multiple=True,
    help="Source of a camera's frames: test, /dev/video0, realsense, realsense:SERIAL, a .db3 or .bag "
    "RealSense recording, or a folder of images. Append +depth to a RealSense source to record NAME_depth "
    "too. Repeatable.",
)
@click.option(
    "--test",
    is_flag=True,
    help="Use a test pattern for every camera without --camera, whatever source the preset gives.",
)
@click.option(
    "--on-interrupt",
    type=click.Choice(["keep", "discard"]),
    default="keep",
    show_default=True,
    help="What to do with the episode that Ctrl-C interrupts.",
)
@force_space_option
@transform_options
@click.option("--no-check", is_flag=True, help="Skip the initial test whether this machine keeps up.")
@click.option("--dry-run", is_flag=True, help="Print cameras and commands; write nothing.")
@json_option
@program_options
def command(
    preset: str,
    root: str | None,
    lerobot_root: str | None,
    episodes: int,
    seconds: float,
    reset_seconds: float,
    task: str | None,
    fps: str | None,
    sources: tuple[tuple[str, dict[str, Any]], ...],
    test: bool,
    on_interrupt: str,
    force_space: bool,
    no_check: bool,
    dry_run: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    overrides: Overrides,
) -> None:
    """Record the cameras of PRESET into the LeRobot dataset ROOT, episode by episode.

    ROOT is created, or episodes are added to it. Each camera has its own ffmpeg process, which encodes during
    the recording; an episode is added after its videos have been read back and compared. First, all encoders
    run for some seconds to test whether this machine keeps up.

    On a terminal the keys are LeRobot's: right arrow ends the episode (or the time between two), left arrow
    records it again, Esc ends it and stops. After a crash, `ffenc recover ROOT` recovers the last episode.

    \b
    Examples:
      ffenc record so101 my_dataset --test --episodes 3 --seconds 10 --task "pick up the cube"
      ffenc record so101 my_dataset --camera front=/dev/video0 --camera wrist=/dev/video2
      ffenc record so101 my_dataset --camera head=realsense+depth --camera_encoder.vcodec=h264
      ffenc record so101 my_dataset --test --dry-run
    """
    from ffenc.recording.recorder import DEFAULT_TASK, Recorder  # noqa: PLC0415 - keeps --help quick
    from ffenc.recording.setup import choose_cameras, open_cameras  # noqa: PLC0415
    from ffenc.recording.space import check_recording_space  # noqa: PLC0415

    where = _root(root, lerobot_root)
    given = [*overrides, *([(("fps",), fps)] if fps is not None else [])]
    chosen = choose_cameras(preset, given, sources=dict(sources), test=test)
    known = chosen.known() if dry_run else None
    if known is not None:
        _print_plan(known, where, as_json, ffmpeg, ffprobe)
        return
    with open_cameras(chosen, ffmpeg) as opened:
        robot = opened.preset
        if dry_run:
            _print_plan(opened, where, as_json, ffmpeg, ffprobe)
            return
        if task is None:
            output.note(f'no --task was given: the task of the episodes is "{DEFAULT_TASK}"')
            task = DEFAULT_TASK
        if not force_space:
            check_recording_space(robot, where, episodes=episodes, seconds=seconds)
        recording = Recorder(robot, where, task=task, jpeg=opened.jpeg, ffmpeg=ffmpeg, ffprobe=ffprobe)
        with recording as recorder:
            if opened.paced and robot.video and robot.encode == "live" and not no_check:
                _check(robot, ffmpeg, ffprobe)
            _record(
                recorder,
                opened.cameras,
                as_json=as_json,
                episodes=episodes,
                seconds=seconds,
                reset_seconds=reset_seconds,
                keep_on_interrupt=on_interrupt == "keep",
            )


def _root(root: str | None, lerobot_root: str | None) -> str:
    if root is not None and lerobot_root is not None and root != lerobot_root:
        raise click.UsageError(f"ROOT is {root}, --dataset.root is {lerobot_root}: pass one of them")
    found = root or lerobot_root
    if not found:
        raise click.UsageError("ROOT is missing; pass the folder of the dataset")
    return found


def _check(robot: RobotPreset, ffmpeg: str | None, ffprobe: str | None) -> None:
    """Exit with status 1 and print the flags that help if this machine cannot keep up."""
    from ffenc.ffmpeg.toolchain import toolchains  # noqa: PLC0415
    from ffenc.recording.keep_up import check_preset  # noqa: PLC0415

    with steps() as on_step:
        verdict = check_preset(
            robot, toolchains=toolchains(ffmpeg, ffprobe), seconds=_CHECK_SECONDS, on_step=on_step
        )
    if verdict.keeps_up:
        slowest = min(verdict.cameras, key=lambda camera: camera.factor)
        output.note(
            f"this machine keeps up: {slowest.camera}, the slowest, is encoded at "
            f"{slowest.factor:.1f} times real time or faster"
        )
        return
    print_verdict(report_console(stderr=True), robot, verdict)
    output.error("nothing was recorded; pass --no-check to record anyway")
    sys.exit(1)


def _record(recorder: Recorder, cameras: Sequence[Camera], *, as_json: bool, **session: Any) -> None:
    """Run the session with keys and a screen; print what was recorded, also after an error."""
    from ffenc.cli.record_screen import summary_lines  # noqa: PLC0415
    from ffenc.recording.control import Control  # noqa: PLC0415
    from ffenc.recording.events import EpisodeSaved, SessionEnded  # noqa: PLC0415
    from ffenc.recording.session import record_episodes  # noqa: PLC0415

    # Dropped and repeated frames are reported as events, so their log messages are not shown.
    logger = logging.getLogger("ffenc.recording")
    level = logger.level
    logger.setLevel(logging.ERROR)
    control = Control()
    events: list[Event] = []
    wiped = False  # whether the episodes shown so far are no longer visible
    pressed = {"right": control.end_episode, "left": control.rerecord, "escape": control.stop}
    try:
        with (
            keys(pressed) as has_keys,
            _screen(as_json, has_keys) as screen,
            output.shown_by(screen.say),
        ):
            wiped = screen.wiped

            def on_event(event: Event) -> None:
                if isinstance(event, (EpisodeSaved, SessionEnded)):
                    events.append(event)
                screen.tell(event)

            record_episodes(
                recorder,
                cameras,
                control=control,
                on_event=on_event,
                status_seconds=screen.status_seconds,
                **session,
            )
    finally:
        logger.setLevel(level)
        if events and isinstance(events[-1], SessionEnded) and not as_json:
            saved = [event for event in events if isinstance(event, EpisodeSaved)]
            for line in summary_lines(saved, events[-1], episodes=wiped):
                output.summary(line)


def _screen(as_json: bool, has_keys: bool) -> Screen:
    from ffenc.cli.record_screen import JsonLines, LiveScreen, PlainLines  # noqa: PLC0415

    if as_json:
        return JsonLines()
    return LiveScreen(keys=has_keys) if is_terminal(sys.stderr) and not output.is_quiet() else PlainLines()


def _print_plan(
    opened: OpenCameras, root: str, as_json: bool, ffmpeg: str | None, ffprobe: str | None
) -> None:
    """Print how each camera would be recorded."""
    from ffenc.config.framerate import fps_number, parse_fps  # noqa: PLC0415 - keeps --help quick
    from ffenc.recording.recorder import Recorder  # noqa: PLC0415

    robot = opened.preset
    plan = Recorder(robot, root, jpeg=opened.jpeg, ffmpeg=ffmpeg, ffprobe=ffprobe).plan()
    sources = {name: camera.source for name, camera in robot.cameras.items()}
    if as_json:
        print_json(
            {
                "root": root,
                "fps": fps_number(parse_fps(robot.fps)),
                "cameras": {
                    name: {
                        "source": source.as_plain(only_given=True) if (source := sources[name]) else None,
                        "width": camera.width,
                        "height": camera.height,
                        "depth": camera.depth,
                        "encode": "never" if camera.way == "images" else camera.way,
                        "codec": camera.codec if camera.way != "images" else None,
                        "pix_fmt": camera.pix_fmt if camera.way != "images" else None,
                        "command": line,
                    }
                    for name, (camera, line) in plan.items()
                },
            }
        )
        return
    output.result(f"{root} (not written): {count(len(plan), 'camera')} of {robot.name} at {robot.fps} rows/s")
    for name, (camera, line) in plan.items():
        source = sources[name]
        fields = source.as_plain(only_given=True) if source is not None else {}
        kind = fields.pop("type", "depth of another camera")
        said = ", ".join([kind, *(f"{field} {value}" for field, value in fields.items())])
        stored = "images" if camera.way == "images" else f"{camera.codec} {camera.pix_fmt}"
        later = " after the episode" if camera.way == "after" else ""
        output.result(f"  {name}: {said}, {camera.width}x{camera.height}, {stored}{later}")
        output.result(f"    {shlex.join(line) if line is not None else 'numbered TIFF files'}")
