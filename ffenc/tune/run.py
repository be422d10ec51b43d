"""Test candidates on all cameras of a source within a time limit, and recommend one for each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ffenc.arguments import checked_path
from ffenc.codecs.codec import Codec
from ffenc.codecs.table import CODECS
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.mapping import SourceMapping
from ffenc.config.matching import check_overrides, check_preset, named
from ffenc.config.preset import RobotPreset, load_preset
from ffenc.dataset.choice import Episodes
from ffenc.errors import ConfigError, FfencError, FfencWarning, FfmpegError, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get, toolchains
from ffenc.frames.prepare import Absent
from ffenc.quality.measure import gauges
from ffenc.spelling import argument
from ffenc.tune.candidates import (
    Lists,
    candidates,
    distinct,
    label,
    middle_crf,
    tried_codecs,
)
from ffenc.tune.choice import Point, Recommendation, front, recommend, shown
from ffenc.tune.decoding import decoders
from ffenc.tune.depth import (
    depth_candidates,
    depth_label,
    depth_range,
    prepared_depth,
    recommend_depth,
    try_depth,
)
from ffenc.tune.footage import Footage, open_footage
from ffenc.tune.measure import prepared, speed_together, try_candidate
from ffenc.tune.sample import take_sample
from ffenc.tune.search import CrfSearch, Target
from ffenc.tune.tuning import CameraTuning, Row, Tuning

_TARGETS = {"vmaf": 95.0, "ssim": 0.98}  # defaults
_LOAD_SECONDS = 0.7  # duration of a speed measurement
_FINE_STEP = 0.5  # for encoders that accept fractions of crf


def tune(
    source: str | Path,
    folder: Path,
    closing: ExitStack,
    *,
    preset: str | Path | None = None,
    overrides: Sequence[tuple[tuple[str, ...], Any]] = (),
    target: Target | None = None,
    budget: float | None = None,
    lists: Lists | None = None,
    cameras: Sequence[str] | None = None,
    episodes: Episodes | None = None,
    fps: int | float | str | Fraction | None = None,
    mapping: str | Path | SourceMapping | None = None,
    stretches: int = 4,
    length: int | None = None,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
) -> Tuning:
    """Test encoder settings on a source's own frames.

    A KeyboardInterrupt during the tests ends them, and the results so far are returned.

    Args:
        source: a LeRobot dataset, a tree of frames, a recording (HDF5, zarr, bag, MCAP), or a video file.
        folder: an empty folder for the sample's frames.
        closing: closes the opened sources.
        preset: name or path of a robot preset, whose settings are tested too, and varied.
        overrides: settings that override the preset, as for :func:`ffenc.load_preset`.
        target: the target, for which crf is searched. None: usual values are tested, and the recommendation
            uses VMAF 95, or SSIM 0.98 if no ffmpeg has libvmaf.
        budget: seconds after which no test starts, except for one candidate per camera. None: no limit.
        lists: settings to test instead of the usual ones.
        cameras, episodes: those to use; None: all.
        fps: frame rate of a tree of frames or a recording; None: its own, or the preset's.
        mapping: meaning of a recording's arrays or topics, or a YAML file with it; None: the preset's, or
            that of a known layout.
        stretches, length: of the sample, see :func:`~ffenc.tune.sample.take_sample`; None: 60 frames, or
            twice the longest ``g`` to test if that is more.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_step: called with a text on the next step, the number of candidates done, and of all candidates.

    Raises:
        ConfigError: settings that no codec accepts, or a target that cannot be measured on this machine.
        SourceError: the source cannot be read.
        ToolchainError: no FFmpeg on this machine can do it.
    """
    for key, _ in overrides:
        group = key[0] in ("camera_encoder", "depth_encoder")
        if not group and not (key[0] == "cameras" and key[2:3] == ("encoder",)):
            raise ConfigError(
                f"{named(key)} would have no effect: tune only tries encoder settings, on frames "
                "as they are in the source"
            )
    return _Run(
        checked_path("source", source),
        folder,
        load_preset(preset, overrides),
        overrides,
        None if preset is None else str(preset),
        target,
        lists or Lists(),
        budget,
        toolchains(ffmpeg, ffprobe),
        on_step,
    ).run(
        closing,
        fps=fps,
        mapping=mapping,
        cameras=cameras,
        episodes=episodes,
        stretches=stretches,
        length=length,
        follow_links=follow_links,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )


class _Run:
    def __init__(
        self,
        source: Path,
        folder: Path,
        robot: RobotPreset,
        overrides: Sequence[tuple[tuple[str, ...], Any]],
        preset: str | None,
        target: Target | None,
        lists: Lists,
        budget: float | None,
        programs: Sequence[Toolchain],
        on_step: Callable[[str, int, int], None],
    ) -> None:
        self._began = time.monotonic()
        self._folder, self._robot, self._lists, self._budget = folder, robot, lists, budget
        self._overrides = overrides
        self._programs, self._on_step = programs, on_step
        found = gauges(programs)
        if not found:
            raise ToolchainError(f"no ffmpeg here has the filters ssim and psnr; {how_to_get()}")
        gauge = found[0]
        names = [metric.name for metric in gauge.metrics]
        if target is not None and target.kind not in (*names, "size"):
            raise ConfigError(
                f"{argument('target', target)}: no ffmpeg here supports it; supported are "
                f"{', '.join(names)}: use one of them as the target, or pip install 'ffenc[ffmpeg]'"
            )
        metric = gauge.main.name if target is None or target.kind == "size" else target.kind
        self._searches = target is not None
        self.result = Tuning(
            source,
            target or Target(gauge.main.name, _TARGETS[gauge.main.name]),  # type: ignore[arg-type]
            target is not None,
            metric,
            gauge,
            decoders(programs[0]),
            preset,
        )
        self._cancellation = Cancellation()
        self._absent: Absent = {}
        self._spent: dict[str, list[float]] = {}
        self._found: dict[tuple[str, str], float] = {}
        self._done = self._total = 0

    def run(self, closing: ExitStack, *, stretches: int, length: int | None, **source: Any) -> Tuning:
        self._on_step("looking at the source", 0, 0)
        usual = None if self.result.preset is None else self._robot.fps
        footage = open_footage(
            self.result.source, closing, usual_fps=usual, usual_mapping=self._robot.source, **source
        )
        self._check(footage)
        wanted = length or max(60, 2 * max(self._lists.g or (30,)))
        for camera in footage:
            sample = take_sample(
                camera,
                self._folder,
                stretches=stretches,
                length=wanted,
                on_step=lambda text: self._on_step(text, 0, 0),
            )
            self.result.cameras.append(CameraTuning(sample))
        try:
            self._try_all()
        except KeyboardInterrupt:
            self.result.stopped = "interrupted"
        self._choose()
        if self.result.stopped != "interrupted":
            try:
                self._measure_together()
            except KeyboardInterrupt:
                self.result.stopped = "interrupted"
        self.result.seconds = time.monotonic() - self._began
        return self.result

    def _check(self, footage: Sequence[Footage]) -> None:
        """Reject settings of unknown cameras, and settings without effect."""
        cameras = {camera.name: camera.depth for camera in footage}
        check_overrides(self._overrides, cameras)
        for key, _ in self._overrides:
            if key[0] != "depth_encoder" and getattr(self._lists, key[-1], None) is not None:
                name = "encoder_preset" if key[-1] == "preset" else key[-1]
                raise ConfigError(
                    f"{named(key)} would have no effect: {argument(name)} lists the values to try; pass one "
                    "of them"
                )
        if self.result.preset is not None and self.result.source.is_dir():
            check_preset(self._robot, cameras)
        if all(cameras.values()) and (self._lists.any or self._searches):
            raise ConfigError(
                f"lists and targets apply to colour cameras, but {', '.join(cameras)} is depth; "
                "leave them out"
            )
        for name in cameras:
            if self._robot.transform_for(name) is not None:
                warnings.warn(
                    f"{self.result.preset} transforms the frames of {name}: settings are tried on "
                    "frames as they are in the source",
                    FfencWarning,
                    stacklevel=5,
                )

    # ---- candidates ------------------------------------------------------------------------------------

    def _try_all(self) -> None:
        plans = [(camera, self._plan(camera)) for camera in self.result.cameras]
        self._total = sum(len(configs) for _, configs in plans)
        # Each candidate runs on all cameras before the next, so that at the limit all have equally many.
        for number in range(max((len(configs) for _, configs in plans), default=0)):
            for camera, configs in plans:
                if number >= len(configs):
                    continue
                if not self._fits(camera, configs[number]):
                    self.result.stopped = "budget"
                    self.result.left += 1
                    continue
                if camera.depth:
                    self._try(camera, configs[number])
                elif self._searches and self._lists.crf is None and CODECS[configs[number].vcodec].has_crf:
                    self._search(camera, configs[number])
                else:
                    self._try(camera, configs[number])
                self._done += 1
        for camera, _ in plans:
            if not camera.rows and camera.not_here:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in camera.not_here.items())
                raise ToolchainError(
                    f"none of the settings can be encoded here for {camera.sample.footage.key}: {reasons}"
                )

    def _plan(self, camera: CameraTuning) -> list[VideoEncoderConfig]:
        footage = camera.sample.footage
        base = self._robot.encoder_for(footage.key, depth=footage.depth)
        if isinstance(base, DepthEncoderConfig):
            history, camera.range = depth_range(camera.sample)
            camera.present_range = history.within(base.depth_min, base.depth_max)
            return list(depth_candidates(base, camera.range))
        self._on_step(f"{footage.name}: looking for the encoders that run here", self._done, self._total)
        codecs, camera.not_here = self._runs_here(camera)
        made = candidates(codecs, self._lists, base, search=self._searches)
        # The current settings come first: all others are compared with them.
        own = [base] if not self._lists.any and base.vcodec in {row.name for row in codecs} else []
        return distinct([*own, *made])

    def _runs_here(self, camera: CameraTuning) -> tuple[list[Codec], dict[str, str]]:
        asked = self._lists.vcodec is not None
        found, reasons = [], {}
        for row in tried_codecs(self._lists):
            extra = {"b:v": "4M"} if row.needs_bit_rate else {}
            config = VideoEncoderConfig(vcodec=row.name, extra_options=extra)
            config = config.replace(crf=middle_crf(row)) if row.has_crf else config
            try:
                prepared(camera.sample, config, self._programs, self._absent)
            except (ConfigError, ToolchainError) as error:
                if asked:
                    raise
                reasons[row.name] = error.cause
                continue
            found.append(row)
        if not found:
            raise ToolchainError(
                f"no encoder runs here for {camera.sample.footage.key}: "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            )
        return found, reasons

    def _fits(self, camera: CameraTuning, config: VideoEncoderConfig) -> bool:
        """Return whether there is time for another test, estimated from earlier ones of the same codec."""
        if self._budget is None or not camera.rows:
            return True
        times = self._spent.get(config.vcodec) or [one for spent in self._spent.values() for one in spent]
        needed = sum(times) / len(times) if times else 0.0
        return time.monotonic() - self._began + needed <= self._budget

    def _try(self, camera: CameraTuning, config: VideoEncoderConfig) -> Row | None:
        footage = camera.sample.footage
        began = time.monotonic()
        present = repr(config) == repr(self._robot.encoder_for(footage.key, depth=footage.depth))
        said = label(config)
        try:
            if isinstance(config, DepthEncoderConfig):
                encoding = prepared_depth(camera.sample, config, self._programs)
                said = depth_label(config, lossless=encoding.lossless)
                self._on_step(f"{footage.name}: {said}", self._done, self._total)
                trial = try_depth(
                    camera.sample, encoding, self.result.decoders, cancellation=self._cancellation
                )
            else:
                self._on_step(f"{footage.name}: {said}", self._done, self._total)
                encoding = prepared(camera.sample, config, self._programs, self._absent)
                trial = try_candidate(
                    *(camera.sample, encoding, self.result.gauge, self.result.decoders),
                    cancellation=self._cancellation,
                )
        except FfencError as error:
            if isinstance(error, FfmpegError) and error.unable:
                raise
            camera.not_here[said] = error.cause
            return None
        row = Row(config, encoding, trial, present, seconds=time.monotonic() - began)
        if not trial.cached:
            self._spent.setdefault(config.vcodec, []).append(row.seconds)
        camera.rows.append(row)
        return row

    def _search(self, camera: CameraTuning, config: VideoEncoderConfig) -> None:
        row = CODECS[config.vcodec]
        low, high = row.crf_range or (0, 51)
        source = camera.sample.footage.bytes_per_frame
        # The crf found with other settings of this codec is a good start.
        start = self._found.get((camera.sample.digest, config.vcodec), float(config.crf or 30))
        search = CrfSearch(
            *(self.result.target, self.result.target.limit(source), low, high, start),
            step=1 if row.integer_quality else _FINE_STEP,
        )
        while (crf := search.next()) is not None:
            wanted = config.replace(crf=crf)
            if search.found and not self._fits(camera, wanted):
                self.result.stopped = "budget"
                return
            found = self._try(camera, wanted)
            if found is None:
                return
            size = self.result.target.kind == "size"
            value = found.trial.bytes_per_frame if size else self._quality(found)
            search.add(crf, value)
            if self.result.target.met(value, source):
                self._found[camera.sample.digest, config.vcodec] = crf

    # ---- recommendations -------------------------------------------------------------------------------

    def _quality(self, row: Row) -> float:
        return row.trial.quality.summary(self.result.metric).mean

    def _read(self, row: Row) -> float:
        """Return the seconds for a random frame with the decoder that training prefers."""
        return float(next(iter(row.trial.decode.values()))["random_1"])

    def _choose(self) -> None:
        cameras = len(self.result.cameras)
        for camera in self.result.cameras:
            if not camera.rows:
                continue
            if camera.depth:
                pairs = [(row.config, row.trial) for row in camera.rows]
                number, reason = recommend_depth(pairs, camera.range)  # type: ignore[arg-type]
                camera.recommendation = Recommendation(number, True, reason)
                camera.shown = list(range(len(camera.rows)))
                continue
            points = {
                n: Point(row.trial.bytes_per_frame, self._quality(row), self._read(row), row.trial.encode_fps)
                for n, row in enumerate(camera.rows)
            }
            footage = camera.sample.footage
            camera.recommendation = recommend(
                points,
                self.result.target,
                metric=self.result.metric,
                source_bytes=footage.bytes_per_frame,
                needed_fps=float(footage.fps) * cameras,
                cameras=cameras,
            )
            camera.pareto = front(points)
            present = [n for n, row in enumerate(camera.rows) if row.present]
            camera.shown = shown(camera.pareto, [camera.recommendation.number, *present], points)

    def _measure_together(self) -> None:
        """Measure the speed of the shown candidates, alone and with one encoder for each camera."""
        cameras = len(self.result.cameras)
        for camera in self.result.cameras:
            if camera.depth or camera.recommendation is None:
                continue
            first = camera.recommendation.number
            for number in [first, *(n for n in camera.shown if n != first)]:
                row = camera.rows[number]
                over = self._budget is not None and time.monotonic() - self._began > self._budget
                if over and number != first:
                    break
                said = f"{camera.sample.footage.name}: speed of {label(row.config)}"
                self._on_step(said, self._done, self._total)
                row.alone = round(speed_together(camera.sample, row.encoding, 1, _LOAD_SECONDS), 2)
                if cameras == 1:
                    continue
                row.together = round(speed_together(camera.sample, row.encoding, cameras, _LOAD_SECONDS), 2)
                if number == first and row.together < camera.sample.footage.fps:
                    choice = camera.recommendation
                    camera.recommendation = replace(
                        choice,
                        reason=f"{choice.reason}; but {cameras} at once take in {row.together:.0f} "
                        "frames/s each, too few to record live here",
                    )
