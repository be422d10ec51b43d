"""CRC-32 by ISA-L, which takes a fraction of zlib's time, where it is installed."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
