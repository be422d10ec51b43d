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
    """Run a command of the LeRobot in this environment, with ffenc as its video encoder.

    COMMAND is record, rollout, edit-dataset, teleoperate or another of LeRobot's, without lerobot-. All
    flags are LeRobot's own, and are passed on, but for these:

    \b
      --ffenc.preset=NAME      encoder settings of each camera from a preset; flags of
                               --dataset.rgb_encoder and --dataset.depth_encoder win over it
      --ffenc.cameras.CAMERA.encoder.crf=23    a setting of one camera, over the preset's
      --ffenc.on_full=repeat   what is done with a frame whose encoder is behind: repeat
                               stores the frame before again, block waits (or FFENC_ON_FULL)

    \b
    Examples:
      ffenc lerobot record --robot.type=so101_follower ... --dataset.streaming_encoding=true
      ffenc lerobot record ... --ffenc.preset=so101
      ffenc lerobot edit-dataset --repo_id=me/images --operation.type=convert_image_to_video ...
      ffenc lerobot record --help
    """
    from ffenc.lerobot.command import read_call  # noqa: PLC0415 - keeps --help quick

    read_call([name, *words])  # what is wrong with it is said here
    sys.stdout.flush()
    sys.stderr.flush()
    # In the place of this process: LeRobot ends a recording by its own signals, and takes its time for it.
    os.execv(sys.executable, [sys.executable, "-m", "ffenc.lerobot", name, *words])  # noqa: S606
