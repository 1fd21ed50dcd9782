// CRC-32 as zlib computes it, by carry-less multiplication where the CPU has it: checksums of pages at memory speed.
#ifndef RUVECTOR_CRC32_HPP
#define RUVECTOR_CRC32_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define RUVECTOR_CRC32_FOLDS 1
#endif

namespace ruvector {
namespace crc32_detail {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

inline const Tables& tables() {
    static const Tables made = [] {
        Tables out{};
        for (uint32_t byte = 0; byte < 256; ++byte) {
            uint32_t value = byte;
            for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (0xEDB88320u & (0u - (value & 1u)));
            out[0][byte] = value;
        }
        for (size_t table = 1; table < 8; ++table) {
            for (uint32_t byte = 0; byte < 256; ++byte) {
                out[table][byte] = (out[table - 1][byte] >> 8) ^ out[0][out[table - 1][byte] & 0xFF];
            }
        }
        return out;
    }();
    return made;
}

// Eight bytes at a time; `state` is the inverted checksum.
inline uint32_t by_tables(uint32_t state, const uint8_t* data, size_t bytes) {
    const Tables& table = tables();
    for (; bytes >= 8; data += 8, bytes -= 8) {
        uint32_t low = state ^ (uint32_t(data[0]) | uint32_t(data[1]) << 8 | uint32_t(data[2]) << 16 |
                                uint32_t(data[3]) << 24);
        state = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^
                table[4][low >> 24] ^ table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^ table[0][data[7]];
    }
    for (; bytes != 0; ++data, --bytes) state = (state >> 8) ^ table[0][(state ^ *data) & 0xFF];
    return state;
}

#ifdef RUVECTOR_CRC32_FOLDS
// At least 64 bytes, a multiple of 16: four lanes of 128 bits are folded forward, then into one, then reduced
// (Gopal et al., Fast CRC Computation Using PCLMULQDQ, Intel 2009; the constants of the reflected polynomial).
__attribute__((target("sse4.1,pclmul"))) inline uint32_t by_folding(uint32_t state, const uint8_t* data,
                                                                    size_t bytes) {
    const __m128i far = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i near = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    auto load = [](const uint8_t* from) __attribute__((target("sse4.1,pclmul"))) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    };
    auto fold = [](__m128i lane, __m128i by, __m128i next) __attribute__((target("sse4.1,pclmul"))) {
        __m128i low = _mm_clmulepi64_si128(lane, by, 0x00), high = _mm_clmulepi64_si128(lane, by, 0x11);
        return _mm_xor_si128(_mm_xor_si128(low, high), next);
    };
    __m128i lanes[4];
    for (size_t lane = 0; lane < 4; ++lane) lanes[lane] = load(data + 16 * lane);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(int(state)));
    for (data += 64, bytes -= 64; bytes >= 64; data += 64, bytes -= 64) {
        for (size_t lane = 0; lane < 4; ++lane) lanes[lane] = fold(lanes[lane], far, load(data + 16 * lane));
    }
    __m128i all = lanes[0];
    for (size_t lane = 1; lane < 4; ++lane) all = fold(all, near, lanes[lane]);
    for (; bytes >= 16; data += 16, bytes -= 16) all = fold(all, near, load(data));
    // 128 bits to 64, to 32, and Barrett's reduction.
    const __m128i low_half = _mm_setr_epi32(-1, 0, -1, 0);
    all = _mm_xor_si128(_mm_srli_si128(all, 8), _mm_clmulepi64_si128(all, near, 0x10));
    __m128i rest = _mm_srli_si128(all, 4);
    all = _mm_clmulepi64_si128(_mm_and_si128(all, low_half), _mm_set_epi64x(0, 0x0163cd6124), 0x00);
    all = _mm_xor_si128(all, rest);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(all, low_half), barrett, 0x10);
    quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, low_half), barrett, 0x00);
    return uint32_t(_mm_extract_epi32(_mm_xor_si128(all, quotient), 1));
}
#endif

}  // namespace crc32_detail

inline uint32_t crc32(const void* data, size_t bytes) {
    const auto* at = static_cast<const uint8_t*>(data);
    uint32_t state = 0xFFFFFFFFu;
#ifdef RUVECTOR_CRC32_FOLDS
    static const bool folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
    if (folds && bytes >= 64) {
        size_t whole = bytes / 16 * 16;
        state = crc32_detail::by_folding(state, at, whole);
        at += whole;
        bytes -= whole;
    }
#endif
    return ~crc32_detail::by_tables(state, at, bytes);
}

// The checksums of all pages of `bytes` bytes; the last page may be shorter.
inline void page_checksums(const void* data, size_t bytes, size_t page_bytes, uint32_t* out) {
    const auto* at = static_cast<const uint8_t*>(data);
    for (size_t start = 0; start < bytes; start += page_bytes) {
        *out++ = crc32(at + start, bytes - start < page_bytes ? bytes - start : page_bytes);
    }
}

}  // namespace ruvector

#endif
