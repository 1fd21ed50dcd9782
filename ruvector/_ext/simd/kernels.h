// Distance kernels, chosen once per process by the CPU that runs it.
//
// Every kernel here compares one pair of vectors; the loops over rows and graph nodes stand in their callers and
// call through the table, so one wheel serves AVX-512, AVX2, NEON and plain CPUs.
#ifndef RUVECTOR_SIMD_KERNELS_H
#define RUVECTOR_SIMD_KERNELS_H

#include <cstddef>
#include <cstdint>

#include "codes.h"

namespace ruvector {

using PairF32 = float (*)(const float* left, const float* right, size_t dims);
using PairF16 = float (*)(const float* query, const uint16_t* row, size_t dims);  // row: IEEE 754 half
using PairBits = float (*)(const uint8_t* left, const uint8_t* right, size_t bytes);
using SelfF16 = float (*)(const uint16_t* row, size_t dims);

struct Kernels {
    const char* name;     // "avx512", "avx2", "neon" or "scalar"
    PairF32 l2_squared_f32;
    PairF32 dot_f32;
    PairF32 l1_f32;
    PairF16 l2_squared_f16;
    PairF16 dot_f16;
    PairF16 l1_f16;
    PairBits hamming;     // number of differing bits
    PairBits jaccard;     // 1 - |and| / |or|; 1 when both are empty, as in pgvector
    SelfF16 norm_squared_f16;
    const CodeKernels* codes;
};

// The best table this CPU can run; RUVECTOR_SIMD=scalar|avx2|avx512|neon forces a lesser one (unknown or
// unsupported names fall back to the best). Thread-safe; the choice is made once.
const Kernels& kernels() noexcept;

// The table of that name, or nullptr when this build or this CPU has none.
const Kernels* kernels_named(const char* name) noexcept;

// The instruction sets this CPU and its operating system offer, of those that matter here, separated by blanks.
const char* cpu_features() noexcept;

}  // namespace ruvector

#endif
