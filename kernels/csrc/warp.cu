// Kernels that sample feature maps, by layout and dtype.
#include "warp.cuh"

KERNEL(warp_planar_f32, WarpParams) { warp_planar<float>(p); }
KERNEL(warp_planar_f16, WarpParams) { warp_planar<half_t>(p); }
KERNEL(warp_interleaved_f32, WarpParams) { warp_interleaved<float, 1>(p); }
KERNEL(warp_interleaved_f32x4, WarpParams) { warp_interleaved<float, 4>(p); }
KERNEL(warp_interleaved_f16, WarpParams) { warp_interleaved<half_t, 1>(p); }
KERNEL(warp_interleaved_f16x8, WarpParams) { warp_interleaved<half_t, 8>(p); }
