"""The common part of all reports: one file with style, scripts, data and images."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ffenc.errors import ConfigError
from ffenc.frames.publish import check_file_in_folder, published
from ffenc.version import VERSION

# Chart.js 4: the most used plotting library, one file, MIT licence, maintained; it has scatter, line and bar
# charts with tooltips. uPlot has a quarter of its size, but no tooltips and no bar charts of its own.
CHARTS = "vendor/chart.umd.min.js"
_HERE = Path(__file__).parent
_JPEG = 82  # quality of small pictures

# Nothing may be loaded, even if a text in the data contains an address.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@lru_cache
def _file(name: str) -> str:
    text = (_HERE / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("//# sourceMappingURL")]
    return "\n".join(lines).replace("</script", "<\\/script")


def checked_page(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return the path of a report that may be written.

    Raises:
        ConfigError: the name does not end in .html.
        DestinationError: the file exists, or its folder does not.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{target}: a page is an HTML file; choose a name that ends in .html")
    check_file_in_folder(target, overwrite=overwrite)
    return target


def write_page(
    path: Path,
    *,
    title: str,
    intro: Sequence[str],
    data: Mapping[str, Any],
    scripts: Sequence[str] = (),
    body: str = "",
    foot: Sequence[str] = (),
) -> None:
    """Write a report atomically.

    Args:
        path: the file.
        title: its title.
        intro: lines of text below the title.
        data: plain values for the scripts, as ``DATA``.
        scripts: files of this package, in order, after the common ones.
        body: HTML of the main part, already escaped.
        foot: lines of text at the end.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # "<" could end the script element, or begin a comment in it.
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    code = "".join(f"<script>{_file(name)}</script>\n" for name in scripts)
    said = "".join(f'<p class="faint">{html.escape(line)}</p>\n' for line in intro)
    ends = "".join(f'<p class="faint">{html.escape(line)}</p>\n' for line in foot)
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{_file("page.css")}
</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
{said}</header>
<main>
<noscript><p class="bad">This page needs scripts, which are disabled, to draw its charts.</p></noscript>
{body}</main>
<footer>
{ends}<p class="faint">Made by ffenc {html.escape(VERSION)}, {html.escape(when)}.</p>
</footer>
<script type="application/json" id="data">{text}</script>
{code}</body>
</html>
"""
    with published(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; texts are escaped, except for :class:`Html`."""

    def cell(text: str) -> str:
        return text if isinstance(text, Html) else html.escape(text)

    first = "".join(f"<th>{cell(text)}</th>" for text in head)
    lines = ["".join(f'<td class="text">{cell(text)}</td>' for text in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    table = f'<table class="texts"><thead><tr>{first}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="card scroll">{table}</div>\n'


class Html(str):
    """A text that already is HTML."""

    __slots__ = ()


def exact_picture(pixels: npt.NDArray[np.uint8]) -> str:
    """Return an image as a data URL: lossless WebP."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, method=3)
    return _address("webp", file)


def small_picture(pixels: npt.NDArray[np.uint8], width: int) -> str:
    """Return an image as a data URL: a JPEG of at most ``width`` pixels width."""
    image = Image.fromarray(pixels)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG)
    return _address("jpeg", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
