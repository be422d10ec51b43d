"""A place in a bucket or on the Hub, through fsspec: listed, read and written, with retries."""

from __future__ import annotations

import base64
import errno
import hashlib
import importlib
import random
import re
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
_HUB_TRIES = 3  # of the Hub, whose library tries most calls again itself
FIRST_WAIT = 0.5  # seconds; each following wait is twice as long, and up to half as long again by chance
BLOCK = 8 << 20  # bytes that are asked for at once
PART = 64 << 20  # bytes of a part of an upload
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}  # seconds
_LONGEST = 300  # characters of a library's own words

# Of errors that pass: names of exceptions of the libraries' and of those they are made of, and numbers.
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
    """There is nothing at a place."""


class ShortError(ConnectionError):
    """Fewer bytes came than were asked for."""


class Entry(Struct, frozen=True):
    """What a store says of a file.

    Attributes:
        size: bytes.
        version: another text whenever the file was written again.
        changed: when it was, in seconds since 1970; 0 where that is not known.
        md5, sha256: of its bytes, in hexadecimal digits; None where the store does not say.
    """

    size: int
    version: str
    changed: float
    md5: str | None = None
    sha256: str | None = None

    def differs(self, path: Path) -> bool | None:
        """Whether a local file is another; None where only its size could be compared, which is the same."""
        if path.stat().st_size != self.size:
            return True
        for algorithm, known in (("sha256", self.sha256), ("md5", self.md5)):
            if known is not None:
                return file_hash(path, algorithm) != known
        return None


def file_hash(path: Path, algorithm: str) -> str:
    """Return a hash of a file in hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Store:
    """The files at an address and below it.

    Args:
        address: where.
        writes: it is one to write to; its errors are DestinationErrors then.

    Raises:
        ConfigError: the package that it needs is not installed.
    """

    def __init__(self, address: Address, *, writes: bool = False) -> None:
        self.address = address
        self._error: type[FfencError] = DestinationError if writes else SourceError
        self._fs = _file_system(address)
        self._base = address.fsspec_path

    def entries(self) -> dict[str, Entry]:
        """List the files: place below the address -> what is said of it; hidden ones are left out.

        Where the address is of a file, its name is the only place. Empty where there is nothing.
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
                continue  # a mark that stands for a folder
            if not any(part.startswith(".") for part in place.split("/")):
                listed[place] = _entry(info)
        return listed

    def entry(self, place: str) -> Entry:
        """Ask for one file.

        Raises:
            MissingError: it is not there.
        """
        name = self._name(place)
        return _entry(self._attempt(f"asked for {place}", lambda: self._fs.info(name)))

    def read(self, place: str, start: int, end: int) -> bytes:
        """Read a stretch of a file.

        Raises:
            MissingError: it is not there any more.
        """

        def read() -> bytes:
            data: bytes = self._fs.cat_file(self._name(place), start=start, end=end)
            if len(data) != end - start:
                raise ShortError(f"{len(data)} bytes came of {end - start}")
            return data

        return self._attempt(f"read {place}", read)

    def put(self, path: Path, place: str) -> Entry:
        """Write a local file, and check what the store has then: size, and checksum where it says one.

        Returns:
            what it says of it.

        Raises:
            FfencError: it cannot be written, or is not what was sent.
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
            False if it existed, and was left as it is. A store without conditional puts overwrites it.
        """

        def create() -> bool:
            try:
                self._fs.pipe_file(self._name(place), data, mode="create")
            except FileExistsError:
                return False
            return True

        return self._attempt(f"written {place}", create)

    def write(self, place: str, data: bytes) -> None:
        """Write a small file, whatever is there."""
        self._attempt(f"written {place}", lambda: self._fs.pipe_file(self._name(place), data))

    def same(self, path: Path, place: str, found: Entry) -> bool:
        """Whether a store's own checksum says that it has a local file's bytes at a place."""
        if found.size != path.stat().st_size:
            return False
        if self.address.scheme == "s3" and "-" in found.version:
            return found.version == _multipart(path)
        return found.differs(path) is False

    def _reads_back(self, path: Path, place: str, found: Entry) -> bool:
        """Whether a file is a local one, by reading it: a bucket's own encryption makes another checksum."""
        if found.size != path.stat().st_size:
            return False
        with path.open("rb") as file:
            return all(
                file.read(end - start) == self.read(place, start, end)
                for start, end in blocks([(0, found.size)], BLOCK)
            )

    def remove(self, place: str) -> None:
        """Delete a file; one that is gone is as well."""
        try:
            self._attempt(f"deleted {place}", lambda: self._fs.rm_file(self._name(place)))
        except MissingError:
            return

    def _check_bucket(self) -> None:
        """Refuse a bucket that is not there, where one that is empty looks the same."""
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
    """Do something with a store, again and again where an error passes.

    Args:
        address: where, for a message.
        what: what cannot be done, for a message: "cannot be" and this.
        action: does it.
        kind: of the error.

    Raises:
        MissingError: there is no such file.
        FfencError: an error that does not pass, or that did not.
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
            if not passes(error) or wait is None:
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
    if passes(error):
        return f"{where}: tried {tries} times: {said(error)}. Finished work is kept; try again later"
    return f"{where}: {said(error)}"


def waits(tries: int = TRIES) -> Iterator[float | None]:
    """Yield how many seconds to wait after each try that fails; None after the last."""
    for number in range(tries - 1):
        yield FIRST_WAIT * 2**number * (1 + random.random() / 2)  # noqa: S311 - so that not all come at once
    yield None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def status_of(error: BaseException) -> int | None:
    """The status of an answer over HTTP that an error is of."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
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
    """Whether an error may be gone in a moment: a lost connection, a busy server, throttling."""
    for one in _chain(error):
        if isinstance(one, PermissionError):
            return False
        if _kinds(one) & _PASSING or status_of(one) in _STATUS:
            return True
        if isinstance(one, OSError) and one.errno in _BUSY:
            return True
    return False


def is_missing(error: BaseException) -> bool:
    """Whether an error says that there is nothing."""
    return status_of(error) == 404 or bool(
        _kinds(error) & {"EntryNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}
    )


def is_forbidden(error: BaseException) -> bool:
    """Whether an error says that something is not allowed."""
    return any(isinstance(one, PermissionError) or status_of(one) in (401, 403) for one in _chain(error))


def lacks_credentials(error: BaseException) -> bool:
    """Whether a library has found no credentials."""
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
    """A library's own words on one line, without what is signed in an address."""
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
        # Tries are counted here, so that their number and waits are the same for every store.
        options["config_kwargs"] = {"retries": {"max_attempts": 0}, **_TIMEOUTS}
        if not fsspec.config.conf.keys() & {"s3", "s3a"}:  # what stands there may be for a session of s3fs's
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
    """Return a session whose descriptions of Amazon's services are shared.

    Each session would parse them again, which takes half of the time of a first request. Credentials and
    all else that the environment says are its own.
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
    """What fsspec's file systems say of a file, each in its own words."""
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
    """The ETag that S3 gives a file which was written in parts of :data:`PART` bytes."""
    parts = []
    with path.open("rb") as file:
        while block := file.read(PART):
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
