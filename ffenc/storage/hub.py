"""Datasets on the Hugging Face Hub, accessed through huggingface_hub: checked, uploaded and downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from msgspec import Struct

from ffenc.errors import ConfigError, DestinationError, FfencError, SourceError
from ffenc.layout import CODEBASE_VERSION, INFO
from ffenc.spelling import argument
from ffenc.storage.address import Address, parse_address
from ffenc.storage.store import MissingError, attempt, file_hash, status_of

Answer = TypeVar("Answer")

_CARD = "README.md"
_TAG = "LeRobot"  # with this tag the Hub's pages list LeRobot's datasets
_HIDDEN = [".*", "*/.*", ".*/*"]
_KIND = "dataset"
_SHOWN = 3
_FILES = 100  # per commit; a larger one can take the Hub longer than the connection lasts
_MOVED = 412  # HTTP status of a commit whose parent is no longer the branch's last commit
_SHORT = 8  # digits of a commit in messages


def hub_address(name: str) -> Address:
    """Return the address for ``USER/NAME``, ``USER/NAME@REVISION`` or an address.

    Raises:
        ConfigError: not a dataset on the Hub.
    """
    found = None
    if isinstance(name, str):
        found = parse_address(name if "://" in name else f"hf://datasets/{name}")
    if not isinstance(found, Address) or found.scheme != "hf" or found.place != found.repository:
        raise ConfigError(f"{name!r} is not a dataset on the Hub", expected="USER/NAME or USER/NAME@REVISION")
    return found


class _Hub:
    """The library and a repository."""

    def __init__(self, address: Address, error: type[FfencError]) -> None:
        try:
            import huggingface_hub  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            raise ConfigError(
                f"{address}: the Hugging Face Hub needs the package huggingface_hub: pip install 'ffenc[hub]'"
            ) from None
        self.library = huggingface_hub
        self.api = huggingface_hub.HfApi()
        self.address, self._error = address, error
        self.names: dict[str, Any] = {"repo_id": address.repository, "repo_type": _KIND}

    def ask(self, what: str, action: Callable[[], Answer]) -> Answer:
        """Call a function with retries; see :func:`~ffenc.storage.store.attempt`."""
        return attempt(self.address, what, action, self._error)

    def commit(self) -> str:
        """Return the commit of the revision now.

        Raises:
            MissingError: the repository or revision does not exist or is private.
        """
        return str(
            self.ask(
                "looked up", lambda: self.api.repo_info(**self.names, revision=self.address.revision)
            ).sha
        )

    def files(self, commit: str | None = None) -> dict[str, Any]:
        """Return path -> the Hub's information on the file at a commit; None: at the revision now."""
        revision = commit or self.address.revision
        listed = self.ask(
            "listed",
            lambda: list(self.api.list_repo_tree(**self.names, revision=revision, recursive=True)),
        )
        return {one.path: one for one in listed if hasattr(one, "size")}


def commit_of(address: Address) -> str:
    """Return the commit of an address now.

    Raises:
        SourceError: the repository or revision does not exist, or cannot be reached.
    """
    try:
        return _Hub(address, SourceError).commit()
    except MissingError as error:
        raise SourceError(_not_there(address, error)) from None


def _not_there(address: Address, error: Exception) -> str:
    return (
        f"{address}: the Hub has no such dataset or revision, or it is private and needs "
        f"{address.kind.credentials}: {error}"
    )


def check_free(address: Address, *, resume: bool, overwrite: bool) -> None:
    """Reject a repository with a dataset or other files.

    Raises:
        DestinationError: it contains a dataset or other files.
        ConfigError: the address is a path inside a repository.
    """
    if address.place != address.repository:
        raise ConfigError(f"{address}: a dataset is a whole repository", expected="hf://datasets/USER/NAME")
    try:
        files = _Hub(address, DestinationError).files()
    except MissingError:
        return
    others = sorted(files.keys() - {".gitattributes", _CARD})
    if INFO in files and not overwrite and not resume:
        raise DestinationError(
            f"{address} holds a dataset; choose another name, or replace it with "
            f"{argument('overwrite', True)}"
        )
    if others and INFO not in files and not resume and not overwrite:
        raise DestinationError(
            f"{address} holds {len(others)} files and no {INFO}, as after an interrupted upload; "
            f"continue with {argument('resume', True)}, or choose another name"
        )


class Push(Struct, frozen=True):
    """An upload, or a dry run of it.

    Attributes:
        address: destination.
        files: path -> size in bytes.
        tag: the tag that LeRobot's loader requires.
        card: text of the dataset card.
        commit: the last commit; None: nothing was uploaded.
    """

    address: Address
    files: Mapping[str, int]
    tag: str
    card: str
    commit: str | None = None


def push_folder(
    root: Path,
    address: Address,
    *,
    private: bool | None = None,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
) -> Push:
    """Upload a dataset's folder to the Hub: ``meta/info.json`` last, then the tag.

    Args:
        root: a LeRobot v3.0 dataset without faults.
        address: the repository and branch; created if they do not exist.
        private: visibility of a new repository; None: the account's default.
        overwrite: replace the existing dataset.
        resume: continue an interrupted upload.
        dry_run: upload nothing.

    Raises:
        DestinationError: the repository has a dataset or other files, or cannot be written.
        ConfigError: the library is not installed, or the revision is a commit instead of a branch.
    """
    hub = _Hub(address, DestinationError)
    check_free(address, resume=resume, overwrite=overwrite)
    files = {place: path for path in sorted(root.rglob("*")) if (place := _place(root, path)) is not None}
    card = _card(root, address)
    found = Push(
        address, {place: path.stat().st_size for place, path in files.items()}, CODEBASE_VERSION, card
    )
    if dry_run:
        return found
    try:
        return _push(hub, files, found, private=private, overwrite=overwrite)
    except MissingError as error:
        raise DestinationError(_not_there(address, error)) from None


def _place(root: Path, path: Path) -> str | None:
    place = path.relative_to(root)
    hidden = any(part.startswith(".") for part in place.parts)
    return place.as_posix() if path.is_file() and not hidden else None


def _push(hub: _Hub, files: Mapping[str, Path], push: Push, *, private: bool | None, overwrite: bool) -> Push:
    api, names, library = hub.api, hub.names, hub.library
    branch = push.address.revision
    hub.ask("made", lambda: api.create_repo(**names, private=private, exist_ok=True))
    if branch is not None:
        hub.ask(
            f"given the branch {branch}", lambda: api.create_branch(**names, branch=branch, exist_ok=True)
        )
    # Each commit names its parent, so that the Hub rejects it if another writer has committed in between.
    commit = hub.commit()
    before = hub.files(commit)
    gone = sorted(before.keys() - files.keys() - {".gitattributes", _CARD, INFO})
    if not overwrite:
        _check_others(push.address, before, files[INFO], gone)
    if overwrite and INFO in before:
        # Without info.json the branch is no dataset until the end; the tag still points to the previous one.
        delete = [library.CommitOperationDelete(path_in_repo=INFO)]
        commit = _commit(hub, delete, "Replace the dataset", commit)
    last = (INFO, _CARD)
    new = [place for place, path in files.items() if place not in last and not _same(path, before.get(place))]
    for at in range(0, len(new), _FILES):
        adds = [_added(library, place, files[place]) for place in new[at : at + _FILES]]
        commit = _commit(hub, adds, "Add files of the dataset", commit)
    there = hub.files(commit)
    wrong = [
        place for place, path in files.items() if place not in last and not _same(path, there.get(place))
    ]
    if wrong:
        raise DestinationError(
            f"{push.address}: {', '.join(wrong[:_SHOWN])} ({len(wrong)} files) differ from what was sent"
        )
    operations = [library.CommitOperationDelete(path_in_repo=place) for place in gone]
    operations += [_added(library, INFO, files[INFO])]
    operations += [library.CommitOperationAdd(path_in_repo=_CARD, path_or_fileobj=push.card.encode())]
    commit = _commit(hub, operations, "Add the dataset, as LeRobot v3.0", commit)
    _tag(hub, push.tag, commit)
    return Push(push.address, push.files, push.tag, push.card, commit)


def _check_others(address: Address, before: Mapping[str, Any], info: Path, gone: Sequence[str]) -> None:
    """Reject a repository with other files, or with another dataset.

    Args:
        address: the repository.
        before: its files.
        info: the dataset's ``meta/info.json``.
        gone: files of the repository that are not in the dataset.
    """
    other = f"choose another name, or replace what is there with {argument('overwrite', True)}"
    if INFO in before and not _same(info, before[INFO]):
        raise DestinationError(f"{address} holds another dataset; {other}")
    if gone:
        raise DestinationError(
            f"{address} contains other files ({gone[0]} and {len(gone) - 1} more); {other}"
        )


def _added(library: Any, place: str, path: Path) -> Any:
    return library.CommitOperationAdd(path_in_repo=place, path_or_fileobj=str(path))


def _commit(hub: _Hub, operations: Sequence[Any], message: str, parent: str) -> str:
    """Create a commit with a given parent; return it.

    Raises:
        DestinationError: the parent is no longer the branch's last commit, or the commit fails.
    """

    def make() -> Any:
        try:
            return hub.api.create_commit(
                **hub.names,
                operations=list(operations),
                commit_message=message,
                revision=hub.address.revision,
                parent_commit=parent,
            )
        except Exception as error:
            if status_of(error) != _MOVED:
                raise
            raise DestinationError(
                f"{hub.address}: someone else has written there since this upload began: commit "
                f"{parent[:_SHORT]} is no longer the last",
                fix=f"when that has ended, continue with {argument('resume', True)} if it was the "
                "same dataset",
            ) from None

    return str(hub.ask("written", make).oid)


def _tag(hub: _Hub, tag: str, commit: str) -> None:
    """Move the tag that LeRobot's loader requires to a commit."""
    with suppress(MissingError):  # a new repository does not have the tag
        hub.ask(f"rid of the tag {tag}", lambda: hub.api.delete_tag(**hub.names, tag=tag))
    hub.ask(f"tagged {tag}", lambda: hub.api.create_tag(**hub.names, tag=tag, revision=commit))


def _same(path: Path, found: Any) -> bool:
    """Return whether a file equals one on the Hub by checksum: SHA-256, or git's for files stored in git."""
    if found is None or found.size != path.stat().st_size:
        return False
    if found.lfs is not None:
        return bool(found.lfs.sha256 == file_hash(path, "sha256"))
    data = path.read_bytes()
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False)
    return bool(found.blob_id == blob.hexdigest())


def _card(root: Path, address: Address) -> str:
    """Return the dataset card: the dataset's own, with the fields that LeRobot and the Hub's viewer need."""
    own = root / _CARD
    text = own.read_text(encoding="utf-8") if own.is_file() else ""
    data: dict[str, Any] = {}
    if text.startswith("---\n") and "\n---" in text[4:]:
        head, _, text = text[4:].partition("\n---")
        try:
            data = yaml.safe_load(head) or {}
        except yaml.YAMLError:
            data = {}
        text = text.lstrip("-").lstrip("\n")
    if not isinstance(data, dict):
        data = {}
    for name, wanted in (("tags", _TAG), ("task_categories", "robotics")):
        listed = data.get(name) or []
        listed = list(listed) if isinstance(listed, list) else [listed]
        data[name] = listed if wanted in listed else [*listed, wanted]
    data.setdefault("configs", [{"config_name": "default", "data_files": "data/*/*.parquet"}])
    if not text.strip():
        about = (root / INFO).read_text(encoding="utf-8")
        text = (
            "This dataset is in the format of [LeRobot](https://github.com/huggingface/lerobot).\n\n"
            "[Look at "
            f"it](https://huggingface.co/spaces/lerobot/visualize_dataset?path={address.repository})\n\n"
            f"## Dataset Structure\n\n[meta/info.json](meta/info.json):\n\n```json\n{about.strip()}\n```\n"
        )
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n{text}"


def pull_folder(address: Address, folder: Path) -> dict[str, int]:
    """Download a dataset from the Hub to a folder, and compare every file with the Hub's checksum.

    Files of an interrupted call in the folder are kept.

    Args:
        address: the dataset and its revision.
        folder: destination.

    Returns:
        Path -> size in bytes.

    Raises:
        SourceError: the dataset does not exist, cannot be read, or a file does not match its checksum.
    """
    hub = _Hub(address, SourceError)
    try:
        hub.address = address.at(hub.commit())
        listed = hub.files()
        if INFO not in listed:
            raise SourceError(f"{address} has no {INFO}: it is not a LeRobot dataset of v2.0, v2.1 or v3.0")
        hub.ask(
            "read",
            lambda: hub.library.snapshot_download(
                **hub.names, revision=hub.address.revision, local_dir=str(folder), ignore_patterns=_HIDDEN
            ),
        )
    except MissingError as error:
        raise SourceError(_not_there(address, error)) from None
    wanted = {
        place: one
        for place, one in listed.items()
        if not any(part.startswith(".") for part in place.split("/"))
    }
    for place, one in wanted.items():
        if not (os.path.lexists(folder / place) and _same(folder / place, one)):
            raise SourceError(
                f"{address}/{place}: the download does not match the Hub's checksum; run it again"
            )
    for path in folder.rglob("*"):  # files of an earlier call for another revision
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    return {place: one.size for place, one in wanted.items()}
