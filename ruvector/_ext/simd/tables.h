// The kernel tables of this build; each instruction set has a translation unit of its own.
//
// A table may only be used after kernels.cpp found that CPU and operating system support it.
#ifndef RUVECTOR_SIMD_TABLES_H
#define RUVECTOR_SIMD_TABLES_H

#include "kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#define RUVECTOR_X86 1
#else
#define RUVECTOR_X86 0
#endif

namespace ruvector {

extern const Kernels SCALAR_KERNELS;
#if RUVECTOR_X86
extern const Kernels AVX2_KERNELS;            // needs AVX2, FMA, F16C
extern const Kernels AVX512_KERNELS;          // needs AVX-512 F, BW, VL as well
extern const Kernels AVX512_POPCOUNT_KERNELS;  // the same with VPOPCNTDQ for bits
#endif
#if defined(__aarch64__)
extern const Kernels NEON_KERNELS;  // every 64-bit ARM has it
#endif

}  // namespace ruvector

#endif
