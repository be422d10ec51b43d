"""``ffenc lerobot``."""

from __future__ import annotations

import os
import sys

import click


@click.command(
    "lerobot",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("name", metavar="COMMAND")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LEROBOT'S FLAGS]")
def command(name: str, words: tuple[str, ...]) -> None:
    """Run a command of the LeRobot installed in this environment, with ffenc as its video encoder.

    COMMAND is a LeRobot command without the prefix lerobot-: record, rollout, edit-dataset, teleoperate, ...
    All flags are passed on to LeRobot, except these:

    \b
      --ffenc.preset=NAME      encoder settings of each camera from a preset; the flags
                               --dataset.rgb_encoder and --dataset.depth_encoder override it
      --ffenc.cameras.CAMERA.encoder.crf=23    override one setting of one camera
      --ffenc.on_full=repeat   what to do if an encoder falls behind: repeat stores the
                               previous frame again, block waits (or set FFENC_ON_FULL)

    \b
    Examples:
      ffenc lerobot record --robot.type=so101_follower ... --dataset.streaming_encoding=true
      ffenc lerobot record ... --ffenc.preset=so101
      ffenc lerobot edit-dataset --repo_id=me/images --operation.type=convert_image_to_video ...
      ffenc lerobot record --help
    """
    from ffenc.lerobot.command import read_call  # noqa: PLC0415 - keeps --help quick

    read_call([name, *words])  # errors are reported here
    sys.stdout.flush()
    sys.stderr.flush()
    # Replaces this process: LeRobot handles signals itself, and needs its time to end a recording.
    os.execv(sys.executable, [sys.executable, "-m", "ffenc.lerobot", name, *words])  # noqa: S606
