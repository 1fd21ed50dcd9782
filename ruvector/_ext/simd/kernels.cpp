// Finds out what the CPU can run and chooses the kernel table, once per process.
#include "kernels.h"

#include <cstdlib>
#include <cstring>

#include "tables.h"

#if RUVECTOR_X86
#include <cpuid.h>
#endif

namespace ruvector {
namespace {

#if RUVECTOR_X86
// What matters here of the CPU; a feature counts only if the operating system saves its registers too.
struct Cpu {
    bool avx2 = false;         // with FMA, F16C and POPCNT
    bool avx512 = false;       // F, BW and VL
    bool popcount512 = false;  // VPOPCNTDQ and VNNI; whatever has one has the other
};

// Older compilers do not know F16C by name in __builtin_cpu_supports; CPUID leaf 1 does. Its registers are AVX's.
bool has_f16c() {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 29)) != 0;
}

Cpu detect() {
    Cpu cpu;
    // Both calls look at XGETBV: they say no where the operating system does not keep YMM or ZMM registers.
    __builtin_cpu_init();
    cpu.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt") &&
               has_f16c();
    cpu.avx512 = cpu.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl");
    cpu.popcount512 = cpu.avx512 && __builtin_cpu_supports("avx512vpopcntdq") &&
                      __builtin_cpu_supports("avx512vnni");
    return cpu;
}

const Cpu& cpu() {
    static const Cpu detected = detect();
    return detected;
}
#endif

const Kernels& best() {
#if RUVECTOR_X86
    if (cpu().popcount512) return AVX512_POPCOUNT_KERNELS;
    if (cpu().avx512) return AVX512_KERNELS;
    if (cpu().avx2) return AVX2_KERNELS;
#endif
#if defined(__aarch64__)
    return NEON_KERNELS;
#else
    return SCALAR_KERNELS;
#endif
}

const Kernels& choose() {
    const char* wanted = std::getenv("RUVECTOR_SIMD");
    const Kernels* forced = wanted == nullptr ? nullptr : kernels_named(wanted);
    return forced == nullptr ? best() : *forced;
}

}  // namespace

const Kernels* kernels_named(const char* name) noexcept {
    if (std::strcmp(name, "scalar") == 0) return &SCALAR_KERNELS;
#if RUVECTOR_X86
    if (cpu().avx2 && std::strcmp(name, "avx2") == 0) return &AVX2_KERNELS;
    // A CPU without VPOPCNTDQ is stood in for by this name, so that its kernels can be tested everywhere.
    if (cpu().avx512 && std::strcmp(name, "avx512-table") == 0) return &AVX512_KERNELS;
    if (cpu().avx512 && std::strcmp(name, "avx512") == 0) return &best();
#endif
#if defined(__aarch64__)
    if (std::strcmp(name, "neon") == 0) return &NEON_KERNELS;
#endif
    return nullptr;
}

const Kernels& kernels() noexcept {
    static const Kernels& chosen = choose();
    return chosen;
}

const char* cpu_features() noexcept {
#if RUVECTOR_X86
    if (cpu().popcount512) return "avx2 fma f16c avx512f avx512bw avx512vl avx512vpopcntdq avx512vnni";
    if (cpu().avx512) return "avx2 fma f16c avx512f avx512bw avx512vl";
    if (cpu().avx2) return "avx2 fma f16c";
#endif
#if defined(__aarch64__)
    return "neon";
#else
    return "baseline only";
#endif
}

}  // namespace ruvector
