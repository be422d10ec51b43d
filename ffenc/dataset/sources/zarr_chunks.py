"""Determine the decompressed size of a zarr array's chunks before memory is allocated for them."""

from __future__ import annotations

import lzma
import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from ffenc.dataset.sources.image_sizes import IMAGE_CODECS, decoded_bytes
from ffenc.errors import SourceError

_MOST = 2 << 30  # bytes of a chunk, decompressed
_BLOCK = 1 << 20
# Codecs that store the decompressed size at the start of a chunk: codec -> offset and number of bytes.
_HEADED = {"blosc": (4, 4), "lz4": (0, 4)}
# Codecs that do not, with pyarrow's name: the chunk is decompressed once for its size, block by block.
_STREAMED = {
    **{"zstd": "zstd", "gzip": "gzip", "zlib": "gzip", "zlibng": "gzip", "bz2": "bz2"},
    **{"brotli": "brotli", "lz4f": "lz4"},
}
_COMPRESSING = {*_HEADED, *_STREAMED, "lzma", *IMAGE_CODECS}
# Codecs whose output is about as large as their input.
_ALIKE = {
    *("bytes", "transpose", "vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "base64"),
    *(
        "delta",
        "shuffle",
        "bitshuffle",
        "byteshuffle",
        "floatpred",
        "xor",
        "bitorder",
        "packbits",
        "packints",
    ),
    *("astype", "fixedscaleoffset", "bitround", "quantize", "categorize", "bfloat16", "float24"),
    *("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3", "checksum"),
}
# Codecs of imagecodecs that differ from those of the same name without the prefix.
_OTHER = ("imagecodecs_lz4", "imagecodecs_packbits")
_CHECKSUM = 4  # bytes of the CRC-32C after a chunk, and after a shard's index
_ABSENT = (1 << 64) - 1  # offset of a chunk that a shard does not contain
_NUMBER = re.compile(r"[0-9]+")


class Chunks(Struct, frozen=True):
    """How the chunks of an array are stored.

    Attributes:
        name: name of the array, for errors.
        shape: shape of the array.
        stored: shape of a stored file: a chunk, or a shard of several.
        chunk: shape of a chunk.
        size: bytes of a decompressed chunk.
        codec: compression codec of a chunk; None: no known compression.
        checksum: a CRC-32C follows a chunk.
        index_first: for shards, whether their index comes first; None: each file is a chunk.
        key: returns the key of a file from its position in the grid.
    """

    name: str
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    chunk: tuple[int, ...]
    size: int
    codec: str | None
    checksum: bool
    index_first: bool | None
    key: Callable[[tuple[int, ...]], str]

    def missing(self, keys: Iterable[str], read: Callable[[str, slice], bytes | None]) -> int:
        """Return the number of chunks that are not stored, as files or in a shard.

        Args:
            keys: keys of the stored files of the array; those that are not in its grid do not count.
            read: returns a part of the bytes that are stored at a key.

        Raises:
            SourceError: a shard ends before its index does.
        """
        if not self.shape:
            return 0
        wanted = math.prod(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))
        return wanted - sum(self._count(key, read) for key in keys)

    def _count(self, key: str, read: Callable[[str, slice], bytes | None]) -> int:
        """Return the number of the array's chunks that a file contains."""
        place = tuple(map(int, _NUMBER.findall(key)[-len(self.shape) :]))
        if len(place) < len(self.shape) or self.key(place) != key:
            return 0
        axes = list(zip(self.shape, self.stored, self.chunk, place, strict=True))
        # A shard at the end of an axis has places for chunks after the end, which are never stored.
        inside = [max(0, -(-min(n - p * s, s) // c)) for n, s, c, p in axes]
        if self.index_first is None or not all(inside):
            return math.prod(inside)
        size = self._index_bytes
        index = read(key, slice(size) if self.index_first else slice(-size, None))
        if index is None:
            return 0
        offsets = self._index(key, index)[:, 0].reshape([s // c for _, s, c, _ in axes])
        return int(np.count_nonzero(offsets[tuple(map(slice, inside))] != _ABSENT))

    def check(self, first: int, stop: int, read: Callable[[str], bytes | None]) -> None:
        """Reject chunks of some rows that decompress to more than a chunk's size.

        Args:
            first, stop: the rows.
            read: returns what is stored at a key; None if nothing is.

        Raises:
            SourceError: a chunk is too large.
        """
        if self.codec is None or not self.shape:
            return
        rows = range(first // self.stored[0], -(-min(stop, self.shape[0]) // self.stored[0]))
        others = (range(-(-n // c)) for n, c in zip(self.shape[1:], self.stored[1:], strict=True))
        for place in product(rows, *others):
            key = self.key(place)
            data = read(key)
            if data is None:
                continue
            for packed in self._chunks_in(key, memoryview(data)):
                own = packed[:-_CHECKSUM] if self.checksum else packed
                if self.codec in IMAGE_CODECS:
                    self._check_image(key, own)
                elif _unpacked(self.codec, own, self.size) > self.size:
                    raise SourceError(
                        f"{self.name}: {key} becomes more than the {self.size:,} bytes that a chunk has: it "
                        "is damaged, or made to exhaust memory"
                    )

    def _check_image(self, key: str, packed: memoryview) -> None:
        """Reject an image that is larger than a chunk, or whose size is unknown."""
        assert self.codec is not None
        try:
            found = decoded_bytes(self.codec, packed)
        except ValueError as error:
            raise SourceError(
                f"{self.name}: {key} cannot be read as {self.codec}: {error}; restore the file"
            ) from None
        if found > self.size:
            raise SourceError(
                f"{self.name}: {key} is an image of {found:,} bytes, more than the {self.size:,} that a "
                "chunk has: it is damaged, or made to exhaust memory"
            )

    def _chunks_in(self, key: str, data: memoryview) -> Iterator[memoryview]:
        if self.index_first is None:
            yield data
            return
        size = self._index_bytes
        for start, length in self._index(key, data[:size] if self.index_first else data[-size:]).tolist():
            if start != _ABSENT:
                yield data[start : start + length]

    @property
    def _index_bytes(self) -> int:
        """Bytes of a shard's index."""
        return 16 * math.prod(s // c for s, c in zip(self.stored, self.chunk, strict=True)) + _CHECKSUM

    def _index(self, key: str, data: bytes | memoryview) -> npt.NDArray[np.uint64]:
        """Return offset and number of bytes of each chunk in a shard."""
        if len(data) < self._index_bytes:
            raise SourceError(f"{self.name}: {key} ends before its index does: it is damaged")
        return np.frombuffer(data[:-_CHECKSUM], "<u8").reshape(-1, 2)


def chunks_of(array: Any, name: str) -> Chunks:
    """Return how an array is stored.

    Args:
        array: array of version 2 or 3 of the zarr library.
        name: name of the array, for errors.

    Raises:
        SourceError: its chunks are too large, or their compression is not supported.
    """
    metadata: Any = getattr(array, "metadata", None)
    chunk, stored = tuple(array.chunks or ()), tuple(getattr(array, "shards", None) or array.chunks or ())
    index_first = None
    if hasattr(metadata, "codecs"):
        own = [one.to_dict() for one in metadata.codecs]
        if [one["name"] for one in own] == ["sharding_indexed"]:
            shard = own[0]["configuration"]
            if [_name(one) for one in shard["index_codecs"]] != ["bytes", "crc32c"]:
                raise SourceError(f"{name}: its shards' index is stored in an unsupported way")
            index_first = getattr(shard["index_location"], "value", shard["index_location"]) == "start"
            own = list(shard["codecs"])
        names = [_name(one) for one in own]
    else:
        source = metadata if hasattr(metadata, "compressor") else array
        given = [*(source.filters or ()), source.compressor]
        given = [one for one in given if one is not None]
        names = [_usual(one.codec_id) for one in given]
        if any(own == "jpeg" and getattr(one, "header", None) for own, one in zip(names, given, strict=True)):
            raise SourceError(
                f"{name}: stores the header of its JPEG images separately, which is not supported"
            )
    if unknown := [one for one in names if one not in _COMPRESSING | _ALIKE]:
        raise SourceError(
            f"{name}: is compressed with {unknown[0]}, which is not supported: the size of a "
            "chunk is only known after decompression. Store it with blosc, zstd, or as JPEG XL"
        )
    packing = [one for one in names if one in _COMPRESSING]
    if len(packing) > 1 or (index_first is not None and "sharding_indexed" in names):
        raise SourceError(
            f"{name}: is compressed more than once ({', '.join(names)}), which is not supported"
        )
    kind = np.dtype(array.dtype)
    size = _MOST if kind.hasobject else math.prod(chunk) * kind.itemsize
    whole = math.prod(stored) * kind.itemsize
    if size > _MOST or whole > _MOST:
        raise SourceError(
            f"{name}: has chunks of {whole:,} bytes; {_MOST >> 30} GB are read at most. Store it in smaller "
            "chunks, of a few frames each"
        )

    def key(place: tuple[int, ...]) -> str:
        if hasattr(metadata, "encode_chunk_key"):
            return f"{array.path}/{metadata.encode_chunk_key(place)}".lstrip("/")
        return str(array._chunk_key(place))

    return Chunks(
        *(name, tuple(array.shape), stored, chunk, size, packing[0] if packing else None),
        checksum=names[-1:] == ["crc32c"],
        index_first=index_first,
        key=key,
    )


def _usual(name: str) -> str:
    """Return a codec's name, without the prefix of those imagecodecs that equal other libraries'."""
    return name if name in _OTHER else name.removeprefix("imagecodecs_")


def _name(codec: Any) -> str:
    """Return a codec's name, without the prefix of numcodecs."""
    found = codec if isinstance(codec, dict) else codec.to_dict()
    return _usual(str(found["name"]).removeprefix("numcodecs."))


def _unpacked(codec: str, packed: memoryview, most: int) -> int:
    """Return the decompressed size of a chunk; if it exceeds ``most``, any number above ``most``.

    For damaged data it is the size up to the damage: the decoder reports the damage later.
    """
    if codec in _HEADED:
        at, size = _HEADED[codec]
        return int.from_bytes(packed[at : at + size], "little")
    found = 0
    try:
        if codec == "lzma":
            decoder = lzma.LZMADecompressor()
            found = len(decoder.decompress(bytes(packed), _BLOCK))
            while not decoder.eof and found <= most and not decoder.needs_input:
                found += len(decoder.decompress(b"", _BLOCK))
            return found
        stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(packed)), _STREAMED[codec])
        while found <= most and (block := stream.read(_BLOCK)):
            found += len(block)
    except (lzma.LZMAError, pa.ArrowException, OSError):
        return found
    return found
