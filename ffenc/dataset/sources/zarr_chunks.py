"""How large a zarr array's chunks become, found out before memory is taken for them."""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from ffenc.dataset.sources.image_sizes import IMAGE_CODECS, decoded_bytes
from ffenc.errors import SourceError

_MOST = 2 << 30  # bytes of a chunk, decompressed
_BLOCK = 1 << 20
# Codecs that say at a chunk's start how large it becomes: at which byte, in how many.
_HEADED = {"blosc": (4, 4), "lz4": (0, 4)}
# Those that do not, by pyarrow's name: the chunk is decompressed once for its size, a block at a time.
_STREAMED = {
    **{"zstd": "zstd", "gzip": "gzip", "zlib": "gzip", "zlibng": "gzip", "bz2": "bz2"},
    **{"brotli": "brotli", "lz4f": "lz4"},
}
_COMPRESSING = {*_HEADED, *_STREAMED, "lzma", *IMAGE_CODECS}
# Those that give about as many bytes as they are given.
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
# UMI's library has some of them too; others of that name are not the same.
_OTHER = ("imagecodecs_lz4", "imagecodecs_packbits")
_CHECKSUM = 4  # bytes of a CRC-32C behind a chunk, and behind a shard's index
_ABSENT = (1 << 64) - 1  # of a chunk that a shard does not hold


class Chunks(Struct, frozen=True):
    """The chunks of an array as they are stored.

    Attributes:
        name: of the array, for an error.
        shape: of the array.
        stored: of what is a file: a chunk, or a shard of several.
        chunk: of a chunk.
        size: bytes of a chunk, decompressed.
        codec: what compresses a chunk; None where nothing does that is known here.
        checksum: a CRC-32C follows a chunk.
        index_first: of shards, whether their index stands in front; None: a file is a chunk.
        key: where a file is, by its place in the grid.
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

    def check(self, first: int, stop: int, read: Callable[[str], bytes | None]) -> None:
        """Refuse chunks of some rows that become larger than the array says.

        Args:
            first, stop: the rows.
            read: gives what is stored at a key; None where there is nothing.

        Raises:
            SourceError: one does.
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
        """Refuse an image that is larger than a chunk, or does not say how large it is."""
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
        count = math.prod(-(-n // c) for n, c in zip(self.stored, self.chunk, strict=True))
        size = 16 * count + _CHECKSUM
        index = data[:size] if self.index_first else data[max(0, len(data) - size) :]
        if len(index) < size:
            raise SourceError(f"{self.name}: {key} ends before its index does: it is damaged")
        for start, length in np.frombuffer(index[: 16 * count], "<u8").reshape(-1, 2).tolist():
            if start != _ABSENT:
                yield data[start : start + length]


def chunks_of(array: Any, path: str, name: str) -> Chunks:
    """Return how an array is stored.

    Args:
        array: of the zarr library, of its version 2 or 3.
        path: of the array in the store.
        name: for an error.

    Raises:
        SourceError: its chunks are too large, or compressed in a way that cannot be looked into.
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
            return f"{path}/{metadata.encode_chunk_key(place)}".lstrip("/")
        return str(array._chunk_key(place))

    return Chunks(
        *(name, tuple(array.shape), stored, chunk, size, packing[0] if packing else None),
        checksum=names[-1:] == ["crc32c"],
        index_first=index_first,
        key=key,
    )


def _usual(name: str) -> str:
    """A codec's name, of those of imagecodecs that of others without their prefix."""
    return name if name in _OTHER else name.removeprefix("imagecodecs_")


def _name(codec: Any) -> str:
    """A codec's name, of those of numcodecs without their prefix."""
    found = codec if isinstance(codec, dict) else codec.to_dict()
    return _usual(str(found["name"]).removeprefix("numcodecs."))


def _unpacked(codec: str, packed: memoryview, most: int) -> int:
    """How many bytes a chunk becomes; where these are more than ``most``, some number above that.

    What is damaged becomes 0: the decoder says what is wrong with it.
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
