"""An S3 server for the tests of a file, and a cache folder for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ffenc.storage import mirror, store, upload
from tests.support.s3 import S3, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture
def s3(server: S3) -> Iterator[S3]:
    """The server, obedient and with an empty memory."""
    server.rule = lambda method, path: None
    server.requests.clear()
    yield server
    server.rule = lambda method, path: None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache folder; and what a process of its own would not know is forgotten."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FFENC_CACHE", str(folder))
    monkeypatch.setattr(store, "FIRST_WAIT", 0.001)
    yield folder
    forget()


def forget() -> None:
    """Be as a new process."""
    for one in mirror._mirrors.values():
        one.close()
    mirror._mirrors.clear()
    upload._uploads.clear()
