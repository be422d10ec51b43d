"""Signatures of this user's runs, with a key outside of every dataset, to detect foreign commits."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffenc.errors import SourceError
from ffenc.frames.publish import sync_folder
from ffenc.paths import read_bytes
from ffenc.storage.folder import own_folder

_KEY_BYTES = 32


def key_path() -> Path:
    """Return the path of the user's key: in ``FFENC_STATE``, or in the user's state folder."""
    return own_folder("state") / "key"


def sign(content: Mapping[str, Any]) -> str | None:
    """Return a signature that only this user can make; None if no key can be stored.

    Args:
        content: plain values for JSON.
    """
    key = _key() or _new_key()
    return _signature(key, content) if key is not None else None


def is_signed(content: Mapping[str, Any], signature: object) -> bool:
    """Return whether this user signed this content."""
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
    """Create the key, flushed before it is used: a power failure must not lose the key of a signature."""
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
                path.unlink()  # damaged, and no longer usable
            try:
                os.link(draft, path)
            except FileExistsError:
                pass  # another run was first, and its key is used
            except OSError:  # a file system without hard links
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            sync_folder(folder)
    except OSError:
        return None
    return _key()
