"""CRC-32 with ISA-L if it is installed, which is several times faster than zlib."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
