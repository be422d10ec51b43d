"""Selection of episodes."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from ffenc.errors import ConfigError
from ffenc.spelling import argument

if TYPE_CHECKING:
    from ffenc.dataset.model import EpisodeRef

Episodes = str | Sequence[int]

_RANGE = re.compile(r"\s*(\d{1,9})(?:\s*(-)\s*(\d{1,9})?)?\s*", re.ASCII)


def chosen_episodes(chosen: Episodes, known: Sequence[int], what: str = "episodes") -> list[int]:
    """Return the indices of the selected episodes, each once, in ascending order.

    Args:
        chosen: indices, or a text of indices and ranges with both ends included: ``0,2,5-9,20-``, where
            ``20-`` extends to the last episode.
        known: indices of the existing episodes.
        what: name of the setting, for errors.

    Raises:
        ConfigError: no episode is selected, the text cannot be parsed, or an episode does not exist.
    """
    if not known:
        raise ConfigError(f"{what}: the dataset has no episodes")
    if not isinstance(chosen, Iterable):
        raise ConfigError(
            f"{what}: {chosen!r} is not accepted", expected="a list of episodes, or a text such as 0,2,5-9"
        )
    last = max(known)
    numbers: set[int] = set()
    for first, given in parse_episodes(chosen, what):
        end = max(first, last) if given is None else given
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


def parse_episodes(chosen: Episodes, what: str = "episodes") -> list[tuple[int, int | None]]:
    """Return the first and last index of each part of a selection; None: to the last episode.

    Args:
        chosen, what: as for :func:`chosen_episodes`.

    Raises:
        ConfigError: a part cannot be parsed.
    """
    found: list[tuple[int, int | None]] = []
    for part in chosen.split(",") if isinstance(chosen, str) else map(str, chosen):
        match = _RANGE.fullmatch(part)
        if match is None or (match[3] and int(match[3]) < int(match[1])):
            raise ConfigError(
                f"{what}: {part!r} is neither an episode number nor a range such as 5-9 or 5- (to the last)"
            )
        first = int(match[1])
        found.append((first, first if not match[2] else int(match[3]) if match[3] else None))
    return found


def ranges_text(numbers: Sequence[int]) -> str:
    """Return ascending indices as a text for :func:`chosen_episodes`: ``0,2,5-9``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``3/64``: the third of 64 shards.

    Raises:
        ConfigError: the text has another form, or there is no such shard.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", str(text), re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(
            f"{argument('shard', text)} is not accepted", expected="K/N, from 1/N to N/N, such as 3/64"
        )
    return number, count


def picked_episodes(
    known: Sequence[EpisodeRef], chosen: Episodes | None, shard: str | None
) -> list[EpisodeRef]:
    """Return the selected episodes, or one shard of them, in their order.

    Args:
        known: the existing episodes.
        chosen: as for :func:`chosen_episodes`; None: all.
        shard: as for :func:`parse_shard`; None: all of them.

    Raises:
        ConfigError: an unknown episode or shard.
    """
    picked = list(known)
    if chosen is not None:
        numbers = set(chosen_episodes(chosen, [one.index for one in picked], argument("episodes")))
        picked = [one for one in picked if one.index in numbers]
    if shard is None:
        return picked
    number, count = parse_shard(shard)
    bounds = shard_bounds([one.length for one in picked], count)
    return picked[bounds[number - 1] : bounds[number]]


def shard_bounds(lengths: Sequence[int], count: int) -> list[int]:
    """Divide episodes into consecutive shards with about the same number of frames.

    Args:
        lengths: numbers of frames of the episodes, in order.
        count: number of shards; each gets at least one episode.

    Returns:
        ``count + 1`` positions: shard k consists of the episodes from position k to before position k + 1.

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
        # The end nearest to its share; of two with the same distance, the first.
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
    """Divide episodes into parts at random; each episode is in exactly one part.

    Args:
        groups: the episodes, in groups that must not be separated.
        shares: name of a part -> its share of the episodes, with a sum of 1.
        seed: seed of the random order: the same seed gives the same parts.

    Returns:
        Name -> its episodes, in ascending order.

    Raises:
        ConfigError: the sum of the shares is not 1, or a part would have no episode.
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
        # The part that lacks most of its share; of several, the first.
        name = max(parts, key=lambda one: shares[one] * count - len(parts[one]))
        parts[name] += group
    for name, numbers in parts.items():
        if not numbers:
            raise ConfigError(
                f"{name}={shares[name]:g} of {len(groups)} would have no episode; give it a larger share"
            )
    return {name: sorted(numbers) for name, numbers in parts.items()}
