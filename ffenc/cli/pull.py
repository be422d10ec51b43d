"""``ffenc pull``."""

from __future__ import annotations

import click

from ffenc.cli import output
from ffenc.cli.common import PathName, json_option
from ffenc.cli.display import human_bytes
from ffenc.cli.output import print_json
from ffenc.words import count


@click.command("pull")
@click.argument("repository", metavar="USER/NAME[@REVISION]")
@click.argument("destination", type=PathName(), metavar="DST")
@json_option
def command(repository: str, destination: str, as_json: bool) -> None:
    """Download a LeRobot dataset from the Hugging Face Hub into the folder DST.

    Every file is compared with the Hub's checksum, and the result is verified. DST appears complete, or not
    at all. To continue an interrupted download, run the same command again. Requires pip install
    'ffenc[hub]'.

    \b
    Examples:
      ffenc pull lerobot/pusht pusht
      ffenc pull lerobot/pusht@v2.1 old_pusht
    """
    from ffenc.dataset.transfer import pull_dataset  # noqa: PLC0415 - keeps --help quick

    done = pull_dataset(repository, destination)
    if as_json:
        print_json(
            {"destination": destination, "files": done.files, "bytes": done.bytes, "faults": done.faults}
        )
        return
    for fault in done.faults:
        output.warning(f"{done.destination}: {fault}")
    sound = "sound" if not done.faults else f"{count(len(done.faults), 'fault')}, as on the Hub"
    output.summary(f"{done.destination}: {count(done.files, 'file')}, {human_bytes(done.bytes)}, {sound}")
