"""XPSNR: PSNR of luma, weighted by the visibility of errors at each place. FFmpeg 7.1 and newer."""

from __future__ import annotations

import math

from ffenc.quality.metric import Metric, mean_of_errors, printed_values

XPSNR = Metric("xpsnr", "XPSNR", "xpsnr", "dB", 1, math.inf, printed_values("xpsnr.xpsnr.y"), mean_of_errors)
