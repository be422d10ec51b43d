"""CRC-32 with libdeflate if it is installed, which is several times faster than zlib."""

from __future__ import annotations

try:
    from deflate import crc32
except ImportError:
    from zlib import crc32  # type: ignore[assignment]  # other names of parameters

__all__ = ["crc32"]
