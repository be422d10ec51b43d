"""``ffenc reencode``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    SettingsCommand,
    SourceName,
    mapping_option,
    nearest_option,
    preset_option,
    retime_option,
    thread_setting,
    transform_options,
)
from ffenc.cli.display import human_bytes, human_seconds
from ffenc.cli.jobs import executor_of, job_options, run_job
from ffenc.cli.output import print_json
from ffenc.cli.values import EPISODES, RATE, SHARD, Whole
from ffenc.words import camera_frames, count

if TYPE_CHECKING:
    from ffenc.dataset.job.plan import JobPlan


@click.command("reencode", cls=SettingsCommand)
@click.argument("source", type=SourceName(remote=True), metavar="SRC")
@click.argument("destination", type=PathName(remote=True), metavar="DST")
@preset_option
@click.option("--cameras", metavar="A,B", help="Keep only these cameras.")
@click.option(
    "--episodes",
    type=EPISODES,
    metavar="0,2,5-9,20-",
    help="Keep only these episodes, in the order of the source; 20- means 20 to the last.",
)
@click.option(
    "--shard",
    type=SHARD,
    metavar="K/N",
    help="Encode only the K-th of N parts with about the same number of frames each, for N machines. Merge "
    "the parts in order.",
)
@click.option(
    "--fps",
    type=RATE,
    metavar="RATE",
    help="Frames per second of a source that does not state its own [default: the preset's]. For a dataset: "
    "a lower rate, which keeps every second, third, ... row and frame.",
)
@nearest_option
@click.option(
    "--task", metavar="TEXT", help="For sources that are not datasets: set the task of all episodes."
)
@mapping_option("the preset's, or that of a known layout")
@click.option(
    "--on-gap",
    type=click.Choice(["error", "repeat", "split", "drop-episode"]),
    help="For bags: what to do if no message is near enough to a frame's time [default: the "
    "mapping's, or error].",
)
@click.option(
    "--start-number",
    type=Whole(0),
    help="For image trees: number of the first frame in each folder [default: 0 or 1].",
)
@click.option(
    "--encoder-threads",
    type=Whole(1),
    help="Threads per encoder [default: the cores divided by the workers].",
)
@click.option(
    "--force", is_flag=True, help="Re-encode video that already has these settings, instead of copying it."
)
@transform_options
@retime_option
@job_options("Print the plan, with size and time estimated from a short sample; write nothing.")
def command(
    source: str,
    destination: str,
    cameras: str | None,
    encoder_threads: int | None,
    resume: bool,
    force_space: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
    overrides: list[tuple[tuple[str, ...], Any]],
    **settings: Any,
) -> None:
    """Encode a dataset of images or video as a LeRobot v3.0 video dataset. SRC is only read.

    SRC is a LeRobot v3.0, v2.1 or v2.0 dataset; a tree of PNG, JPEG or TIFF (depth) frames:
    episode_*/CAMERA/*.png, images/CAMERA/episode_*/*.png, or one folder of frames; an HDF5 file, a zarr
    store, a ROS 2 bag or an MCAP file. DST appears complete and verified, or not at all. Both may be
    addresses: s3://, gs://, az://, hf://datasets/USER/NAME.

    Without encoder settings, video keeps its own, and its packets are copied. A single setting changes only
    that one; a preset or a vcodec sets all of them.

    \b
    Examples:
      ffenc reencode my_images my_videos --preset so101
      ffenc reencode my_images my_videos --cameras front,wrist --episodes 0,2,5-9
      ffenc reencode png_tree my_videos --fps 30 --task "pick up the cube"
      ffenc reencode my_videos smaller --camera_encoder.crf=35
      ffenc reencode my_images small --resize 320x240 --cameras.wrist.crop=480x480+80+0
      ffenc reencode s3://lab/images s3://lab/videos --shard 3/64 --keep-going
      ffenc reencode my_images my_videos --dry-run
    """
    from ffenc.dataset.reencode import plan_reencode  # noqa: PLC0415 - keeps --help quick

    executor = executor_of(settings)
    plan = plan_reencode(
        source,
        destination,
        cameras=[name.strip() for name in cameras.split(",")] if cameras is not None else None,
        encoder_threads=thread_setting(overrides, encoder_threads),
        overrides=overrides,
        resume=resume,
        **settings,
    )
    if dry_run:
        _print_plan(plan, as_json)
        return
    run_job(
        plan,
        "re-encoding",
        resume=resume,
        force_space=force_space,
        as_json=as_json,
        executor=executor,
        keep_going=keep_going,
    )


def _print_plan(plan: JobPlan, as_json: bool) -> None:
    from ffenc.dataset.job.estimate import estimate  # noqa: PLC0415
    from ffenc.ffmpeg.probe import StreamInfo  # noqa: PLC0415

    guess = estimate(plan)
    before = sum(stream.source_bytes for stream in plan.streams)
    if as_json:
        print_json(
            {
                "destination": str(plan.destination),
                "episodes": [episode.index for episode in plan.episodes],
                "frames": plan.frames,
                "workers": plan.workers,
                "source_bytes": before,
                "estimated_video_bytes": guess.video_bytes,
                "estimated_seconds": round(guess.seconds, 1),
                "commands": plan.commands(),
                "cameras": {
                    stream.key: {
                        "copied_episodes": sorted(stream.copied),
                        "why": stream.why,
                        "re_encoded": {str(number): why for number, why in stream.uncopied.items()},
                    }
                    for stream in plan.streams
                },
            }
        )
        return
    output.result(
        f"{plan.destination} (not written): {count(len(plan.episodes), 'episode')}, "
        f"{camera_frames(plan.frames, len(plan.streams))}, {count(plan.workers, 'encode')} at once"
    )
    commands = plan.commands()
    for stream in plan.streams:
        stored = stream.camera.stored
        what = f"{stored.codec} {stored.pix_fmt}" if isinstance(stored, StreamInfo) else str(stored)
        done = "re-encoded" if isinstance(stored, StreamInfo) else "encoded"
        if stream.copied:
            done = "copied, packet by packet"
        output.result(f"  {stream.key}: {what}, {human_bytes(stream.source_bytes)}, {done}: {stream.why}")
        for number, why in stream.uncopied.items():
            output.result(f"    episode {number} is re-encoded: {why}")
        if stream.key in commands:
            output.result(f"    {shlex.join(commands[stream.key])}")
    # Copied cameras need no sample.
    sample = f", from a sample of {count(guess.sampled_frames, 'frame')}" if guess.sampled_frames else ""
    sizes = f"{human_bytes(before)} -> {human_bytes(guess.video_bytes)}"
    output.result(f"about {sizes} in {human_seconds(guess.seconds)}{sample}")
