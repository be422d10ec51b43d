"""Tell what this user's runs wrote into a dataset from what came with it: by a key outside every dataset."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from ffenc.errors import SourceError
from ffenc.frames.publish import sync_folder
from ffenc.paths import read_bytes

_KEY_BYTES = 32


def key_path() -> Path:
    """Where the user's key is: in ``FFENC_STATE``, or in the user's folder for the state of programs."""
    try:
        folder = os.environ.get("FFENC_STATE") or platformdirs.user_state_dir("ffenc")
    except RuntimeError:  # a user without a home, as in a container
        folder = os.devnull
    folder = os.path.expanduser(folder)  # noqa: PTH111 - never fails
    return Path(os.devnull if folder.startswith("~") else folder) / "key"


def sign(content: Mapping[str, Any]) -> str | None:
    """Return a signature that only this user can make; None where no key can be kept.

    Args:
        content: plain values, as they are written to JSON.
    """
    key = _key() or _new_key()
    return _signature(key, content) if key is not None else None


def is_signed(content: Mapping[str, Any], signature: object) -> bool:
    """Whether this user made the signature, of this content."""
    key = _key()
    return key is not None and isinstance(signature, str) and _same(_signature(key, content), signature)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))


def _signature(key: bytes, content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key() -> bytes | None:
    try:
        key = read_bytes(key_path(), _KEY_BYTES)
    except (OSError, SourceError):
        return None
    return key if len(key) == _KEY_BYTES else None


def _new_key() -> bytes | None:
    """Make the key, on the disk before it is used: a power cut must not take it from what it has signed."""
    path = key_path()
    draft = path.with_name(f"key.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            if path.exists() and _key() is None:
                path.unlink()  # it is damaged, and signs nothing
            try:
                os.link(draft, path)
            except FileExistsError:
                pass  # another run was first: there is one key
            except OSError:  # a file system without hard links
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            sync_folder(folder)
    except OSError:
        return None
    return _key()
