"""A place in a bucket or on the Hub, through fsspec: list, read and write files, with retries."""

from __future__ import annotations

import base64
import errno
import hashlib
import importlib
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from ffenc.errors import ConfigError, DestinationError, FfencError, SourceError
from ffenc.storage.address import Address
from ffenc.storage.ranges import blocks

Answer = TypeVar("Answer")

TRIES = 6
_HUB_TRIES = 3  # for the Hub, whose library retries most calls itself
FIRST_WAIT = 0.5  # seconds; doubled for each retry, plus a random share of up to half of it
BLOCK = 8 << 20  # bytes per request
PART = 64 << 20  # bytes per part of an upload
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}  # seconds
_LONGEST = 300  # characters of a library's message

# Temporary errors: names of exceptions of the libraries and those below them, and error numbers.
_PASSING = frozenset(
    "ConnectionError TimeoutError ConnectTimeoutError ReadTimeoutError EndpointConnectionError "
    "FSTimeoutError ConnectionClosedError HTTPClientError ResponseStreamingError IncompleteReadError "
    "IncompleteRead ClientPayloadError ClientConnectionError ServerDisconnectedError ChunkedEncodingError "
    "TransportError ServiceRequestError ServiceResponseError ResponseParserError ReadError "
    "ProtocolError".split()
)
_BUSY = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT, errno.ECONNRESET)
_STATUS = (408, 429, 500, 502, 503, 504)


class MissingError(Exception):
    """A file or place does not exist."""


class ShortError(ConnectionError):
    """Fewer bytes were received than requested."""


class Entry(Struct, frozen=True):
    """A store's information on a file.

    Attributes:
        size: bytes.
        version: a text that changes whenever the file is written.
        changed: time of the last write, in seconds since 1970; 0 if unknown.
        md5, sha256: hexadecimal hashes of its bytes; None if the store has none.
    """

    size: int
    version: str
    changed: float
    md5: str | None = None
    sha256: str | None = None

    def differs(self, path: Path) -> bool | None:
        """Return whether a local file differs; None if only the equal sizes can be compared."""
        if path.stat().st_size != self.size:
            return True
        for algorithm, known in (("sha256", self.sha256), ("md5", self.md5)):
            if known is not None:
                return file_hash(path, algorithm) != known
        return None


def file_hash(path: Path, algorithm: str) -> str:
    """Return a file's hash in hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Store:
    """The files at an address and below it.

    Args:
        address: the address.
        writes: it is a destination: errors are DestinationErrors.

    Raises:
        ConfigError: the required package is not installed.
    """

    def __init__(self, address: Address, *, writes: bool = False) -> None:
        self.address = address
        self._error: type[FfencError] = DestinationError if writes else SourceError
        self._fs = _file_system(address)
        self._base = address.fsspec_path

    def entries(self) -> dict[str, Entry]:
        """List the files: path below the address -> information; without hidden files.

        If the address is of a file, its name is the only path. Empty if nothing exists there.
        """
        try:
            found = self._attempt("listed", lambda: self._fs.find(self._base, detail=True))
        except MissingError:
            found = {}
        if not found:
            self._check_bucket()
        if set(found) == {self._base}:
            self._base = self._base.rpartition("/")[0]
        listed = {}
        for name, info in sorted(found.items()):
            place = name.removeprefix(self._base).lstrip("/")
            if not place or name.endswith("/") or info.get("type") == "directory":
                continue  # an object that stands for a folder
            if not any(part.startswith(".") for part in place.split("/")):
                listed[place] = _entry(info)
        return listed

    def entry(self, place: str) -> Entry:
        """Return a file's information.

        Raises:
            MissingError: the file does not exist.
        """
        name = self._name(place)
        return _entry(self._attempt(f"asked for {place}", lambda: self._fs.info(name)))

    def read(self, place: str, start: int, end: int) -> bytes:
        """Read a range of a file.

        Raises:
            MissingError: the file no longer exists.
        """

        def read() -> bytes:
            data: bytes = self._fs.cat_file(self._name(place), start=start, end=end)
            if len(data) != end - start:
                raise ShortError(f"{len(data)} bytes came of {end - start}")
            return data

        return self._attempt(f"read {place}", read)

    def put(self, path: Path, place: str) -> Entry:
        """Write a local file, and check the result's size, and its checksum if the store has one.

        Returns:
            The store's information on it.

        Raises:
            FfencError: it cannot be written, or the result differs.
        """
        try:
            self._attempt(
                f"written {place}", lambda: self._fs.put_file(str(path), self._name(place), **self._parts())
            )
            found = self.entry(place)
            if not self.same(path, place, found) and not self._reads_back(path, place, found):
                raise self._error(
                    f"{self.address}/{place}: is not what was sent: {found.size:,} bytes there, "
                    f"{path.stat().st_size:,} were sent"
                )
        except MissingError as error:
            raise self._error(f"{self.address}/{place}: cannot be written: {error}") from None
        return found

    def create(self, place: str, data: bytes) -> bool:
        """Create a small file if it does not exist (a conditional put).

        Returns:
            False if it exists, which is then unchanged. A store without conditional puts overwrites it.
        """

        def create() -> bool:
            try:
                self._fs.pipe_file(self._name(place), data, mode="create")
            except FileExistsError:
                return False
            return True

        return self._attempt(f"written {place}", create)

    def write(self, place: str, data: bytes) -> None:
        """Write a small file, replacing any that exists."""
        self._attempt(f"written {place}", lambda: self._fs.pipe_file(self._name(place), data))

    def same(self, path: Path, place: str, found: Entry) -> bool:
        """Return whether a file in the store equals a local one, by the store's checksum."""
        if found.size != path.stat().st_size:
            return False
        if self.address.scheme == "s3" and "-" in found.version:
            return found.version == _multipart(path)
        return found.differs(path) is False

    def _reads_back(self, path: Path, place: str, found: Entry) -> bool:
        """Return whether a file equals a local one by reading it: with encryption the checksum may differ."""
        if found.size != path.stat().st_size:
            return False
        with path.open("rb") as file:
            return all(
                file.read(end - start) == self.read(place, start, end)
                for start, end in blocks([(0, found.size)], BLOCK)
            )

    def remove(self, place: str) -> None:
        """Delete a file, if it exists."""
        try:
            self._attempt(f"deleted {place}", lambda: self._fs.rm_file(self._name(place)))
        except MissingError:
            return

    def _check_bucket(self) -> None:
        """Reject a bucket that does not exist, as listing it looks like an empty one."""
        if self.address.scheme == "s3":
            bucket, _, prefix = self._base.partition("/")
            asked = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1}
            self._attempt("listed", lambda: self._fs.call_s3("list_objects_v2", **asked))

    def _name(self, place: str) -> str:
        return f"{self._base}/{place}"

    def _parts(self) -> dict[str, Any]:
        return {"chunksize": PART} if self.address.scheme in ("s3", "gs") else {}

    def _attempt(self, what: str, action: Callable[[], Answer]) -> Answer:
        return attempt(self.address, what, action, self._error)


def attempt(address: Address, what: str, action: Callable[[], Answer], kind: type[FfencError]) -> Answer:
    """Call a function that accesses a store, with retries after temporary errors.

    Args:
        address: the address, for messages.
        what: past participle for messages: "cannot be" and this.
        action: the function.
        kind: type of the raised error.

    Raises:
        MissingError: the file does not exist.
        FfencError: a permanent error, or a temporary one after all retries.
    """
    tries = list(waits(_HUB_TRIES if address.scheme == "hf" else TRIES))
    for wait in tries:
        try:
            return action()
        except FfencError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            if re.search("(bucket|container) does not exist", str(error), re.IGNORECASE):
                raise kind(f"{address}: there is no such bucket: {said(error)}") from None
            raise MissingError(said(error)) from None
        except Exception as error:
            if is_missing(error):
                raise MissingError(said(error)) from None
            if not passes(error) or wait is None or (address.scheme == "hf" and _is_offline(error)):
                raise kind(_words(address, what, error, len(tries))) from None
            time.sleep(wait)
    raise AssertionError


def _words(address: Address, what: str, error: Exception, tries: int) -> str:
    where, store = f"{address}: cannot be {what}", address.kind
    if lacks_credentials(error):
        return f"{where}: no credentials for {store.what} are found: {store.credentials}"
    if is_forbidden(error):
        return (
            f"{where}: permission is denied: {said(error)}. Credentials are those that {store.module} "
            f"finds: {store.credentials}"
        )
    if _is_offline(error):
        return f"{where}: its server's name is not found; is there a network? ({said(error)})"
    if passes(error):
        return f"{where}: tried {tries} times: {said(error)}. Finished work is kept; try again later"
    return f"{where}: {said(error)}"


def waits(tries: int = TRIES) -> Iterator[float | None]:
    """Yield the seconds to wait after each failed attempt; None after the last."""
    for number in range(tries - 1):
        yield FIRST_WAIT * 2**number * (1 + random.random() / 2)  # noqa: S311 - spreads simultaneous retries
    yield None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the response that caused an error; None if there was no response."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # from botocore
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return response if isinstance(response, int) else None
    for one in (response, error):
        for name in ("status_code", "status", "code"):
            if isinstance(status := getattr(one, name, None), int):
                return status
    return None


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def passes(error: BaseException) -> bool:
    """Return whether an error may be temporary: a lost connection, a busy server, throttling."""
    for one in _chain(error):
        if isinstance(one, PermissionError):
            return False
        if _kinds(one) & _PASSING or status_of(one) in _STATUS:
            return True
        if isinstance(one, OSError) and one.errno in _BUSY:
            return True
    return False


def _is_offline(error: BaseException) -> bool:
    """Return whether an error means that a server's name cannot be looked up."""
    return any(isinstance(one, socket.gaierror) for one in _chain(error))


def is_missing(error: BaseException) -> bool:
    """Return whether an error means that something does not exist."""
    return status_of(error) == 404 or bool(
        _kinds(error) & {"EntryNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}
    )


def is_forbidden(error: BaseException) -> bool:
    """Return whether an error means that access is denied."""
    return any(isinstance(one, PermissionError) or status_of(one) in (401, 403) for one in _chain(error))


def lacks_credentials(error: BaseException) -> bool:
    """Return whether an error means that a library has found no credentials."""
    names = {
        "NoCredentialsError",
        "PartialCredentialsError",
        "DefaultCredentialsError",
        "LocalTokenNotFoundError",
    }
    return (
        any(_kinds(one) & names for one in _chain(error))
        or "unable to connect to account" in str(error).lower()
    )


def said(error: BaseException) -> str:
    """Return a library's error message as one line, without the signatures in addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _file_system(address: Address) -> Any:
    kind = address.kind
    try:
        importlib.import_module(kind.module)
        import fsspec  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            f"{address}: {kind.what} requires the package {error.name or kind.module}: "
            f"pip install 'ffenc[{kind.extra}]'"
        ) from None
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if address.scheme == "s3":
        # ffenc retries, so that number and waits are the same for every store.
        options["config_kwargs"] = {"retries": {"max_attempts": 0}, **_TIMEOUTS}
        if not fsspec.config.conf.keys() & {"s3", "s3a"}:  # the user's settings may need a session of s3fs
            options["session"] = _s3_session()
    try:
        fs = fsspec.filesystem(kind.protocol, **options)
    except Exception as error:
        raise ConfigError(
            f"{address}: {kind.what} cannot be used: {said(error)}. Credentials are those that {kind.module} "
            f"finds: {kind.credentials}"
        ) from None
    if address.scheme == "s3":
        fs.retries = 1
    return fs


def _s3_session() -> Any:
    """Return a session that shares the descriptions of Amazon's services.

    Otherwise each session would parse them again, which takes half of the time of a first request.
    Credentials and all settings of the environment are the session's own.
    """
    from aiobotocore.session import AioSession  # noqa: PLC0415 - an extra, and slow to import

    session = AioSession()
    session.register_component("data_loader", _s3_models(session.get_config_variable("data_path")))
    return session


@lru_cache
def _s3_models(path: str | None) -> Any:
    from botocore.loaders import create_loader  # noqa: PLC0415 - an extra, and slow to import

    return create_loader(path)


def _entry(info: dict[str, Any]) -> Entry:
    """Return the information on a file, whose fields differ between fsspec's file systems."""
    version = info.get("ETag") or info.get("etag") or info.get("blob_id") or info.get("generation")
    changed = next(
        (info[name] for name in ("LastModified", "last_modified", "mtime", "updated") if info.get(name)), None
    )
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed.replace("Z", "+00:00"))
    seconds = changed.timestamp() if isinstance(changed, datetime) else float(changed or 0)
    version = str(version or seconds).strip('"')
    md5: str | None = None
    if "ETag" in info and re.fullmatch(r"[0-9a-f]{32}", version):
        md5 = version
    elif (
        encoded := info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
    ) is not None:
        raw = base64.b64decode(encoded) if isinstance(encoded, str) else bytes(encoded)
        md5 = raw.hex()
    lfs = info.get("lfs")
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
    return Entry(int(info.get("size") or 0), version, seconds, md5, sha256)


def _multipart(path: Path) -> str:
    """Return the ETag that S3 gives a file uploaded in parts of :data:`PART` bytes."""
    parts = []
    with path.open("rb") as file:
        while block := file.read(PART):
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
