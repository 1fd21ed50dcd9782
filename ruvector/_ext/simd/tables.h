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
extern const CodeKernels SCALAR_CODES;
#if RUVECTOR_X86
extern const Kernels AVX2_KERNELS;    // needs AVX2, FMA, F16C
extern const Kernels AVX512_KERNELS;  // needs AVX-512 F, BW, VL as well; codes as under AVX2
extern const Kernels AVX512_POPCOUNT_KERNELS;  // the same with VPOPCNTDQ for bits and VNNI for codes
extern const CodeKernels AVX2_CODES;
extern const CodeKernels AVX512_CODES;
#endif
#if defined(__aarch64__)
extern const Kernels NEON_KERNELS;  // every 64-bit ARM has it
extern const CodeKernels NEON_CODES;
#endif

}  // namespace ruvector

#endif
