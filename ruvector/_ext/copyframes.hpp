// Reads PostgreSQL's COPY BINARY frames: a row key, a pgvector value, and fields that others read.
//
// The same walk runs twice: once to check every byte and count, once to fill arrays of exactly those sizes. Each
// length is compared with what is left before it is used, in both walks, so even a buffer that changes in between
// cannot lead outside the buffer or the arrays.
#ifndef RUVECTOR_COPYFRAMES_HPP
#define RUVECTOR_COPYFRAMES_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ruvector {

// The order is that of PROBLEMS in copyformat.pyx.
enum CopyProblem {
    COPY_OK,
    COPY_TRUNCATED,
    COPY_SIGNATURE,
    COPY_FLAGS,
    COPY_FIELD_COUNT,
    COPY_FIELD_LENGTH,
    COPY_KEY_NULL,
    COPY_KEY_LENGTH,
    COPY_KEY_ZERO_BYTE,
    COPY_VECTOR_HEADER,
    COPY_VECTOR_LENGTH,
    COPY_BIT_PADDING,
    COPY_TRAILING,
    COPY_CHANGED,
    COPY_SPARSE_INDICES,
    COPY_SPARSE_VALUES,
};

enum CopyElement { COPY_F32, COPY_F16, COPY_BIT, COPY_SPARSE };

// What a row turns out to be.
enum CopyGroup { COPY_ROWS, COPY_MISSING, COPY_WRONG, COPY_GROUPS };

struct CopyLayout {
    bool has_text_keys;
    int element;  // CopyElement
    size_t dims;  // bits for COPY_BIT
    size_t fields;  // behind key and vector
};

// Where the second walk writes. Integer keys take one int64, text keys two: the offset and the length of the text
// in the buffer. Sparse rows have any length: `ends` says where each one's indices and values end.
struct CopySink {
    bool is_filling;  // false in the first walk, which only counts
    int64_t* keys[COPY_GROUPS];
    uint8_t* vectors;
    int64_t* ends;
    uint32_t* indices;
    float* values;
    size_t capacities[COPY_GROUPS];
    size_t element_capacity;
    int64_t* spans[COPY_GROUPS];  // offset and length of each further field of each row; length -1 for NULL
};

struct CopyResult {
    int problem;    // CopyProblem
    size_t offset;  // of the problem
    size_t counts[COPY_GROUPS];
    size_t elements;  // of all sparse rows
    int last_group;   // where the last row went
};

namespace {

inline uint16_t big_u16(const uint8_t* bytes) { return static_cast<uint16_t>((bytes[0] << 8) | bytes[1]); }
inline uint32_t big_u32(const uint8_t* bytes) {
    return (static_cast<uint32_t>(big_u16(bytes)) << 16) | big_u16(bytes + 2);
}
inline uint64_t big_u64(const uint8_t* bytes) {
    return (static_cast<uint64_t>(big_u32(bytes)) << 32) | big_u32(bytes + 4);
}

inline size_t payload_bytes(int element, size_t dims) {
    if (element == COPY_F32) return dims * 4;
    if (element == COPY_F16) return dims * 2;
    return (dims + 7) / 8;
}

inline void copy_elements(int element, const uint8_t* payload, size_t dims, uint8_t* out) {
    if (element == COPY_F32) {
        for (size_t at = 0; at < dims; ++at) {
            const uint32_t value = big_u32(payload + at * 4);
            std::memcpy(out + at * 4, &value, sizeof value);
        }
    } else if (element == COPY_F16) {
        for (size_t at = 0; at < dims; ++at) {
            const uint16_t value = big_u16(payload + at * 2);
            std::memcpy(out + at * 2, &value, sizeof value);
        }
    } else {
        std::memcpy(out, payload, payload_bytes(element, dims));
    }
}

constexpr size_t SPARSE_HEADER = 12;              // dimensions, number of elements, and a word that is not used
constexpr uint32_t SPARSE_ELEMENTS_MAX = 16000;  // as in limits.py

inline int check_sparse_vector(const uint8_t* field, size_t length, size_t* dims) {
    if (length < SPARSE_HEADER) return COPY_VECTOR_LENGTH;
    const uint32_t width = big_u32(field), count = big_u32(field + 4);
    if (width > 0x7fffffffu || count > SPARSE_ELEMENTS_MAX || big_u32(field + 8) != 0) return COPY_VECTOR_HEADER;
    if (length - SPARSE_HEADER != size_t(count) * 8) return COPY_VECTOR_LENGTH;
    const uint8_t* indices = field + SPARSE_HEADER;
    const uint8_t* values = indices + size_t(count) * 4;
    for (size_t at = 0; at < count; ++at) {
        const uint32_t index = big_u32(indices + at * 4);
        if (index >= width || (at > 0 && index <= big_u32(indices + at * 4 - 4))) return COPY_SPARSE_INDICES;
        if ((big_u32(values + at * 4) & 0x7f800000u) == 0x7f800000u) return COPY_SPARSE_VALUES;
    }
    *dims = width;
    return COPY_OK;
}

// Checks one vector field of `length` bytes, header included, and gives its dimensions.
inline int check_vector(int element, const uint8_t* field, size_t length, size_t* dims) {
    if (element == COPY_SPARSE) return check_sparse_vector(field, length, dims);
    if (length < 4) return COPY_VECTOR_LENGTH;
    if (element == COPY_BIT) {
        const uint32_t bits = big_u32(field);
        if (bits > 0x7fffffffu) return COPY_VECTOR_HEADER;
        *dims = bits;
    } else {
        if (big_u16(field) > 0x7fff || big_u16(field + 2) != 0) return COPY_VECTOR_HEADER;
        *dims = big_u16(field);
    }
    if (length - 4 != payload_bytes(element, *dims)) return COPY_VECTOR_LENGTH;
    if (element == COPY_BIT && *dims % 8 != 0) {
        // Set bits behind the end would count as differences.
        if ((field[length - 1] & (0xff >> (*dims % 8))) != 0) return COPY_BIT_PADDING;
    }
    return COPY_OK;
}

class CopyWalk {
public:
    CopyWalk(const uint8_t* data, size_t size, const CopyLayout& layout, const CopySink& sink)
        : data_(data), size_(size), layout_(layout), sink_(sink) {}

    CopyResult run() {
        int problem = header();
        bool is_done = false;
        while (problem == COPY_OK && !is_done) problem = tuple(&is_done);
        if (problem == COPY_OK && at_ != size_) problem = COPY_TRAILING;
        result_.problem = problem;
        result_.offset = at_;
        return result_;
    }

private:
    size_t left() const { return size_ - at_; }

    int header() {
        static const uint8_t SIGNATURE[11] = {'P', 'G', 'C', 'O', 'P', 'Y', '\n', 0xff, '\r', '\n', 0};
        if (left() < 19) return COPY_TRUNCATED;
        if (std::memcmp(data_, SIGNATURE, sizeof SIGNATURE) != 0) return COPY_SIGNATURE;
        // The upper half holds flags a reader must know; none is defined that we could read.
        if (big_u32(data_ + 11) >> 16 != 0) return COPY_FLAGS;
        const uint32_t extension = big_u32(data_ + 15);
        at_ = 19;
        if (extension > left()) return COPY_TRUNCATED;
        at_ += extension;
        return COPY_OK;
    }

    // Reads the length word of a field and checks that its bytes are there.
    int field(const uint8_t** bytes, size_t* length, bool* is_null) {
        if (left() < 4) return COPY_TRUNCATED;
        const uint32_t word = big_u32(data_ + at_);
        *is_null = word == 0xffffffffu;
        if (!*is_null && word > 0x7fffffffu) return COPY_FIELD_LENGTH;
        *length = *is_null ? 0 : word;
        if (*length > left() - 4) return COPY_TRUNCATED;
        at_ += 4;
        *bytes = data_ + at_;
        at_ += *length;
        return COPY_OK;
    }

    int check_key(const uint8_t* key, size_t length, bool is_null) const {
        if (is_null) return COPY_KEY_NULL;
        if (layout_.has_text_keys) {
            return length > 0 && std::memchr(key, 0, length) != nullptr ? COPY_KEY_ZERO_BYTE : COPY_OK;
        }
        return length == 2 || length == 4 || length == 8 ? COPY_OK : COPY_KEY_LENGTH;
    }

    static int64_t key_value(const uint8_t* key, size_t length) {
        if (length == 2) return static_cast<int16_t>(big_u16(key));
        if (length == 4) return static_cast<int32_t>(big_u32(key));
        return static_cast<int64_t>(big_u64(key));
    }

    int put_key(int group, const uint8_t* key, size_t length) {
        const size_t at = result_.counts[group];
        ++result_.counts[group];
        result_.last_group = group;
        if (!sink_.is_filling) return COPY_OK;
        if (at >= sink_.capacities[group]) return COPY_CHANGED;
        if (layout_.has_text_keys) {
            sink_.keys[group][2 * at] = key - data_;
            sink_.keys[group][2 * at + 1] = static_cast<int64_t>(length);
        } else {
            sink_.keys[group][at] = key_value(key, length);
        }
        return COPY_OK;
    }

    // The key, and the fields behind the vector.
    int put_rest(int group, const uint8_t* key, size_t key_length) {
        const size_t row = result_.counts[group];
        int problem = put_key(group, key, key_length);
        for (size_t number = 0; problem == COPY_OK && number < layout_.fields; ++number) {
            const uint8_t* bytes = nullptr;
            size_t length = 0;
            bool is_null = false;
            problem = field(&bytes, &length, &is_null);
            if (problem != COPY_OK || !sink_.is_filling || sink_.spans[group] == nullptr) continue;
            int64_t* span = sink_.spans[group] + 2 * (row * layout_.fields + number);
            span[0] = bytes - data_;
            span[1] = is_null ? -1 : static_cast<int64_t>(length);
        }
        return problem;
    }

    // The number of elements comes from the length: the buffer may have changed since it was checked.
    int put_sparse(size_t row, const uint8_t* vector, size_t length) {
        const size_t count = (length - SPARSE_HEADER) / 8, first = result_.elements;
        result_.elements += count;
        if (!sink_.is_filling) return COPY_OK;
        if (count > sink_.element_capacity - first) return COPY_CHANGED;
        const uint8_t* indices = vector + SPARSE_HEADER;
        for (size_t at = 0; at < count; ++at) sink_.indices[first + at] = big_u32(indices + at * 4);
        for (size_t at = 0; at < count; ++at) {
            const uint32_t value = big_u32(indices + (count + at) * 4);
            std::memcpy(sink_.values + first + at, &value, sizeof value);
        }
        sink_.ends[row] = static_cast<int64_t>(first + count);
        return COPY_OK;
    }

    int tuple(bool* is_done) {
        if (left() < 2) return COPY_TRUNCATED;
        const uint16_t fields = big_u16(data_ + at_);
        if (fields != 0xffff && fields != 2 + layout_.fields) return COPY_FIELD_COUNT;
        at_ += 2;
        *is_done = fields == 0xffff;
        if (*is_done) return COPY_OK;

        const uint8_t* key = nullptr;
        size_t key_length = 0;
        bool is_null = false;
        int problem = field(&key, &key_length, &is_null);
        if (problem == COPY_OK) problem = check_key(key, key_length, is_null);
        if (problem != COPY_OK) return problem;

        const uint8_t* vector = nullptr;
        size_t length = 0;
        problem = field(&vector, &length, &is_null);
        if (problem != COPY_OK) return problem;
        if (is_null) return put_rest(COPY_MISSING, key, key_length);
        size_t dims = 0;
        problem = check_vector(layout_.element, vector, length, &dims);
        if (problem != COPY_OK) return problem;
        if (dims != layout_.dims) return put_rest(COPY_WRONG, key, key_length);

        const size_t row = result_.counts[COPY_ROWS];
        problem = put_rest(COPY_ROWS, key, key_length);
        if (problem == COPY_OK && layout_.element == COPY_SPARSE) return put_sparse(row, vector, length);
        if (problem == COPY_OK && sink_.is_filling) {
            copy_elements(layout_.element, vector + 4, dims, sink_.vectors + row * payload_bytes(layout_.element, dims));
        }
        return problem;
    }

    const uint8_t* data_;
    size_t size_;
    CopyLayout layout_;
    CopySink sink_;
    size_t at_ = 0;
    CopyResult result_ = {};
};

}  // namespace

// Walks the whole data of one COPY; fills the sink when its arrays are given.
inline CopyResult walk_copy(const uint8_t* data, size_t size, CopyLayout layout, CopySink sink) noexcept {
    return CopyWalk(data, size, layout, sink).run();
}

}  // namespace ruvector

#endif
