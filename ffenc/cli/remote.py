"""Names of datasets that are not on this machine: what can be done."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from ffenc.errors import DestinationError, SourceError

_COPY = {"s3": "aws s3 cp --recursive", "gs": "gcloud storage cp -r"}
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = re.compile(r"\.[A-Za-z0-9]{2,5}$")


def check_local(name: str, *, read: bool) -> None:
    """Refuse an address: what is read and written are local files.

    Args:
        read: whether the name is one to read from, or one to write to.

    Raises:
        SourceError: it is an address to read from; says how to copy what is there.
        DestinationError: it is one to write to.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", name)
    if match is None:
        return
    scheme, rest = match[1].lower(), match[2]
    repository, _, revision = rest.removeprefix("datasets/").partition("@")
    repository = "/".join(repository.split("/")[:2])
    folder = shlex.quote(rest.rstrip("/").rpartition("/")[2] or "dataset")
    if scheme == "file":
        how = f"give the path alone: {shlex.quote(rest)}"
    elif read:
        copies = {"hf": _download(repository, revision.partition("/")[0])}
        copies |= {cloud: f"{copy} {shlex.quote(name)} {folder}" for cloud, copy in _COPY.items()}
        how = f"copy it here first: {copies[scheme]}" if scheme in copies else "download it first"
    else:
        copies = {"hf": f"hf upload {shlex.quote(repository)} FOLDER --repo-type dataset"}
        copies |= {cloud: f"{copy} FOLDER {shlex.quote(name)}" for cloud, copy in _COPY.items()}
        how = "name a local folder" + (f", and then: {copies[scheme]}" if scheme in copies else "")
    kind = SourceError if read else DestinationError
    raise kind(f"{name} is an address; ffenc reads and writes local files: {how}")


def check_hub(name: str) -> None:
    """Refuse a dataset's name on the Hugging Face Hub, where no file or folder is called so.

    Raises:
        SourceError: it seems to be one; says where it is on this machine, or how to download it.
    """
    if not _HUB.fullmatch(name) or os.path.lexists(name) or Path(name).parent.exists() or _FILES.search(name):
        return
    home = os.environ.get("HF_LEROBOT_HOME", "~/.cache/huggingface/lerobot")
    kept = Path(home).expanduser() / name
    if kept.is_dir():
        raise SourceError(f"{name} is not a folder here; LeRobot keeps it in {kept}: give that path")
    raise SourceError(
        f"{name} is not a folder here. If it is a dataset of the Hugging Face Hub, download it first: "
        f"{_download(name)}"
    )


def _download(repository: str, revision: str = "") -> str:
    folder = shlex.quote(repository.rpartition("/")[2] or "dataset")
    which = f" --revision {shlex.quote(revision)}" if revision else ""
    return f"hf download {shlex.quote(repository)} --repo-type dataset{which} --local-dir {folder}"
