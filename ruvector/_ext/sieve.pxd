# Sieves and tags as Cython sees them; tags.hpp explains them.
from libcpp cimport bool as cbool

from ruvector._ext.typedefs cimport int64_t, size_t, uint32_t, uint64_t


cdef extern from "tags.hpp" namespace "ruvector" nogil:
    cdef struct Sieve:
        const uint64_t* bits
        size_t words
        size_t count
        const int64_t* members
        size_t member_count
        int plan

    const uint64_t NO_BITS
    const uint32_t NO_TAG


cdef inline int fill_sieve(Sieve* out, sieve, cbool tagged) except -1:
    """Point at the bits or members of a sieve, which must outlive it."""
    cdef const uint64_t[::1] bits
    cdef const int64_t[::1] members
    out[0] = Sieve(NULL, 0, 0, NULL, 0, int(sieve.plan))
    if sieve.bits is not None:
        if not tagged:
            raise ValueError("a sieve by tags needs an index with tags")
        bits = sieve.bits
        out.bits = &bits[0] if bits.shape[0] else &NO_BITS
        out.words, out.count = bits.shape[0], sieve.count
    else:
        members = sieve.members
        out.member_count = members.shape[0]
        out.members = &members[0] if members.shape[0] else NULL
    return 0


cdef inline const uint32_t* tag_data(const uint32_t[::1] tags, Py_ssize_t rows) except NULL:
    """Return the tags of so many rows."""
    if tags.shape[0] != rows:
        raise ValueError(f"{tags.shape[0]} tags for {rows} rows")
    return &tags[0] if rows else &NO_TAG
