"""Addresses: what they mean, and what is refused before anything is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffenc.errors import ConfigError
from ffenc.storage.address import Address, parse_address
from ffenc.storage.hub import hub_address


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("s3://lab/a/b/", Address("s3", "lab/a/b")),
        ("S3://lab", Address("s3", "lab")),
        ("gs://lab/a b", Address("gs", "lab/a b")),
        ("az://box/x", Address("az", "box/x")),
        ("hf://datasets/me/cube", Address("hf", "me/cube")),
        ("hf://datasets/me/cube@refs%2Fpr%2F1", Address("hf", "me/cube", "refs/pr/1")),
        ("hf://datasets/me/cube@v3.0/sub", Address("hf", "me/cube/sub", "v3.0")),
        ("file:///data/my%20set", Path("/data/my set")),
        ("data/set", Path("data/set")),
        (Path("x"), Path("x")),
    ],
)
def test_what_an_address_means(name: str | Path, meant: object) -> None:
    assert parse_address(name) == meant


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://x.org/a", "https:// are not supported"),
        ("ftp://x/a", "expected|are"),
        ("s3://", "expected s3://BUCKET/PATH"),
        ("s3://lab//a", "expected s3://BUCKET/PATH"),
        ("s3://lab/../a", "expected s3://BUCKET/PATH"),
        ("s3://lab/a?x=1", "expected s3://BUCKET/PATH"),
        ("s3://lab/a#1", "'#' in an address is not supported"),
        ("s3://lab/a\nb", "control characters"),
        ("hf://me/cube", "expected hf://datasets/USER/NAME"),
        ("hf://datasets/me", "expected hf://datasets/USER/NAME"),
        ("file://host/x", "expected file:///"),
        (Path("s3://lab/a"), "as a text"),
    ],
)
def test_what_is_refused(name: str | Path, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_address(name)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="must not contain an account or a password") as caught:
        parse_address("s3://AKIA123:s3cr3t@lab/a")
    assert "AKIA123" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["s3://lab/a/b", "hf://datasets/me/cube@v2.1/sub", "hf://datasets/me/cube"]
)
def test_an_address_is_shown_as_it_is_written(address: str) -> None:
    assert str(parse_address(address)) == address


def test_which_lies_in_which() -> None:
    outer, inner, other = (Address("s3", place) for place in ("lab/a", "lab/a/b", "lab/ab"))
    assert inner.within(outer)
    assert not outer.within(inner)
    assert not other.within(outer)


def test_a_name_on_the_hub() -> None:
    assert hub_address("me/cube@v2.1") == Address("hf", "me/cube", "v2.1")
    for wrong in ("cube", "s3://lab/a", "me/cube/x"):
        with pytest.raises(ConfigError, match="is not a dataset on the Hub"):
            hub_address(wrong)
