"""Which episodes of a dataset are meant."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from ffenc.errors import ConfigError

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
                f"{what}: {part!r} is not an episode's number, nor a range such as 5-9 or 5- (to the last)"
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
        raise ConfigError(f"{what}: no episode is named")
    return sorted(numbers)


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
        told = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise ConfigError(
            f"shares {told} are {total:g} together; shares above 0 that are 1 together are expected"
        )
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
