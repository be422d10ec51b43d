"""The results of tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, field

from ffenc.config.encoder import VideoEncoderConfig
from ffenc.frames.encoding import Encoding
from ffenc.quality.depth import DepthRange
from ffenc.quality.measure import Gauge
from ffenc.tune.choice import Recommendation
from ffenc.tune.decoding import Decoder
from ffenc.tune.measure import Trial
from ffenc.tune.sample import Sample
from ffenc.tune.search import Target


class Row(Struct):
    """One candidate for one camera.

    Attributes:
        config: its settings.
        encoding: the settings, prepared for this machine.
        trial: its results.
        present: these are the current settings of the preset, or ffenc's defaults.
        alone, together: sustained frames per second of an encoder by itself, and with as many encoders at
            once as there are cameras; None: not measured.
        seconds: duration of the test.
    """

    config: VideoEncoderConfig
    encoding: Encoding
    trial: Trial
    present: bool = False
    alone: float | None = None
    together: float | None = None
    seconds: float = 0.0


class CameraTuning(Struct):
    """The results for one camera.

    Attributes:
        sample: the frames.
        rows: tested candidates, in the order of the tests.
        recommendation: the recommended row; None if nothing was measured.
        pareto: rows that no other row beats, from the smallest to the largest file.
        shown: rows for a table on one screen.
        not_here: codec or settings -> why they do not run on this machine.
        range: for depth, the suggested range.
    """

    sample: Sample
    rows: list[Row] = field(default_factory=list)
    recommendation: Recommendation | None = None
    pareto: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    not_here: dict[str, str] = field(default_factory=dict)
    range: DepthRange | None = None
    present_range: DepthRange | None = None

    @property
    def depth(self) -> bool:
        return self.sample.footage.depth


class Tuning(Struct):
    """All results.

    Attributes:
        source: path of the source.
        target: the target.
        asked: the user has given the target.
        metric: name of the metric by which settings are selected.
        cameras: results for each camera.
        decoders: decoders of the reading times; the first one's times decide.
        gauge: program and metrics of the quality.
        seconds: total duration.
        stopped: why tuning ended early: "budget" or "interrupted"; None: it did not.
        left: number of candidates that were not tested.
    """

    source: Path
    target: Target
    asked: bool
    metric: str
    gauge: Gauge
    decoders: Sequence[Decoder]
    preset: str | None = None
    cameras: list[CameraTuning] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    left: int = 0
