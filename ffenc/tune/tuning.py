"""What came of trying settings."""

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
    """One candidate of one camera.

    Attributes:
        config: its settings.
        encoding: as they run here.
        trial: what it came to.
        present: it is what the preset, or ffenc's defaults, have now.
        alone, together: frames a second that an encoder takes for a while, by itself, and where as many run
            at once as there are cameras; None: not measured.
        seconds: that it took to measure.
    """

    config: VideoEncoderConfig
    encoding: Encoding
    trial: Trial
    present: bool = False
    alone: float | None = None
    together: float | None = None
    seconds: float = 0.0


class CameraTuning(Struct):
    """What was found for one camera.

    Attributes:
        sample: the pictures.
        rows: what was tried, in that order.
        recommendation: the row to take; None where nothing was measured.
        pareto: rows that no other beats, from the smallest to the largest file.
        shown: those of a table on one screen.
        not_here: codec, or settings -> why they do not run here.
        range: of depth, the range suggested.
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
    """What was found.

    Attributes:
        source: where the pictures are from.
        target: what was to be reached.
        asked: the target was asked for.
        metric: the name of the metric that settings are chosen by.
        cameras: each camera's.
        decoders: that reading was measured with; the first one's times count.
        gauge: measured quality.
        seconds: that it all took.
        stopped: why it ended early: "budget", "interrupted"; None: it did not.
        left: candidates that were not tried.
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
