"""What is wrong with a dataset that is read, and with which of its episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from ffenc.dataset.choice import ranges_text
from ffenc.dataset.model import EpisodeRef
from ffenc.errors import SourceError
from ffenc.spelling import call


class _Damage(Struct, frozen=True):
    """Something that is wrong.

    Attributes:
        what: the text.
        episodes: those that it concerns; none: the lists as a whole.
        video: it is of videos, not of rows.
    """

    what: str
    episodes: frozenset[int] = frozenset()
    video: bool = False


class Damage:
    """What is known to be wrong with a dataset.

    Args:
        root: the dataset.
        repairable: whether it is of a layout that can be repaired.

    Attributes:
        total: how many episodes the dataset has.
        at_videos: what is noted from now on is of videos, not of rows.
    """

    def __init__(self, root: Path, *, repairable: bool) -> None:
        self._root, self._repairable = root, repairable
        self._found: list[_Damage] = []
        self.total = 0
        self.at_videos = False

    def note(self, what: str, *episodes: int) -> None:
        """Note something that is wrong with episodes of these numbers; without any, with the lists."""
        self._found.append(_Damage(what, frozenset(episodes), self.at_videos))

    def of(self, episode: int) -> bool:
        """Whether something is wrong with the episode of a number."""
        return any(episode in one.episodes for one in self._found)

    def by_episode(self) -> dict[int, str]:
        """Return the episodes of which damage is known, and what the first of it is."""
        found: dict[int, str] = {}
        for one in self._found:
            for number in sorted(one.episodes):
                found.setdefault(number, one.what)
        return found

    def check(self, episodes: Sequence[EpisodeRef], *, videos: bool = True) -> None:
        """Refuse damage of some episodes; where these are all, also lists that do not fit.

        Args:
            episodes: those that are read.
            videos: damage of videos matters too.

        Raises:
            SourceError: the first damage that was found.
        """
        numbers = frozenset(episode.index for episode in episodes)
        for one in self._found:
            if one.video and not videos:
                continue
            if one.episodes & numbers or len(numbers) == self.total:
                raise SourceError(one.what + self._without(one))

    def _without(self, damage: _Damage) -> str:
        """How to go on without the damaged episodes, as the end of an error; empty where there is no way."""
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
