"""PSNR: the mean squared error of luma, in decibels below the peak value of 255."""

from __future__ import annotations

import math

from ffenc.quality.metric import Metric, mean_of_errors, printed_values

PSNR = Metric("psnr", "PSNR", "psnr", "dB", 1, math.inf, printed_values("psnr.psnr.y"), mean_of_errors)
