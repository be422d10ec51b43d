"""The known damage of a dataset that is being read, by episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from ffenc.dataset.choice import ranges_text
from ffenc.dataset.model import EpisodeRef
from ffenc.errors import SourceError
from ffenc.spelling import call


class _Damage(Struct, frozen=True):
    """A fault.

    Attributes:
        what: the text.
        episodes: the affected episodes; empty: the lists as a whole.
        video: it affects videos, not rows.
    """

    what: str
    episodes: frozenset[int] = frozenset()
    video: bool = False


class Damage:
    """The known damage of a dataset.

    Args:
        root: the dataset.
        repairable: whether its layout can be repaired.

    Attributes:
        total: number of episodes of the dataset.
        at_videos: whether the faults that are added from now on affect videos, not rows.
    """

    def __init__(self, root: Path, *, repairable: bool) -> None:
        self._root, self._repairable = root, repairable
        self._found: list[_Damage] = []
        self.total = 0
        self.at_videos = False

    def note(self, what: str, *episodes: int) -> None:
        """Add a fault of episodes with these indices; without indices, of the lists."""
        self._found.append(_Damage(what, frozenset(episodes), self.at_videos))

    def of(self, episode: int) -> bool:
        """Return whether an episode has a fault."""
        return any(episode in one.episodes for one in self._found)

    def by_episode(self) -> dict[int, str]:
        """Return episode -> its first fault."""
        found: dict[int, str] = {}
        for one in self._found:
            for number in sorted(one.episodes):
                found.setdefault(number, one.what)
        return found

    def check(self, episodes: Sequence[EpisodeRef], *, videos: bool = True) -> None:
        """Raise the first fault of some episodes; if these are all, also faults of the lists.

        Args:
            episodes: the episodes to read.
            videos: include faults of videos.

        Raises:
            SourceError: the first fault.
        """
        numbers = frozenset(episode.index for episode in episodes)
        for one in self._found:
            if one.video and not videos:
                continue
            if one.episodes & numbers or len(numbers) == self.total:
                raise SourceError(one.what + self._without(one))

    def _without(self, damage: _Damage) -> str:
        """Return how to continue without the damaged episodes, as the end of an error; "" if not possible."""
        wrong = sorted(self.by_episode())
        if not damage.episodes or len(wrong) == self.total:
            return ""
        leave = call(
            "edit_dataset", source=self._root, destination="NEW", exclude_episodes=ranges_text(wrong)
        )
        if not self._repairable:
            return f". The other episodes have no known damage; to continue with them: {leave}"
        repair = call("repair_dataset", source=self._root, destination="NEW")
        return f". To recover what is left: {repair}; to continue with the other episodes: {leave}"
