"""Images in messages of a topic, in the order of the frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.mapping import CameraMapping
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.dataset.sources.ros_messages import frame_of
from ffenc.errors import SourceError
from ffenc.frames.sources import EncodedFrame, files_fingerprint

_HELD = 64  # messages that wait for earlier frames, if stamps and recording order differ


class MessageFrames:
    """A topic's messages as a frame source, one message per frame.

    Args:
        bag, topic: the recording and its topic.
        picks: index of the message for each frame.
        received: time of recording of each message of the topic.
        camera: mapping of the camera.
    """

    def __init__(
        self,
        bag: Bag,
        topic: str,
        picks: npt.NDArray[np.int64],
        received: npt.NDArray[np.int64],
        camera: CameraMapping,
    ) -> None:
        self._bag, self._topic, self._picks = bag, topic, picks
        self._received, self._camera = received, camera

    def __len__(self) -> int:
        return len(self._picks)

    def __iter__(self) -> Iterator[EncodedFrame]:
        wanted = np.unique(self._picks)
        waiting: dict[int, EncodedFrame] = {}
        place = 0
        for number, message in numbered(self._bag, self._topic, wanted, self._received):
            name = f"{self._bag.path}: {self._topic}, message {number}"
            waiting[number] = frame_of(message, self._camera, name)
            while place < len(self) and (pick := int(self._picks[place])) in waiting:
                yield waiting[pick]
                place += 1
            later = set(self._picks[place : place + 2 * _HELD].tolist())
            waiting = {one: frame for one, frame in waiting.items() if one in later}
            if len(waiting) > _HELD:
                raise SourceError(
                    f"{self._bag.path}: {self._topic}: more than {_HELD} messages are out of "
                    "order by their timestamps; write stamps: received under time in the mapping"
                )
        if place < len(self):
            raise SourceError(f"{self._bag.path}: {self._topic}: has fewer messages than when it was opened")

    def fingerprint(self) -> str:
        digest = hashlib.sha256(
            self._picks.tobytes() + json.dumps(self._camera.as_plain()).encode()
        ).hexdigest()
        return f"{files_fingerprint(self._bag.files)} {self._topic} {digest}"


def numbered(
    bag: Bag, topic: str, wanted: npt.NDArray[np.int64], received: npt.NDArray[np.int64]
) -> Iterator[tuple[int, Any]]:
    """Yield decoded messages of a topic, with their indices.

    Args:
        bag, topic: the recording and its topic.
        wanted: indices of the messages, ascending.
        received: time of recording of each message of the topic.
    """
    begin, number = None, 0
    # The files of a bag are read one after another, so the times may descend from one to the next.
    if bag.ordered and len(wanted) and (np.diff(received) >= 0).all():
        begin = int(received[wanted[0]])
        number = int(np.searchsorted(received, begin, side="left"))
    take, last = set(wanted.tolist()), int(wanted[-1]) if len(wanted) else -1
    for raw in bag.messages([topic], begin):
        if number in take:
            yield number, bag.decoded(raw)
        if number >= last:
            return
        number += 1
