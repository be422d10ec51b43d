"""``ffenc push``."""

from __future__ import annotations

import click

from ffenc.cli import output
from ffenc.cli.common import SourceName, json_option
from ffenc.cli.display import human_bytes
from ffenc.cli.output import print_json
from ffenc.words import count


@click.command("push")
@click.argument("dataset", type=SourceName(), metavar="DATASET")
@click.argument("repository", metavar="USER/NAME")
@click.option(
    "--private/--public",
    default=None,
    help="Visibility of a new repository [default: the account's setting].",
)
@click.option("--revision", metavar="BRANCH", help="Upload to this branch [default: main].")
@click.option("--overwrite", is_flag=True, help="Replace the dataset in the repository.")
@click.option("--resume", is_flag=True, help="Continue an interrupted upload.")
@click.option("--dry-run", is_flag=True, help="Verify the dataset, and print what would be uploaded.")
@json_option
def command(
    dataset: str,
    repository: str,
    private: bool | None,
    revision: str | None,
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upload a LeRobot v3.0 dataset to the Hugging Face Hub, with a dataset card and LeRobot's version tag.

    The dataset is verified first. meta/info.json is uploaded last, so that nobody reads an incomplete
    dataset. Log in with `hf auth login`, or set HF_TOKEN. Requires pip install 'ffenc[hub]'.

    \b
    Examples:
      ffenc push my_videos me/pick_up_the_cube --dry-run
      ffenc push my_videos me/pick_up_the_cube --private
      ffenc push my_videos me/pick_up_the_cube --revision cropped
    """
    from ffenc.dataset.transfer import push_dataset  # noqa: PLC0415 - keeps --help quick

    done = push_dataset(
        dataset,
        repository,
        private=private,
        revision=revision,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
    )
    size = sum(done.files.values())
    if as_json:
        print_json(
            {
                "address": str(done.address),
                "files": len(done.files),
                "bytes": size,
                "tag": done.tag,
                "commit": done.commit,
                **({"card": done.card} if dry_run else {}),
            }
        )
        return
    held = f"{count(len(done.files), 'file')}, {human_bytes(size)}"
    if dry_run:
        output.result(f"{done.address} (not written): {held}, tag {done.tag}, with this card:\n\n{done.card}")
    else:
        output.summary(f"{done.address}: {held}, tag {done.tag}, verified")
