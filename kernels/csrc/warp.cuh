// Bilinear sampling of feature maps by a field of places: one map, or several under one field in one launch.
#pragma once
#include "device.cuh"
#include "sampling.cuh"

constexpr int MOST_MAPS = 8;

struct WarpMap {
    const void* features;  // (B, C, H, W) or (B, H, W, C)
    void* out;             // as features, with out_channels channels, of which C from out_offset on are written
    int channels, in_height, in_width;
    int out_height, out_width, out_channels, out_offset;
    int first_block;  // of this map in the grid's x
};

struct WarpParams {
    WarpMap maps[MOST_MAPS];
    const float* field;       // (B, h, w, 2), or (B, 2, h, w) where field_planar
    const float* occlusion;   // (B, h', w') factors of what is sampled, or null
    int number, batch, channels_a_thread;
    int field_height, field_width, field_planar, field_bilinear;
    int occlusion_height, occlusion_width;
    int relative;             // the field is added to the corner-aligned identity grid
    float scale_x, scale_y;   // the field's factors
    int padding;              // 0 zeros, 1 border, 2 reflection
    int align_corners;
};

// Where output row or column i of n lies among `length` values when one is enlarged to the other, half-pixel centres.
DEVICE Pair enlarged(int i, int n, int length) {
    float place = (i + 0.5f) * (static_cast<float>(length) / n) - 0.5f;
    return beside(fminf(fmaxf(place, 0.0f), length - 1.0f), length);
}

DEVICE int nearest(int i, int n, int length) {
    return least(static_cast<int>(floorf(i * (static_cast<float>(length) / n))), length - 1);
}

DEVICE float field_at(const WarpParams& p, int b, int y, int x, int axis) {
    int pixels = p.field_height * p.field_width, pixel = y * p.field_width + x;
    return p.field_planar ? p.field[(b * 2 + axis) * pixels + pixel] : p.field[(b * pixels + pixel) * 2 + axis];
}

DEVICE float field_between(const WarpParams& p, int b, Pair rows, Pair columns, int axis) {
    float upper = columns.before * field_at(p, b, rows.first, columns.first, axis) +
                  columns.after * field_at(p, b, rows.first, columns.second, axis);
    float lower = columns.before * field_at(p, b, rows.second, columns.first, axis) +
                  columns.after * field_at(p, b, rows.second, columns.second, axis);
    return rows.before * upper + rows.after * lower;
}

DEVICE Taps taps_of(const WarpParams& p, const WarpMap& map, int b, int y, int x) {
    float place[2];
    if (p.field_bilinear) {
        Pair rows = enlarged(y, map.out_height, p.field_height), columns = enlarged(x, map.out_width, p.field_width);
        place[0] = field_between(p, b, rows, columns, 0);
        place[1] = field_between(p, b, rows, columns, 1);
    } else {
        int row = nearest(y, map.out_height, p.field_height), column = nearest(x, map.out_width, p.field_width);
        place[0] = field_at(p, b, row, column, 0);
        place[1] = field_at(p, b, row, column, 1);
    }
    place[0] *= p.scale_x;
    place[1] *= p.scale_y;
    if (p.relative) {
        place[0] += map.out_width > 1 ? 2.0f * x / (map.out_width - 1) - 1.0f : -1.0f;
        place[1] += map.out_height > 1 ? 2.0f * y / (map.out_height - 1) - 1.0f : -1.0f;
    }
    Pair columns = sampled(place[0], map.in_width, p.padding, p.align_corners);
    Pair rows = sampled(place[1], map.in_height, p.padding, p.align_corners);
    float factor = 1.0f;
    if (p.occlusion != nullptr) {
        Pair up = enlarged(y, map.out_height, p.occlusion_height), along = enlarged(x, map.out_width, p.occlusion_width);
        const float* occlusion = p.occlusion + b * p.occlusion_height * p.occlusion_width;
        const float* first = occlusion + up.first * p.occlusion_width;
        const float* second = occlusion + up.second * p.occlusion_width;
        factor = up.before * (along.before * first[along.first] + along.after * first[along.second]) +
                 up.after * (along.before * second[along.first] + along.after * second[along.second]);
    }
    return taps_between(rows, columns, map.in_width, factor);
}

// The map that this block works on; the parameters are read by a fixed index so that they stay where they are.
DEVICE WarpMap map_of_block(const WarpParams& p) {
    WarpMap map = p.maps[0];
    UNROLLED for (int i = 1; i < MOST_MAPS; ++i)
        if (i < p.number && static_cast<int>(blockIdx.x) >= p.maps[i].first_block) map = p.maps[i];
    return map;
}

// Channel planes: a thread takes one pixel and a run of channels; neighbours in x are neighbours in memory.
template <class T> DEVICE void warp_planar(const WarpParams& p) {
    WarpMap map = map_of_block(p);
    int pixels = map.out_height * map.out_width, work = (blockIdx.x - map.first_block) * blockDim.x + threadIdx.x;
    int chunk = work / pixels, pixel = work - chunk * pixels, b = blockIdx.y;
    int first = chunk * p.channels_a_thread, last = least(first + p.channels_a_thread, map.channels);
    if (first >= map.channels) return;
    Taps taps = taps_of(p, map, b, pixel / map.out_width, pixel % map.out_width);
    int in_pixels = map.in_height * map.in_width;
    const T* from = static_cast<const T*>(map.features) + b * map.channels * in_pixels;
    T* to = static_cast<T*>(map.out) + (b * map.out_channels + map.out_offset) * pixels + pixel;
    ROLLED for (int c = first; c < last; c += TOGETHER) {
        float sum[TOGETHER];
        UNROLLED for (int i = 0; i < TOGETHER; ++i) sum[i] = weighed(taps, from + least(c + i, last - 1) * in_pixels);
        UNROLLED for (int i = 0; i < TOGETHER; ++i)
            if (c + i < last) to[(c + i) * pixels] = from_float<T>(sum[i]);
    }
}

// Channels last: a thread takes one pixel and N channels at once; neighbours share the pixel.
template <class T, int N> DEVICE void warp_interleaved(const WarpParams& p) {
    WarpMap map = map_of_block(p);
    int packs = map.channels / N, work = (blockIdx.x - map.first_block) * blockDim.x + threadIdx.x;
    int pixel = work / packs, pack = work - pixel * packs, b = blockIdx.y;
    int pixels = map.out_height * map.out_width;
    if (pixel >= pixels) return;
    Taps taps = taps_of(p, map, b, pixel / map.out_width, pixel % map.out_width);
    const T* from = static_cast<const T*>(map.features) + b * map.in_height * map.in_width * map.channels + pack * N;
    Pack<T, N> corner[4];
    UNROLLED for (int i = 0; i < 4; ++i)
        corner[i] = *reinterpret_cast<const Pack<T, N>*>(from + taps.at[i] * map.channels);
    Pack<T, N> result;
    UNROLLED for (int c = 0; c < N; ++c) {
        float sum = taps.weight[0] * to_float(corner[0].at[c]) + taps.weight[1] * to_float(corner[1].at[c]) +
                    taps.weight[2] * to_float(corner[2].at[c]) + taps.weight[3] * to_float(corner[3].at[c]);
        result.at[c] = from_float<T>(sum);
    }
    T* to = static_cast<T*>(map.out) + (b * pixels + pixel) * map.out_channels + map.out_offset + pack * N;
    *reinterpret_cast<Pack<T, N>*>(to) = result;
}
