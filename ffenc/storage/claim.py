"""A lock on an address: a small hidden object in the store, so that only one machine writes at a time.

It is created with a conditional put, which fails if the object exists (available on S3, Google and Azure). A
run rewrites the object periodically; that shows that the run is alive, without comparing clocks of machines.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from ffenc.errors import DestinationError, FfencError
from ffenc.spelling import argument
from ffenc.storage.store import MissingError, Store

_log = logging.getLogger("ffenc")

PLACE = ".ffenc-writing.json"
"""Path of the object below the address. Hidden files are not part of a dataset."""

_TRIES = 5
_LEAVE = 10.0  # seconds that the end waits for the store
RENEWED = 20.0  # seconds between two writes of the object
PATIENCE = 90.0  # seconds without a write after which the run is considered dead


class _Found(Struct, frozen=True):
    """The object in the store.

    Attributes:
        version: version of the object.
        content: its fields; empty if they cannot be read.
    """

    version: str
    content: Mapping[str, Any]

    @property
    def who(self) -> str:
        """Description of the run that wrote it, for messages."""
        content = self.content
        return (
            f"process {content.get('process', '?')} on {content.get('host', 'an unknown machine')}, since "
            f"{content.get('since', 'an unknown time')}"
        )

    @property
    def lives(self) -> bool | None:
        """Whether its process is running; None if it is on another machine."""
        if self.content.get("machine") != _machine():
            return None
        try:
            process = psutil.Process(int(self.content["process"]))
            return abs(process.create_time() - float(self.content["started"])) < 1
        except (psutil.NoSuchProcess, ValueError, LookupError, TypeError):
            return False


class Claim:
    """This run's lock on an address.

    Args:
        store: of the address.
        resume: if a run that may have been killed has left its object, wait to see whether it is alive.

    Raises:
        DestinationError: another run writes there, or the object cannot be written.
    """

    def __init__(self, store: Store, *, resume: bool) -> None:
        self._store = store
        self._times = 0
        self._own = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "process": os.getpid(),
            "started": psutil.Process().create_time(),
            "since": datetime.now(timezone.utc).isoformat(" ", "seconds"),
        }
        self._lost: _Found | None = None
        self._ended = threading.Event()
        self._take(resume)
        self._thread = threading.Thread(target=self._renew, name="ffenc-claim", daemon=True)
        self._thread.start()

    def check(self, *, ask: bool = False) -> None:
        """Check that no other run has taken the lock, as can happen if this machine did not respond.

        Args:
            ask: read the object now; otherwise the result of the last write is used.

        Raises:
            DestinationError: another run has taken it.
        """
        if ask:
            self._look()
        if self._lost is not None:
            raise DestinationError(
                f"{self._store.address}: another run of ffenc ({self._lost.who}) writes there "
                "now, because this run was silent for too long; it stops"
            )

    def end(self) -> None:
        """Release the lock."""
        self._ended.set()
        self._thread.join(_LEAVE)
        with suppress(FfencError):  # otherwise the next run has to wait a little
            if self._lost is None and self._is_own(self._read()):
                self._store.remove(PLACE)

    def _content(self) -> bytes:
        self._times += 1
        return json.dumps({**self._own, "written": self._times}, indent=1).encode()

    def _take(self, resume: bool) -> None:
        address = self._store.address
        for _ in range(_TRIES):
            self._store.create(PLACE, self._content())
            # Without conditional puts the last writer wins: the object's content decides.
            found = self._read()
            if self._is_own(found):
                return
            if found is None:
                continue
            lives = found.lives
            if lives is None and resume:
                lives = self._changes(found)
            if lives is not False:
                killed = f". If that run was killed, {argument('resume', True)} continues it"
                raise DestinationError(
                    f"{address} is being written by another run of ffenc ({found.who}); wait until it ends"
                    + (killed if lives is None else "")
                )
            if (now := self._read()) is not None and now.version == found.version:
                _log.info("%s: a run that was killed (%s) had started to write there", address, found.who)
                self._store.remove(PLACE)
        raise DestinationError(
            f"{address} cannot be written to: {PLACE}, the lock file, appears and disappears; "
            "another run of ffenc may be starting there. Wait, and run it again"
        )

    def _changes(self, found: _Found) -> bool:
        """Return whether an object is rewritten within :data:`PATIENCE`: then its run is alive.

        If the object disappears, its run has ended.
        """
        _log.warning(
            "%s: waiting up to %.0f s to see whether another run still writes there (%s)",
            *(self._store.address, PATIENCE, found.who),
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(min(RENEWED, PATIENCE) / 4)
            now = self._read()
            if now is None:
                return False
            if now.version != found.version:
                return True
        return False

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED) and self._lost is None:
            with suppress(FfencError):  # a store that does not respond now may respond next time
                found = self._look()
                if self._lost is None:
                    write = self._store.create if found is None else self._store.write
                    write(PLACE, self._content())

    def _look(self) -> _Found | None:
        found = self._read()
        if found is not None and not self._is_own(found):
            self._lost = found
        return found

    def _is_own(self, found: _Found | None) -> bool:
        return found is not None and found.content.get("owner") == self._own["owner"]

    def _read(self) -> _Found | None:
        try:
            entry = self._store.entry(PLACE)
            data = self._store.read(PLACE, 0, entry.size)
        except MissingError:
            return None
        try:
            content = json.loads(data)
        except ValueError:
            content = {}
        return _Found(entry.version, content if isinstance(content, dict) else {})


@contextmanager
def claimed(store: Store, *, resume: bool) -> Iterator[Claim]:
    """Hold the lock on an address; see :class:`Claim`."""
    claim = Claim(store, resume=resume)
    try:
        yield claim
    finally:
        claim.end()


def _machine() -> str:
    """Return a text that differs between machines and containers with separate processes."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux: the boot, and the container's process namespace
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - the target is not a file
    return " ".join(parts)
