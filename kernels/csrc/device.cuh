// One source for nvcc, NVRTC and g++: what a kernel file needs, and nothing that knows of pictures.
//
// KERNEL(name, Params) opens a kernel that takes one struct of parameters, `p`. On a GPU it is an extern "C" kernel;
// g++ makes of it a function that runs grid and block as loops, one thread after the other. So a kernel here must not
// wait for its neighbours: no barriers, no shared memory. Indices are 32 bits wide; the caller checks the limits.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

// Half precision without <cuda_fp16.h>: NVRTC then needs no headers at all.
struct half_t {
    unsigned short bits;
};
#define DEVICE __device__ __forceinline__
#define UNROLLED _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define KERNEL(name, Params) \
    extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Params p)

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(half_t x) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
}
template <class T> DEVICE T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE half_t from_float<half_t>(float x) {
    half_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
}

#else

#include <cmath>
#include <cstdint>
#include <cstring>
using half_t = _Float16;
#define DEVICE inline
#define UNROLLED
#define ROLLED

struct Index3 { unsigned x, y, z; };
static Index3 threadIdx, blockIdx, blockDim, gridDim;

#define KERNEL(name, Params)                                                                               \
    static void name##_thread(const Params& p);                                                            \
    extern "C" unsigned name##_params_size() { return sizeof(Params); }                                    \
    extern "C" void name(const Params* p, unsigned gx, unsigned gy, unsigned gz, unsigned threads) {       \
        gridDim = {gx, gy, gz};                                                                            \
        blockDim = {threads, 1, 1};                                                                        \
        for (blockIdx.z = 0; blockIdx.z < gz; ++blockIdx.z)                                                \
            for (blockIdx.y = 0; blockIdx.y < gy; ++blockIdx.y)                                            \
                for (blockIdx.x = 0; blockIdx.x < gx; ++blockIdx.x)                                        \
                    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) name##_thread(*p);         \
    }                                                                                                      \
    static void name##_thread(const Params& p)

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(half_t x) { return static_cast<float>(x); }
template <class T> DEVICE T from_float(float x) { return static_cast<T>(x); }

DEVICE unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
DEVICE float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
DEVICE unsigned long long atomicMin(unsigned long long* place, unsigned long long value) {
    unsigned long long before = *place;
    if (value < before) *place = value;
    return before;
}
DEVICE int atomicMax(int* place, int value) {
    int before = *place;
    if (value > before) *place = value;
    return before;
}
DEVICE float atomicAdd(float* place, float value) {
    float before = *place;
    *place = before + value;
    return before;
}

#endif

DEVICE float to_float(unsigned char x) { return x; }

template <class T> DEVICE T least(T a, T b) { return a < b ? a : b; }
template <class T> DEVICE T most(T a, T b) { return a < b ? b : a; }

// Channels of which a thread loads all before it stores the first. To the compiler every store might change what is
// loaded next, so one by one each channel would wait for the one before.
constexpr int TOGETHER = 4;

// N values that are loaded and stored at once: 16 bytes for 4 floats or 8 halves.
template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T at[N];
};
