"""``ffenc tune``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    PresetName,
    SettingsCommand,
    SourceName,
    json_option,
    links_option,
    mapping_option,
    program_options,
    source_rate_option,
)
from ffenc.cli.display import human_bytes, human_seconds, report_console, report_table
from ffenc.cli.output import print_json
from ffenc.cli.values import EPISODES, ValueType, Whole, usage
from ffenc.cli.verdict import steps
from ffenc.errors import ConfigError, DestinationError
from ffenc.temporary import temporary_folder
from ffenc.words import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ffenc.tune.candidates import Lists
    from ffenc.tune.tuning import Tuning

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", re.ASCII)
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DEFAULT_BUDGET = "5m"


class _Duration(ValueType):
    """A duration in seconds: ``90``, ``30s``, ``5m``, ``1h``."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _DURATION.fullmatch(str(value).strip())
        if match is None or not float(match[1]) > 0:
            self.fail(f"{value!r} is not a time such as 90s, 5m or 1h", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@click.command("tune", cls=SettingsCommand)
@click.argument("source", metavar="DATASET|FRAMES|RECORDING|VIDEO", type=SourceName())
@click.option(
    "--preset",
    type=PresetName(),
    metavar="NAME|FILE",
    help="Also try the settings of this robot preset, and vary them.",
)
@click.option(
    "--target",
    metavar="WHAT=VALUE",
    help="Search for the crf that reaches this: vmaf=95, ssim=0.98, psnr=40 or xpsnr=40 (dB), size=4kB "
    "(per frame) or size=5% (of the source) [default: try the usual crf, and choose for vmaf=95].",
)
@click.option(
    "--budget",
    type=_Duration(),
    default=_DEFAULT_BUDGET,
    show_default=True,
    help="Stop trying further settings after this time, such as 90s, 5m or 1h.",
)
@click.option("--cameras", metavar="A,B", help="Measure only these cameras [default: all].")
@click.option(
    "--episodes", type=EPISODES, metavar="0,2,5-9", help="Sample only these episodes [default: all]."
)
@source_rate_option
@mapping_option("the preset's, or that of a known layout", note="For recordings: ")
@click.option("--vcodec", metavar="A,B", help="Codecs to try [default: the usual ones that run here].")
@click.option(
    "--encoder-preset", metavar="A,B", help="Encoder presets to try, such as 12,10 or veryfast,medium."
)
@click.option("--crf", metavar="A,B|FIRST:LAST:STEP", help="Values of crf to try, such as 18:36:4.")
@click.option(
    "--g", "groups", metavar="A,B", help="Key frame intervals to try, in frames, such as 1,2,10,30."
)
@click.option("--pix-fmt", metavar="A,B", help="Pixel formats to try, such as yuv420p,yuv444p.")
@click.option("--fast-decode", metavar="A,B", help="Values of fast_decode to try: 0,1,2.")
@click.option(
    "--stretches",
    type=Whole(1, 64),
    default=4,
    show_default=True,
    help="Number of stretches of consecutive frames to sample from each camera.",
)
@click.option(
    "--length",
    type=Whole(2, 3000),
    help="Frames per stretch [default: 60, or twice the longest g].",
)
@click.option("--write", type=PathName(), metavar="FILE.yaml", help="Write the recommendation as a preset.")
@click.option(
    "--report", type=PathName(), metavar="FILE.html", help="Write an HTML page with plots and frames."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files of --write and --report.")
@links_option
@json_option
@program_options
def command(
    source: str,
    preset: str | None,
    target: str | None,
    budget: float,
    cameras: str | None,
    episodes: str | None,
    fps: str | None,
    mapping: str | None,
    vcodec: str | None,
    encoder_preset: str | None,
    crf: str | None,
    groups: str | None,
    pix_fmt: str | None,
    fast_decode: str | None,
    stretches: int,
    length: int | None,
    write: str | None,
    report: str | None,
    overwrite: bool,
    follow_links: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    overrides: list[tuple[tuple[str, ...], Any]],
) -> None:
    """Choose encoder settings by measuring them on your own frames.

    Short stretches of each camera are encoded with each candidate, read back and measured: size, quality
    against the source's pixels, and the time that encoding and reading take. The source is only read.
    Measurements are cached, so that the next run measures only new candidates. Ctrl-C stops and shows the
    measurements so far.

    \b
    Examples:
      ffenc tune my_dataset
      ffenc tune my_dataset --preset so101 --target vmaf=95 --write my_robot.yaml --report tune.html
      ffenc tune my_dataset --vcodec h264,libsvtav1 --crf 18:36:4 --g 1,2,10,30 --budget 20m
      ffenc tune top.mp4 --target size=3kB --json
    """
    from ffenc.report.page import checked_page  # noqa: PLC0415 - keeps --help quick
    from ffenc.tune.run import tune  # noqa: PLC0415
    from ffenc.tune.search import read_target  # noqa: PLC0415

    with usage():
        lists = _lists(vcodec, encoder_preset, crf, groups, pix_fmt, fast_decode)
        goal = read_target(target) if target is not None else None
    if goal is not None and lists.crf is not None:
        raise click.UsageError("--target searches for the crf, --crf lists it: pass one of them")
    if overwrite and write is None and report is None:
        raise click.UsageError("--overwrite has no effect without --write or --report; leave it out")
    written = _writable(write, preset, overwrite=overwrite)
    page = checked_page(report, overwrite=overwrite) if report is not None else None
    with ExitStack() as closing:
        folder = Path(closing.enter_context(temporary_folder()))
        with _progress() as on_step:
            found = tune(
                source,
                folder,
                closing,
                preset=preset,
                overrides=overrides,
                target=goal,
                budget=budget,
                lists=lists,
                cameras=_names(cameras),
                episodes=episodes,
                fps=fps,
                mapping=mapping,
                stretches=stretches,
                length=length,
                follow_links=follow_links,
                ffmpeg=ffmpeg,
                ffprobe=ffprobe,
                on_step=on_step,
            )
        _show_results(found, written, page, as_json=as_json)


def _show_results(found: Tuning, written: Path | None, page: Path | None, *, as_json: bool) -> None:
    """Print the results, and write the requested preset and page; after a signal, only print them."""
    # Modules that load slowly are left out: after a signal, two seconds remain for the results.
    from ffenc.quality.measure import NO_VMAF  # noqa: PLC0415 - keeps --help quick
    from ffenc.tune.fields import tuning_fields  # noqa: PLC0415

    if found.gauge.main.name != "vmaf":
        output.warning(NO_VMAF)
    fields = tuning_fields(found)
    if as_json:
        print_json(fields)
    else:
        show(fields)
    if found.stopped == "interrupted":
        output.note("ended by a signal; measurements are kept, and the next run continues from there")
        raise KeyboardInterrupt
    say = output.note if as_json else output.summary
    if written is not None:
        from ffenc.frames.publish import published  # noqa: PLC0415
        from ffenc.tune.preset import preset_text  # noqa: PLC0415

        with published(written) as temporary:
            temporary.write_text(preset_text(found, written.parent), encoding="utf-8")
        say(f"{written}: the recommended settings; use them with --preset {written}")
    if page is not None:
        from ffenc.report.tune_page import write_tune_page  # noqa: PLC0415

        with steps() as on_page:
            write_tune_page(page, found, fields, on_step=on_page)
        say(f"{page}: open it in a browser")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _lists(
    vcodec: str | None,
    encoder_preset: str | None,
    crf: str | None,
    groups: str | None,
    pix_fmt: str | None,
    fast_decode: str | None,
) -> Lists:
    from ffenc.tune.candidates import Lists, read_list, read_numbers  # noqa: PLC0415

    def numbers(text: str | None, name: str, least: int) -> list[int] | None:
        if text is None:
            return None
        found = [int(value) for value in read_numbers(text, name, whole=True)]
        if min(found) < least:
            raise ConfigError(f"{name}: {min(found)} is not accepted", expected=f"{least} or more")
        return found

    presets = None if encoder_preset is None else read_list(encoder_preset, "--encoder-preset")
    return Lists(
        vcodec=None if vcodec is None else read_list(vcodec, "--vcodec"),
        preset=presets and [int(word) if re.fullmatch(r"-?\d+", word) else word for word in presets],
        crf=None if crf is None else read_numbers(crf, "--crf"),
        g=numbers(groups, "--g", 1),
        pix_fmt=None if pix_fmt is None else read_list(pix_fmt, "--pix-fmt"),
        fast_decode=numbers(fast_decode, "--fast-decode", 0),
    )


def _writable(write: str | None, preset: str | None, *, overwrite: bool) -> Path | None:
    from ffenc.frames.publish import check_file_in_folder  # noqa: PLC0415 - keeps --help quick

    if write is None:
        return None
    path = Path(write)
    if path.suffix not in (".yaml", ".yml"):
        raise click.UsageError(f"--write {path}: a preset is a YAML file; give a name that ends in .yaml")
    check_file_in_folder(path, overwrite=overwrite)
    if preset is not None and path.exists() and path.resolve() == Path(preset).resolve():
        raise DestinationError(f"{path} is the preset that the new one extends; choose another name")
    return path


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show the current trial, the share that is done, and the estimated remaining time."""
    began = time.monotonic()
    with steps() as say:

        def on_step(text: str, done: int, total: int) -> None:
            if total:
                spent = time.monotonic() - began
                left = f", about {human_seconds(spent / done * (total - done))} left" if done else ""
                text = f"{done} of {total}{left}; {text}"
            say(text)

        yield on_step


def show(fields: dict[str, Any]) -> None:
    console = report_console()
    for camera in fields["cameras"]:
        stretches = camera["sample"]
        episodes = len({stretch["episode"] for stretch in stretches})
        console.print(
            f"{camera['camera']}: {camera['width']}x{camera['height']}, {camera['stored']}, "
            f"{human_bytes(camera['source_bytes_per_frame'])} a frame; tried on {camera['frames']} frames in "
            f"{count(len(stretches), 'stretch', 'stretches')} of "
            f"{count(episodes, 'episode')}",
            soft_wrap=True,
        )
        if camera["candidates"]:
            console.print((_depth_table if camera["depth"] else _table)(fields, camera))
        for name, reason in camera["not_here"].items():
            if " " in name:  # settings only: this machine may lack many codecs
                console.print(f"   not tried: {name}: {reason}", soft_wrap=True)
        _recommendation(console, camera)
    console.print(_ending(fields), soft_wrap=True)


def _mark(camera: dict[str, Any], number: int) -> str:
    choice = camera["recommendation"]
    if choice is not None and choice["candidate"] == number:
        return "=>"
    return "now" if camera["candidates"][number]["present"] else ""


def _figure(value: float | None, digits: int) -> str:
    return "same" if value is None else f"{value:.{digits}f}"


def _milliseconds(row: dict[str, Any], window: str) -> str:
    times = next(iter(row["decode"].values()), None)
    return "" if times is None else f"{times[window] * 1000:.1f}"


def _settings(row: dict[str, Any]) -> str:
    """Return settings in a short form for a table: ``libsvtav1 p10 crf30 g2``."""
    short = {"preset ": "p", "crf ": "crf", "g ": "g", "fast_decode ": "fd"}
    text = str(row["label"])
    for word, brief in short.items():
        text = text.replace(f" {word}", f" {brief}")
    return text


def _grid(*columns: str) -> Table:
    table = report_table("", "settings", *columns, numbers=columns)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[-1].no_wrap = False  # may wrap if figures are long: on a busy machine reading is slow
    return table


def _table(fields: dict[str, Any], camera: dict[str, Any]) -> Table:
    metric = fields["metrics"][fields["metric"]]
    label = f"{metric['label']} mean/5%/worst"
    columns = ["B/frame", "smaller", label, "enc/s", "at once", "ms for 1/2/6"]
    table = _grid(*columns)
    for number in camera["shown"]:
        row = camera["candidates"][number]
        quality, together = row["quality"][fields["metric"]], row["encode_fps_together"]
        table.add_row(
            _mark(camera, number),
            _settings(row),
            f"{row['bytes_per_frame']:.0f}",
            f"{row['ratio']:.1f}x",
            " ".join(_figure(quality[name], metric["digits"]) for name in ("mean", "p5", "worst")),
            f"{row['encode_fps_alone'] or row['encode_fps']:.0f}",
            "" if together is None else f"{together:.0f}",
            " ".join(_milliseconds(row, window) for window in ("random_1", "window_2", "window_6")),
        )
    return table


def _depth_table(_: dict[str, Any], camera: dict[str, Any]) -> Table:
    table = _grid("B/frame", "mm error 50%/99%/max", "edges 99%", "outside", "holes")
    for number in camera["shown"]:
        row = camera["candidates"][number]
        depth = row["depth"]
        filled, made = depth["holes_filled"], depth["holes_made"]
        table.add_row(
            _mark(camera, number),
            _settings(row),
            f"{row['bytes_per_frame']:.0f}",
            " ".join(f"{depth['all'][name]:.1f}" for name in ("p50", "p99", "max")),
            f"{depth['edges']['p99']:.1f}",
            f"{depth['saturated'] * 100:.1f} %",
            f"{filled * 100:.0f}% filled" if filled else f"{made * 100:.0f}% more" if made else "kept",
        )
    return table


def _recommendation(console: Console, camera: dict[str, Any]) -> None:
    choice = camera["recommendation"]
    if choice is None:
        console.print("  nothing was measured", soft_wrap=True)
        return
    row = camera["candidates"][choice["candidate"]]
    console.print(f"=> {row['label']} {choice['reason']}", soft_wrap=True)
    suggested, present = camera["range"], camera["present_range"]
    if suggested is not None and present is not None:
        console.print(
            f"   depth is {suggested['depth_min']:g} to {suggested['depth_max']:g} m "
            f"({suggested['saturated'] * 100:.2f} % of it outside); with the current range, "
            f"{present['depth_min']:g} to {present['depth_max']:g} m, {present['saturated'] * 100:.2f} % "
            f"would saturate; {suggested['no_reading'] * 100:.1f} % of the pixels are at the sensor's limit, "
            "and come back as the range's end",
            soft_wrap=True,
        )
    console.print()


def _ending(fields: dict[str, Any]) -> str:
    tried = sum(len(camera["candidates"]) for camera in fields["cameras"])
    known = sum(row["cached"] for camera in fields["cameras"] for row in camera["candidates"])
    readers = fields["machine"]["readers"]
    text = f"{count(tried, 'candidate')} in {human_seconds(fields['seconds'])}"
    text += f", {known} of them measured before" if known else ""
    if fields["stopped"] == "budget":
        text += f"; the budget was used up before {count(fields['not_tried'], 'other')}: increase --budget"
    return f"{text}; quality by {fields['machine']['ffmpeg']}, frames read by {readers[0]}"
