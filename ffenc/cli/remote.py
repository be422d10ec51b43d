"""Reject names of remote datasets in commands that read and write only local files."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from ffenc.errors import DestinationError, SourceError
from ffenc.storage.address import Address, is_address, parse_address

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = re.compile(r"\.[A-Za-z0-9]{2,5}$")
_FILE = re.compile(r"\.(ya?ml|mp4|mcap|bag|hdf5|h5)$")
_COPY = {"s3": "aws s3 cp --recursive", "gs": "gcloud storage cp -r", "az": "azcopy copy --recursive"}


def local_name(name: str, *, read: bool) -> str:
    """Return a local path; reject an address that is not of a local file.

    Args:
        name: a path or a ``file://`` address.
        read: whether the command reads from the name or writes to it.

    Raises:
        SourceError: an address to read from; the text says how to copy it.
        DestinationError: an address to write to.
        ConfigError: an address of an unknown kind.
    """
    if not is_address(name):
        return name
    place = parse_address(name)
    if not isinstance(place, Address):
        return str(place)
    folder = shlex.quote(place.name or "dataset")
    if read:
        tool = _COPY.get(place.scheme, "")
        if _FILE.search(name):
            tool = tool.removesuffix(" --recursive").removesuffix(" -r")
        copy = f"{tool} {shlex.quote(name)} {folder}" if tool else _pull(place)
        raise SourceError(f"{name} is an address; this command reads local files; download it first: {copy}")
    copy = f"{_COPY[place.scheme]} FOLDER {shlex.quote(name)}" if place.scheme in _COPY else ""
    copy = copy or f"ffenc push FOLDER {place.repository}"
    raise DestinationError(
        f"{name} is an address; this command writes local files: name a folder, and then: {copy}"
    )


def check_hub(name: str) -> None:
    """Reject a dataset's name on the Hugging Face Hub, unless a file or folder has this name.

    Raises:
        SourceError: it looks like one; the text says where it is on this machine, or how to download it.
    """
    if not _HUB.fullmatch(name) or os.path.lexists(name) or Path(name).parent.exists() or _FILES.search(name):
        return
    home = os.environ.get("HF_LEROBOT_HOME", "~/.cache/huggingface/lerobot")
    kept = Path(home).expanduser() / name
    if kept.is_dir():
        raise SourceError(f"{name} is not a folder here; LeRobot keeps it in {kept}: give that path")
    raise SourceError(
        f"{name} is not a folder here. If it is a dataset of the Hugging Face Hub, name it "
        f"hf://datasets/{name}, or download it: {_pull(Address('hf', name))}"
    )


def _pull(address: Address) -> str:
    which = f"{address.repository}@{address.revision}" if address.revision else address.repository
    return f"ffenc pull {shlex.quote(which)} {shlex.quote(address.repository.partition('/')[2])}"
