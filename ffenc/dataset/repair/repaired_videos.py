"""Videos of a damaged dataset in a form that can be cut and read: filled up, on the grid, repeated."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.framerate import frame_ticks
from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.info_block import recorded_settings
from ffenc.dataset.repair.repeated import repeated_rows, shown_frames, write_shown
from ffenc.dataset.repair.salvage import Salvage
from ffenc.dataset.repair.salvage_files import Action
from ffenc.dataset.repair.salvage_rows import Found, Place
from ffenc.dataset.staging import write_json
from ffenc.errors import FfencError
from ffenc.ffmpeg.boxes import missing_bytes
from ffenc.ffmpeg.join import Joined, copy_complete, cut_file, join_files
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.info_json import feature_block
from ffenc.frames.prepare_clip import prepare_clip
from ffenc.frames.publish import published
from ffenc.frames.sources import files_fingerprint
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.frames.transcode import transcode
from ffenc.layout import TIME_TOLERANCE


class Repeated(Struct, frozen=True):
    """An episode's video with repeated frames: its place, and the rows that repeat the previous frame."""

    place: Place
    rows: list[tuple[int, int]]


class SoundVideos:
    """Makes intact files of a dataset's videos.

    Args:
        left: the readable parts of the dataset.
        pieces: folder in which the files are kept for the next run.
        programs: FFmpeg programs.

    Attributes:
        taken: names of files of an earlier run that this one has used.
        repeated: (episode, camera) -> rows with damaged frames, and the file with repeated frames.
    """

    def __init__(self, left: Salvage, pieces: Path, programs: Sequence[Toolchain]) -> None:
        self._left, self._made, self._programs = left, pieces / "made", programs
        self._earlier = {path.name for path in self._made.glob("*.json")}
        self.taken: set[str] = set()
        self._good: dict[Path, tuple[Path, StreamInfo]] = {}
        self._apart: dict[tuple[Path, tuple[int, int]], Path] = {}
        self.repeated: dict[tuple[int, str], tuple[frozenset[int], Repeated]] = {}

    def with_repeats(self, one: Found, key: str, bad: frozenset[int]) -> Repeated:
        """Return a file of an episode in which missing and damaged frames repeat the previous frame.

        Args:
            one: the episode.
            key: the camera.
            bad: rows with damaged frames; others may be missing.
        """
        known = self.repeated.get((one.number, key))
        if known is not None and known[0] == bad:
            return known[1]
        place, fps = one.videos[key], self._left.fps
        path, info = self.sound_file(key, place.path, {place.path})
        places = [other.videos[key] for other in self._left.episodes if key in other.videos]
        others = [other.first for other in places if other.path == place.path]
        end = min((first for first in others if first > place.first), default=info.frames)
        clip = Clip(path, info, place.first, min(end - place.first, one.length))
        shown = shown_frames(clip, one.length, fps, bad)
        config = self._settings(key, info, path)

        def write(output: Path) -> str:
            write_shown(clip, shown, config, fps, output, self._programs)
            return "frames are repeated"

        output, _ = self._piece(["repeated", path, clip.first, shown, repr(config)], write)
        found = probe(output, times=True, ffprobe=self._programs[0].ffprobe)
        self._good[output] = (output, found)
        repeated = Repeated(Place(output, 0, one.length), repeated_rows(shown))
        self.repeated[one.number, key] = (bad, repeated)
        return repeated

    def apart(self, key: str, place: Place, run: tuple[int, int]) -> Place:
        """Return the place of an episode in a copy of the part of its file in which there is no damage.

        FFmpeg decodes some packets of each file that it opens, and decoders read on after the requested
        frames: damage elsewhere in the file would be an error.

        Args:
            key: the camera.
            place: where the episode is.
            run: the first frame, and the one after the last, of consecutive frames without damage.
        """
        fps, program = self._left.fps, self._programs[0]
        path, info = self.sound_file(key, place.path, {place.path})
        first, end = run
        assert info.places is not None
        if first not in (info.closed or ()) or max(info.places[first:end]) >= end:
            return place

        def write(output: Path) -> str:
            cut_file(
                *(path, output),
                first=first,
                frames=end - first,
                fps=fps,
                tag=info.tag,
                toolchain=program,
                damaged=True,
            )
            return "its packets are copied"

        if (path, run) not in self._apart:
            output, _ = self._piece(["apart", path, first, end], write)
            self._good[output] = (output, probe(output, times=True, ffprobe=program.ffprobe))
            self._apart[path, run] = output
        return Place(self._apart[path, run], place.first - first, place.whole)

    def sound_file(self, key: str, path: Path, cut: Collection[Path]) -> tuple[Path, StreamInfo]:
        """Return a file whose frames are on the grid: the file itself, or a copy.

        A file with a damaged episode keeps its times, which show where frames are missing.
        """
        if path in self._good:
            return self._good[path]
        info, off = self._left.streams[path], self._left.off_grid(path)
        self._good[path] = (path, info)
        place = path.relative_to(self._left.root).as_posix()
        if missing := missing_bytes(path):
            whole, _ = self._piece(["complete", path], lambda whole: self._complete(path, info, whole))
            what = f"is cut short, {missing:,} bytes are missing at its end: the frames in them are lost"
            self._left.say(Action(what, None, key, place))
            self._good[path] = (whole, probe(whole, times=True, ffprobe=self._programs[0].ffprobe))
        elif (off > TIME_TOLERANCE / 2 or self._left.misleads(path)) and path not in cut:
            parts = ["on grid", path, feature_block(self._left.info["features"][key])]
            copy, how = self._piece(parts, lambda copy: self._regridded(key, path, info, copy))
            self._left.say(
                Action(
                    f"its frames are up to {off * 1000:.1f} ms off the frame rate, which is "
                    f"{float(info.fps):.6g} on average; {how}",
                    *(None, key, place),
                )
            )
            self._good[path] = (copy, probe(copy, times=True, ffprobe=self._programs[0].ffprobe))
        return self._good[path]

    def _settings(self, key: str, info: StreamInfo, path: Path) -> VideoEncoderConfig:
        """Return the settings of a camera's video."""
        block = feature_block(self._left.info["features"][key])
        return recorded_settings(info, block, info.pix_fmt in DEPTH_FORMATS, path)

    def _piece(self, parts: Sequence[Any], write: Callable[[Path], str]) -> tuple[Path, str]:
        """Write a file, unless an earlier run has; return it, with a description of how it was made.

        Args:
            parts: all that determines its bytes: operation, source file, and so on.
            write: writes it, and returns the description.
        """
        done, path, *more = parts
        versions = [str(program.version) for program in self._programs]
        asked = json.dumps([done, files_fingerprint([path]), str(self._left.fps), versions, *more])
        output = self._made / f"{hashlib.sha256(asked.encode()).hexdigest()}.mp4"
        record = output.with_suffix(".json")
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            known = json.loads(record.read_text(encoding="utf-8"))
            if known["sha256"] == file_checksum(output):
                self.taken |= {record.name} & self._earlier
                return output, str(known["how"])
        record.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        with published(output) as temporary:
            how = write(temporary)
        write_json(record, {"sha256": file_checksum(output), "how": how})
        return output, how

    def _complete(self, path: Path, info: StreamInfo, whole: Path) -> str:
        """Write a copy of the frames of a truncated file, of which none is missing."""
        copy_complete(path, whole, info, fps=self._left.fps, toolchain=self._programs[0])
        return "its complete packets are copied"

    def _regridded(self, key: str, path: Path, info: StreamInfo, copy: Path) -> str:
        """Write a copy of a file with its frames at i / fps; return how."""
        fps, programs = self._left.fps, self._programs
        cut = copy.with_suffix(".cut.mp4")
        try:
            cut_file(path, cut, first=0, frames=info.frames, fps=fps, tag=info.tag, toolchain=programs[0])
            join_files(
                [Joined(cut, info.frames, info.decode_delay)],
                copy,
                fps=fps,
                tag=info.tag,
                toolchain=programs[0],
            )
            found = probe(copy, times=True, ffprobe=programs[0].ffprobe)
            ticks = frame_ticks(fps)
            if found.times == tuple(number * ticks for number in range(info.frames)):
                return "its packets are copied to the grid"
        except FfencError:
            pass
        finally:
            cut.unlink(missing_ok=True)
        clip = Clip(path, info, 0, info.frames)
        encoding = prepare_clip(clip, self._settings(key, info, path), fps, candidates=programs)
        transcode(encoding, clip, copy)
        return "copying cannot correct them, so it is encoded with its own settings"
