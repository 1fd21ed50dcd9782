"""PostgreSQL's COPY BINARY frames and vector payloads turned into arrays; checksums of pages."""

import numpy as np

from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t

from ruvector.errors import InvalidParameter, ProtocolViolation, ensure
from ruvector.limits import BITS_MAX, COPY_FIELDS_MAX, DIMS_MAX, SPARSE_DIMS_MAX
from ruvector.sparse import SparseVectors
from ruvector.values import DecodedRows

# The order is that of CopyProblem in copyframes.hpp.
PROBLEMS = (
    "",
    "the data ends too early",
    "the signature of COPY BINARY is missing",
    "a flag is set that this program does not know",
    "a row has another number of fields than key, vector and attributes are",
    "a field has a negative length",
    "a key is NULL",
    "an integer key must have 2, 4 or 8 bytes",
    "a text key holds a zero byte",
    "a vector has an impossible header",
    "a vector's length does not fit its dimensions",
    "bits are set behind the end of a bit string",
    "bytes follow the end marker",
    "the buffer changed while it was read",
    "the indices of a sparse vector do not ascend within its dimensions",
    "a sparse vector holds NaN or infinity",
)
CHANGED = 13  # the place of "the buffer changed"
# The order is that of CopyElement in copyframes.hpp.
ELEMENTS = {"f32": (0, np.float32), "f16": (1, np.float16), "bit": (2, np.uint8), "sparse": (3, np.float32)}
DIMENSIONS = {"f32": DIMS_MAX, "f16": DIMS_MAX, "bit": BITS_MAX, "sparse": SPARSE_DIMS_MAX}
KEY_KINDS = ("int64", "text")


cdef violation(int problem, Py_ssize_t offset):
    return ProtocolViolation(f"COPY data cannot be read: {PROBLEMS[problem]}, at byte {offset}")


cdef texts(const uint8_t[::1] data, spans):
    """Cut text keys out of the buffer."""
    cdef list keys = []
    cdef const int64_t[:, ::1] view = spans
    cdef Py_ssize_t at
    cdef const char* start = <const char*> &data[0]
    for at in range(view.shape[0]):
        keys.append((start + view[at, 0])[:view[at, 1]].decode("utf-8"))
    return keys


cdef walk(const uint8_t[::1] data, CopyLayout layout, list keys, tuple arrays, list spans):
    """Walk the buffer; fill keys (an array per group) and vectors when given.

    ``arrays`` is (vectors,), or (ends, indices, values) of sparse rows; ``spans`` those of the further fields of each
    group. Returns the counts of rows in each group, of sparse elements, and the last group.
    """
    cdef CopySink sink
    cdef CopyResult result
    cdef int64_t[::1] numbers
    cdef uint8_t[::1] room
    cdef int64_t[::1] ends
    cdef uint32_t[::1] indices
    cdef float32_t[::1] values
    cdef int group
    sink.is_filling = keys is not None
    sink.vectors = NULL
    sink.ends = NULL
    sink.indices = NULL
    sink.values = NULL
    sink.element_capacity = 0
    for group in range(3):
        sink.keys[group] = NULL
        sink.capacities[group] = len(keys[group]) if sink.is_filling else 0
        sink.spans[group] = NULL
        if sink.capacities[group] and layout.fields:
            numbers = spans[group].reshape(-1)
            sink.spans[group] = &numbers[0]
        if sink.capacities[group]:
            numbers = keys[group].reshape(-1)
            sink.keys[group] = &numbers[0]
    if sink.capacities[0] and layout.element == 3:
        ends, indices, values = arrays
        sink.ends, sink.element_capacity = &ends[0], indices.shape[0]
        if sink.element_capacity:
            sink.indices, sink.values = &indices[0], &values[0]
    elif sink.capacities[0]:
        room = arrays[0].reshape(-1).view(np.uint8)
        sink.vectors = &room[0]
    with nogil:
        result = walk_copy(&data[0], data.shape[0], layout, sink)
    if result.problem:
        raise violation(result.problem, result.offset)
    return [result.counts[group] for group in range(3)], result.elements, result.last_group


def bytes_of(buffer):
    """View a contiguous buffer as bytes."""
    view = memoryview(buffer)
    # memoryview refuses to cast arrays without elements.
    return view.cast("B") if view.nbytes else memoryview(b"")


def decode(buffer, *, str key_kind, str element, Py_ssize_t dims, Py_ssize_t fields=0):
    """Decode the complete data of one COPY (SELECT key, vector, ...) TO STDOUT (FORMAT BINARY).

    Vectors are f32, f16, packed bits or SparseVectors as `element` says; `dims` counts bits there. Dense values are
    taken as they are: pgvector keeps NaN and infinity out. Of `fields` more columns the places in the buffer are told,
    of rows with a vector and of those where it is NULL: int64 [rows, fields, 2], offset and length, -1 for NULL.
    Raises ProtocolViolation when the bytes are not what PostgreSQL sends.
    """
    cdef const uint8_t[::1] data
    cdef CopyLayout layout
    check_layout(key_kind, element, dims, fields)
    view = bytes_of(buffer)
    if not len(view):
        raise violation(1, 0)
    data = view
    code, dtype = ELEMENTS[element]
    layout.has_text_keys = key_kind == "text"
    layout.element = code
    layout.dims = dims
    layout.fields = fields
    counts, elements, last_group = walk(data, layout, None, None, None)
    spans = [np.empty((count, fields, 2), np.int64) for count in counts]
    keys = [np.empty((count, 2) if layout.has_text_keys else count, np.int64) for count in counts]
    if element == "sparse":
        starts = np.zeros(counts[0] + 1, np.int64)
        arrays = (starts[1:], np.empty(elements, np.uint32), np.empty(elements, dtype))
    else:
        arrays = (np.empty((counts[0], (dims + 7) // 8 if element == "bit" else dims), dtype),)
    if walk(data, layout, keys, arrays, spans) != (counts, elements, last_group):
        raise violation(CHANGED, 0)
    vectors = SparseVectors(starts, arrays[1], arrays[2], dims) if element == "sparse" else arrays[0]
    if layout.has_text_keys:
        try:
            keys = [texts(data, spans) for spans in keys]
        except UnicodeDecodeError as error:
            raise ProtocolViolation(f"COPY data cannot be read: a text key is not UTF-8 ({error.reason})") from error
    # Never [-1] here: extensions are built without wraparound.
    last_key = str(keys[last_group][counts[last_group] - 1]) if sum(counts) else None
    return DecodedRows(keys=keys[0], vectors=vectors, missing_keys=keys[1], wrong_keys=keys[2], last_key=last_key,
                       spans=spans[0] if fields else None, missing_spans=spans[1] if fields else None)


def check_layout(str key_kind, str element, Py_ssize_t dims, Py_ssize_t fields):
    """Refuse kinds of keys and elements that do not exist, and dimensions out of range."""
    if key_kind not in KEY_KINDS:
        raise InvalidParameter(f'unknown kind of key "{key_kind}"', hint="Use int64 or text.")
    if element not in ELEMENTS:
        raise InvalidParameter(f'unknown element type "{element}"', hint="Use f32, f16, bit or sparse.")
    if not 1 <= dims <= DIMENSIONS[element]:
        raise InvalidParameter(f"{dims} dimensions are outside the supported range")
    if not 0 <= fields <= COPY_FIELDS_MAX:
        raise InvalidParameter(f"a COPY cannot have {fields} more fields")


def decode_vector(payload):
    """Decode one vector as vector_send gives it into float32[dims]; raises ProtocolViolation."""
    cdef const uint8_t[::1] data
    cdef uint8_t[::1] room
    cdef size_t dims = 0
    cdef int problem
    view = bytes_of(payload)
    if not len(view):
        raise violation(1, 0)
    data = view
    problem = check_vector(0, &data[0], data.shape[0], &dims)
    if problem:
        raise violation(problem, 0)
    if not 1 <= dims <= <size_t> DIMS_MAX:
        raise violation(9, 0)
    vector = np.empty(dims, np.float32)
    room = vector.view(np.uint8)
    copy_elements(0, &data[4], dims, &room[0])
    return vector


def page_crcs(buffer, Py_ssize_t page_bytes):
    """Return the CRC-32 of every page of the buffer as uint32[pages]; the last page may be short."""
    ensure(page_bytes > 0, "a page must have at least one byte")
    cdef const uint8_t[::1] data
    cdef uint32_t[::1] sums
    cdef size_t size = page_bytes
    view = bytes_of(buffer)
    out = np.empty((len(view) + size - 1) // size, np.uint32)
    if len(view):
        data = view
        sums = out
        with nogil:
            page_checksums(&data[0], data.shape[0], size, &sums[0])
    return out
