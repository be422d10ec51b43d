"""``ffenc edit``."""

from __future__ import annotations

import re
from typing import Any

import click

from ffenc.cli.common import PathName, SettingsCommand, SourceName, nearest_option, transform_options
from ffenc.cli.jobs import executor_of, job_options, run_job
from ffenc.cli.plan import print_plans
from ffenc.cli.values import EPISODES, EXCLUDED, RATE, ValueType


class Pair(ValueType):
    """``OLD=NEW``, neither empty."""

    name = "OLD=NEW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, rest = str(value).partition("=")
        if not (equals and key.strip() and rest.strip()):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return key, rest


class EpisodePair(Pair):
    """``3=TEXT``."""

    name = "NUMBER=TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        key, rest = super().convert(value, param, ctx)
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", key):
            self.fail(
                f'{key!r} is not an episode\'s number; expected such as 3="pick up the cube"', param, ctx
            )
        return int(key), rest


class Replacement(Pair):
    """``OLD=NEW``, or ``OLD=>NEW`` if the old text contains an equals sign."""

    name = "OLD=NEW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        old, arrow, new = str(value).partition("=>")
        if arrow and old.strip() and new.strip():
            return old, new
        return super().convert(value, param, ctx)


class EditCommand(SettingsCommand):
    """A command that takes changes of frames but no encoder settings: those of the dataset are used."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        remaining = super().parse_args(ctx, args)
        for key, _ in ctx.params["overrides"]:
            if "transform" not in (key[0], *key[2:3]):
                raise click.UsageError(
                    f"--{'.'.join(key)} is not accepted by edit, which keeps the encoder "
                    "settings; use ffenc reencode",
                    ctx,
                )
        return remaining

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write("For one camera: --cameras.NAME.resize=WxH, crop, rotate, flip or pad.\n")


def words_of(value: str | None) -> list[str]:
    """Return the names in a list such as ``a,b``."""
    return [name.strip() for name in value.split(",")] if value is not None else []


def once(pairs: tuple[tuple[Any, str], ...], what: str) -> dict[Any, str]:
    """Return pairs as a mapping.

    Raises:
        click.UsageError: a key occurs twice.
    """
    found: dict[Any, str] = {}
    for key, value in pairs:
        if key in found:
            raise click.UsageError(f"{what}: {key} is given twice; keep one")
        found[key] = value
    return found


@click.command("edit", cls=EditCommand)
@click.argument("source", type=SourceName(remote=True), metavar="SRC")
@click.argument("destination", type=PathName(remote=True), metavar="DST")
@click.option(
    "--episodes",
    type=EPISODES,
    metavar="0,2,5-9,20-",
    help="Keep only these episodes, in the order of the source; 20- means 20 to the last.",
)
@click.option("--exclude-episodes", type=EXCLUDED, metavar="3,7", help="Leave out these episodes.")
@click.option("--cameras", metavar="A,B", help="Keep only these cameras.")
@click.option("--drop-cameras", metavar="A,B", help="Leave out these cameras.")
@click.option(
    "--drop-features", metavar="A,B", help="Leave out these features (columns that are not cameras)."
)
@click.option(
    "--rename-camera",
    "rename_cameras",
    type=Pair(),
    metavar="OLD=NEW",
    multiple=True,
    help="Rename a camera; repeatable.",
)
@click.option("--task", metavar="TEXT", help="Set the task of all episodes.")
@click.option(
    "--task-of",
    type=EpisodePair(),
    metavar="NUMBER=TEXT",
    multiple=True,
    help="Set the task of one episode, by its number in SRC; repeatable.",
)
@click.option(
    "--replace-task",
    "replace_tasks",
    type=Replacement(),
    metavar="OLD=NEW",
    multiple=True,
    help="Replace a task's text; repeatable. Write OLD=>NEW if the old text contains an =.",
)
@click.option(
    "--fps",
    type=RATE,
    metavar="RATE",
    help="Lower the frame rate: keep every second, third, ... row and frame.",
)
@nearest_option
@click.option("--robot-type", metavar="NAME", help="Set robot_type in meta/info.json.")
@transform_options
@job_options("Print the plan; write nothing.")
def command(
    source: str,
    destination: str,
    cameras: str | None,
    drop_cameras: str | None,
    drop_features: str | None,
    rename_cameras: tuple[tuple[str, str], ...],
    task: str | None,
    task_of: tuple[tuple[int, str], ...],
    replace_tasks: tuple[tuple[str, str], ...],
    robot_type: str | None,
    resume: bool,
    force_space: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
    overrides: list[tuple[tuple[str, ...], Any]],
    **settings: Any,
) -> None:
    """Select, rename, correct or resize parts of SRC as a new LeRobot v3.0 dataset. SRC is only read.

    Video packets and images are copied, whatever their codec. Only an episode that does not begin at a key
    frame, or a camera whose frames are cropped, rotated or resized, is encoded, with its existing
    settings; images stay images. Episodes are numbered from 0, and statistics are computed from the rows
    that are kept. DST appears complete and verified, or not at all.

    \b
    Examples:
      ffenc edit my_data good --exclude-episodes 3,7
      ffenc edit my_data tail --episodes 100-
      ffenc edit my_data named --rename-camera cam0=front --rename-camera cam1=wrist
      ffenc edit my_data square --crop 480x480+80+0 --cameras.wrist.resize=320x240
      ffenc edit my_data slow --fps 10
      ffenc edit my_data fixed --replace-task "pick cube"="pick up the cube"
      ffenc edit my_data small --drop-cameras wrist --drop-features observation.effort --dry-run
    """
    from ffenc.config.preset import load_preset  # noqa: PLC0415
    from ffenc.dataset.edit import plan_edit  # noqa: PLC0415 - keeps --help quick
    from ffenc.dataset.edited import Edits  # noqa: PLC0415

    edits = Edits(
        rename_cameras=once(rename_cameras, "--rename-camera"),
        drop_cameras=words_of(drop_cameras),
        drop_features=words_of(drop_features),
        task=task,
        task_of=once(task_of, "--task-of"),
        replace_tasks=once(replace_tasks, "--replace-task"),
        robot_type=robot_type,
    )
    robot = load_preset(None, overrides)
    executor = executor_of(settings)
    plan = plan_edit(
        source,
        destination,
        edits=edits,
        cameras=words_of(cameras) or None,
        transform=robot.transform,
        transforms={name: camera.transform for name, camera in robot.cameras.items()},
        resume=resume,
        **settings,
    )
    if dry_run:
        print_plans({"": plan}, as_json)
        return
    run_job(
        plan,
        "editing",
        resume=resume,
        force_space=force_space,
        as_json=as_json,
        executor=executor,
        keep_going=keep_going,
    )
