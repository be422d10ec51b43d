"""SSIM: the similarity of 8x8 blocks of luma in brightness, contrast and structure; 1 is identical."""

from __future__ import annotations

from ffenc.quality.metric import Metric, arithmetic_mean, printed_values

SSIM = Metric("ssim", "SSIM", "ssim", "", 4, 1.0, printed_values("ssim.Y"), arithmetic_mean)
