"""Which episodes of a dataset are meant."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

from ffenc.errors import ConfigError
from ffenc.spelling import argument

Episodes = str | Sequence[int]

_RANGE = re.compile(r"\s*(\d{1,9})(?:\s*(-)\s*(\d{1,9})?)?\s*")


def chosen_episodes(chosen: Episodes, known: Sequence[int], what: str = "episodes") -> list[int]:
    """Return the numbers of the episodes that are meant, each once, in ascending order.

    Args:
        chosen: numbers, or a text of numbers and ranges, both ends included: ``0,2,5-9,20-``, where ``20-``
            reaches to the last episode.
        known: those that are there.
        what: the setting, for an error.

    Raises:
        ConfigError: none is named, a text cannot be read, or an episode is not there.
    """
    if not known:
        raise ConfigError(f"{what}: the dataset has no episodes")
    last = max(known)
    numbers: set[int] = set()
    for part in chosen.split(",") if isinstance(chosen, str) else map(str, chosen):
        match = _RANGE.fullmatch(part)
        first = int(match[1]) if match else 0
        end = first if match is None or not match[2] else int(match[3]) if match[3] else max(first, last)
        if match is None or end < first:
            raise ConfigError(
                f"{what}: {part!r} is neither an episode number nor a range such as 5-9 or 5- (to the last)"
            )
        if first > last or end > last:
            raise ConfigError(
                f"{what}: there is no episode {max(first, end)}; there are {min(known)} to {last}"
            )
        numbers.update(range(first, end + 1))
    lacking = sorted(numbers - set(known))
    if lacking:
        raise ConfigError(f"{what}: there is no episode {lacking[0]}; there are {min(known)} to {last}")
    if not numbers:
        raise ConfigError(f"{what}: no episode is selected")
    return sorted(numbers)


def ranges_text(numbers: Sequence[int]) -> str:
    """Return ascending numbers as :func:`chosen_episodes` takes them: ``0,2,5-9``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)


def parse_shard(text: str) -> tuple[int, int]:
    """Return what ``3/64`` means: the third of 64 shards.

    Raises:
        ConfigError: it is not of this form, or there is no such shard.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(
            f"{argument('shard', text)} is not accepted", expected="K/N, from 1/N to N/N, such as 3/64"
        )
    return number, count


def shard_bounds(lengths: Sequence[int], count: int) -> list[int]:
    """Cut episodes into shards that follow each other and have about as many frames each.

    Args:
        lengths: frames of the episodes, in order.
        count: how many shards; each gets one episode at least.

    Returns:
        ``count + 1`` positions: shard k is of the episodes from the k-th to before the next.

    Raises:
        ConfigError: there are fewer episodes than shards.
    """
    if len(lengths) < count:
        raise ConfigError(
            f"{argument('shard')}: {count} shards of {len(lengths)} episodes would leave some empty; ask for "
            f"{len(lengths)} at most"
        )
    ends = list(accumulate(lengths, initial=0))
    bounds = [0]
    for number in range(1, count):
        # The whole number nearest to its share; of two that are as near, the first.
        wanted = ends[-1] * number
        low, high = bounds[-1] + 1, len(lengths) - (count - number)
        at = bisect_left(ends, -(-wanted // count), low, high)
        if at > low and wanted - ends[at - 1] * count <= ends[at] * count - wanted:
            at -= 1
        bounds.append(at)
    return [*bounds, len(lengths)]


def divided(
    groups: Sequence[Sequence[int]], shares: Mapping[str, float], *, seed: int = 0
) -> dict[str, list[int]]:
    """Divide episodes at random into parts; each episode is in exactly one.

    Args:
        groups: the episodes, those together that must not be parted.
        shares: name of a part -> its share of the episodes; together 1.
        seed: of the random order: the same seed gives the same parts.

    Returns:
        name -> its episodes, in ascending order.

    Raises:
        ConfigError: the shares are not 1 together, or a part would have no episode.
    """
    total = sum(shares.values())
    if not all(share > 0 for share in shares.values()) or abs(total - 1) > 1e-6:
        listed = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise ConfigError(f"shares {listed} add up to {total:g}", expected="shares above 0 that add up to 1")
    shuffled = [list(group) for group in groups]
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - repeatable, not secret
    count = sum(map(len, shuffled))
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for group in shuffled:
        # The part that lacks most of what it should have; the first of several.
        name = max(parts, key=lambda one: shares[one] * count - len(parts[one]))
        parts[name] += group
    for name, numbers in parts.items():
        if not numbers:
            raise ConfigError(
                f"{name}={shares[name]:g} of {len(groups)} would have no episode; give it a larger share"
            )
    return {name: sorted(numbers) for name, numbers in parts.items()}
