"""PostgreSQL's own 64-bit hash of rows, so that both sides can sum up rows and compare sums instead of rows.

The database computes ``hash_array_extended(ARRAY[bytes], seed)`` (see sql/queries/verify.sql); these functions give the
same numbers for many rows at once. The hash is Bob Jenkins' lookup3, as src/common/hashfn.c has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ruvector.index import Vectors
from ruvector.sparse import SparseVectors
from ruvector.values import ElementType

Hashes = NDArray[np.uint64]
Words = NDArray[np.uint32]
_BLOCK = 12  # bytes that lookup3 mixes at once


def vector_hashes(vectors: Vectors, seeds: Hashes, *, element: ElementType, dims: int) -> Hashes:
    """Return the hash of what the type's send function writes, for each row of [n, dims], seeded by its key."""
    if isinstance(vectors, SparseVectors):
        return _sparse_hashes(vectors, seeds)
    if element is ElementType.BIT:
        head, body = np.array([dims], dtype=">i4"), vectors
    else:
        head = np.array([dims, 0], dtype=">i2")
        body = vectors.astype(vectors.dtype.newbyteorder(">"))
    width = head.nbytes + body.shape[1] * body.itemsize
    rows = np.zeros((len(body), _padded(width)), dtype=np.uint8)
    rows[:, : head.nbytes] = head.view(np.uint8)
    rows[:, head.nbytes : width] = np.ascontiguousarray(body).view(np.uint8).reshape(len(body), width - head.nbytes)
    return array_hashes(rows, np.full(len(rows), width), seeds)


def text_hashes(texts: Sequence[str]) -> Hashes:
    """Return the hash of each text in UTF-8, with seed 0."""
    encoded = [text.encode() for text in texts]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return array_hashes(_packed(b"".join(encoded), lengths), lengths, np.zeros(len(encoded), dtype=np.uint64))


def array_hashes(rows: NDArray[np.uint8], lengths: NDArray[np.int64], seeds: Hashes) -> Hashes:
    """Return hash_array_extended of one-element arrays: rows uint8 [n, padded], zero beyond their lengths."""
    # An array hash begins with 1 and takes each element as result * 31 + hash.
    return bytes_hashes(rows, lengths, seeds) + np.uint64(31)


def bytes_hashes(rows: NDArray[np.uint8], lengths: NDArray[np.int64], seeds: Hashes) -> Hashes:
    """Return hash_bytes_extended of each row; one round mixes a block of all rows that still have one."""
    order = np.argsort(-lengths, kind="stable")
    longest_first, seeds_sorted = lengths[order], seeds[order]
    columns = np.ascontiguousarray(rows.view("<u4").T)  # of one round three lie together, for all rows
    if (np.diff(longest_first) != 0).any():
        columns = columns[:, order]
    a = (longest_first + (0x9E3779B9 + 3923095)).astype(np.uint32)
    b, c = a.copy(), a.copy()
    seeded = seeds_sorted != 0
    a[seeded] += (seeds_sorted >> np.uint64(32)).astype(np.uint32)[seeded]
    b[seeded] += seeds_sorted.astype(np.uint32)[seeded]
    mixed = np.stack([a, b, c])
    mixed[:, seeded] = _mix(*mixed[:, seeded])
    a, b, c = mixed
    for number in range(int(longest_first[0]) // _BLOCK if len(rows) else 0):
        whole = int(np.searchsorted(-longest_first, -_BLOCK * (number + 1), side="right"))
        first, second, third = columns[3 * number : 3 * number + 3, :whole]
        a[:whole], b[:whole], c[:whole] = _mix(a[:whole] + first, b[:whole] + second, c[:whole] + third)
    # The last block may be short or empty; its third word leaves the lowest byte to the length.
    at, last = 3 * (longest_first // _BLOCK), np.arange(len(rows))
    a += columns[at, last]
    b += columns[at + 1, last]
    c += columns[at + 2, last] << np.uint32(8)
    b, c = _final(a, b, c)
    out = np.empty(len(rows), dtype=np.uint64)
    out[order] = (b.astype(np.uint64) << np.uint64(32)) | c
    return out


def _sparse_hashes(vectors: SparseVectors, seeds: Hashes) -> Hashes:
    counts = vectors.lengths.astype(np.int64)
    lengths = 12 + 8 * counts
    rows = np.zeros((len(vectors), _padded(int(lengths.max(initial=0)))), dtype=np.uint8)
    words = rows.view(">i4")
    words[:, 0], words[:, 1] = vectors.dims, counts
    place = np.arange(len(vectors.indices)) - np.repeat(vectors.indptr[:-1], counts)  # of an element in its row
    row = np.repeat(np.arange(len(vectors)), counts)
    words[row, 3 + place] = vectors.indices
    rows.view(">f4")[row, 3 + place + counts[row]] = vectors.values
    return array_hashes(rows, lengths, seeds)


def _packed(content: bytes, lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return texts that follow each other as rows of one width, zero beyond their ends."""
    rows = np.zeros((len(lengths), _padded(int(lengths.max(initial=0)))), dtype=np.uint8)
    starts = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(lengths)), lengths)
    rows[row, np.arange(len(content)) - starts[row]] = np.frombuffer(content, dtype=np.uint8)
    return rows


def _padded(width: int) -> int:
    return (width // _BLOCK + 1) * _BLOCK


def _rotated(words: Words, by: int) -> Words:
    return (words << np.uint32(by)) | (words >> np.uint32(32 - by))


def _mix(a: Words, b: Words, c: Words) -> tuple[Words, Words, Words]:
    a = (a - c) ^ _rotated(c, 4)
    c = c + b
    b = (b - a) ^ _rotated(a, 6)
    a = a + c
    c = (c - b) ^ _rotated(b, 8)
    b = b + a
    a = (a - c) ^ _rotated(c, 16)
    c = c + b
    b = (b - a) ^ _rotated(a, 19)
    a = a + c
    c = (c - b) ^ _rotated(b, 4)
    b = b + a
    return a, b, c


def _final(a: Words, b: Words, c: Words) -> tuple[Words, Words]:
    c = (c ^ b) - _rotated(b, 14)
    a = (a ^ c) - _rotated(c, 11)
    b = (b ^ a) - _rotated(a, 25)
    c = (c ^ b) - _rotated(b, 16)
    a = (a ^ c) - _rotated(c, 4)
    b = (b ^ a) - _rotated(a, 14)
    c = (c ^ b) - _rotated(b, 24)
    return b, c
