"""Addresses of remote datasets."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace

from ffenc.arguments import checked_path
from ffenc.errors import ConfigError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_COLLAPSED = re.compile(r"(s3|gs|az|hf):/[^/]")  # an address after pathlib has normalised it
_HUB = re.compile(r"datasets/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^/@]+(?:%2F[^/@]+)*))?(/.*)?")


class Kind(Struct, frozen=True):
    """A kind of store.

    Attributes:
        what: name for messages.
        extra: ffenc's extra that installs the package for it.
        module: the package that accesses it.
        protocol: name in fsspec.
        credentials: where that package looks for credentials, for messages.
    """

    what: str
    extra: str
    module: str
    protocol: str
    credentials: str


KINDS = {
    "s3": Kind(
        *("S3", "s3", "s3fs", "s3"),
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, `aws configure`, or FSSPEC_S3_ANON=true for a public "
        "bucket",
    ),
    "gs": Kind(
        *("Google Cloud Storage", "gcs", "gcsfs", "gs"),
        "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "az": Kind(
        *("Azure Blob Storage", "azure", "adlfs", "az"),
        "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and what Azure's library finds",
    ),
    "hf": Kind(*("the Hugging Face Hub", "hub", "huggingface_hub", "hf"), "`hf auth login`, or HF_TOKEN"),
}
"""Scheme of an address -> the store; to add one, add a line here and an extra in pyproject.toml."""

EXPECTED = (
    "s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, file:///PATH or "
    "hf://datasets/USER/NAME[@REVISION]"
)


class Address(Struct, frozen=True):
    """The address of a dataset or file in a store.

    Attributes:
        scheme: ``s3``, ``gs``, ``az`` or ``hf``.
        place: ``BUCKET/PATH``; on the Hub ``USER/NAME`` or ``USER/NAME/PATH``.
        revision: on the Hub, a branch, tag or commit; None: the main branch.
    """

    scheme: str
    place: str
    revision: str | None = None

    def __str__(self) -> str:
        if self.scheme != "hf":
            return f"{self.scheme}://{self.place}"
        parts = self.place.split("/")
        at = f"@{self.revision}" if self.revision else ""
        return "/".join([f"hf://datasets/{parts[0]}", parts[1] + at, *parts[2:]])

    @property
    def kind(self) -> Kind:
        """The kind of store."""
        return KINDS[self.scheme]

    @property
    def name(self) -> str:
        """The last part of the place."""
        return self.place.rpartition("/")[2]

    @property
    def repository(self) -> str:
        """``USER/NAME`` on the Hub."""
        return "/".join(self.place.split("/")[:2])

    @property
    def fsspec_path(self) -> str:
        """The path in fsspec's file system."""
        if self.scheme != "hf":
            return self.place
        at = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        rest = self.place[len(self.repository) :]
        return f"datasets/{self.repository}{at}{rest}"

    def at(self, revision: str) -> Address:
        """Return the address at another revision."""
        return replace(self, revision=revision)

    def within(self, other: Address) -> bool:
        """Return whether it equals another address, or is inside it."""
        own, outer = f"{self.place}/", f"{other.place}/"
        return self.scheme == other.scheme and own.startswith(outer)


def is_address(name: str | Path) -> bool:
    """Return whether a name is an address of any kind, including ``file://``."""
    return isinstance(name, str) and _ADDRESS.fullmatch(name) is not None


def parse_address(name: str | Path, what: str = "source") -> Address | Path:
    """Return the address or the local path that a name stands for.

    Args:
        name: the name.
        what: the argument that it is, for errors.

    Raises:
        ConfigError: not a path, or an address of an unknown kind, without a name, or with credentials.
    """
    place = checked_path(what, name)
    match = _ADDRESS.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        if not isinstance(name, str) and _COLLAPSED.match(str(place)):
            raise ConfigError(f"{place}: pass an address as a text, not as a Path, which removes its //")
        return place
    assert isinstance(name, str)
    scheme, rest = match[1].lower(), match[2]
    if "@" in rest.partition("/")[0]:
        # The message does not repeat the address: it may contain a secret key.
        raise ConfigError(
            f"{scheme}://...: an address must not contain an account or a password; credentials "
            "are found by the "
            f"library: {KINDS[scheme].credentials if scheme in KINDS else 'see docs/remote.md'}"
        )
    if not name.isprintable():
        raise ConfigError(f"{name!r}: control characters in an address are not supported")
    if scheme == "file":
        return _local(name, rest)
    if scheme not in KINDS:
        raise ConfigError(f"{name}: addresses with {scheme}:// are not supported; supported are {EXPECTED}")
    if scheme == "hf":
        return _hub(name, rest)
    parts = rest.rstrip("/").split("/")
    if found := set(rest) & set("?#\\"):
        raise ConfigError(
            f"{name}: {min(found)!r} in an address is not supported", expected=f"{scheme}://BUCKET/PATH"
        )
    if not all(parts) or {".", ".."} & set(parts):
        raise ConfigError(f"{name} is not an address of a dataset", expected=f"{scheme}://BUCKET/PATH")
    return Address(scheme, "/".join(parts))


def _local(name: str, rest: str) -> Path:
    if not rest.startswith("/"):
        raise ConfigError(
            f"{name} is not an address", expected="file:/// and an absolute path, or the path alone"
        )
    return Path(unquote(rest))


def _hub(name: str, rest: str) -> Address:
    match = _HUB.fullmatch(rest.rstrip("/"))
    inner = (match[3] or "").strip("/") if match else ""
    if match is None or {"", ".", ".."} & set(inner.split("/") if inner else []):
        raise ConfigError(
            f"{name} is not a dataset on the Hub", expected="hf://datasets/USER/NAME[@REVISION]"
        )
    place = f"{match[1]}/{inner}" if inner else match[1]
    return Address("hf", place, match[2].replace("%2F", "/") if match[2] else None)
