// Crops of a picture on their way into a network, and a network's pictures on their way back into the photo. Both go by
// affine maps, (2, 3) from crop pixels to picture pixels, pixel centres at whole numbers; `crops.py` has the twins.
#include "device.cuh"
#include "sampling.cuh"

constexpr int RUN = 16;           // pixels of 3 bytes that fill whole packs of 16 bytes
constexpr int PACKS = 3;          // of such a run
constexpr float FARTHEST = 1e6f;  // pixels; places further away are there
using Bytes = Pack<unsigned char, 16>;

struct CropParams {
    const unsigned char* picture;  // (H, W, 3 or 4)
    const float* maps;             // (B, 2, 3)
    void* out;                     // (B, 3, h, w)
    int height, width, channels, out_height, out_width;
    int reversed;  // the picture's channels are taken from the third to the first
    int zeros;     // beyond the picture is 0, not its border
    float scale[3], offset[3];
};

struct PasteParams {
    const unsigned char* photo;  // (H, W, 3)
    unsigned char* out;          // as photo, or photo itself
    const void* crops;           // (B, 3, h, w)
    const void* masks;           // (h, w) or (B, h, w)
    const float* maps;           // (B, 2, 3)
    int height, width, batch, crop_height, crop_width;
    int mask_step;   // values from one crop's mask to the next one's
    int mask_bytes;  // 0 to 255, not float32
    int reversed;
    int packed;  // photo and out begin at whole 16 bytes
    float scale[3], offset[3];
};

struct Affine {
    float xx, xy, x0, yx, yy, y0;
};

DEVICE Affine map_at(const float* maps, int b) {
    const float* m = maps + 6 * b;
    return {m[0], m[1], m[2], m[3], m[4], m[5]};
}

// From picture pixels less (x0, y0) to crop pixels. A map without an inverse gives no numbers: all lies outside.
DEVICE Affine inverse(Affine map) {
    float factor = 1.0f / (map.xx * map.yy - map.xy * map.yx);
    return {map.yy * factor, -map.xy * factor, map.x0, -map.yx * factor, map.xx * factor, map.y0};
}

DEVICE float extent_x(Affine map) { return sqrtf(map.xx * map.xx + map.xy * map.xy); }
DEVICE float extent_y(Affine map) { return sqrtf(map.yx * map.yx + map.yy * map.yy); }

// How samples lie in memory: pixels `step` values apart.
struct Plane {
    int height, width, step;
};

// A place's four neighbours.
struct Bilinear {
    Taps taps;

    DEVICE static Pair pair(float place, int length, int zeros) {
        if (!zeros) place = fminf(fmaxf(place, 0.0f), length - 1.0f);
        return beside(fminf(fmaxf(place, -2.0f), length + 1.0f), length);
    }

    DEVICE Bilinear(float x, float y, Affine, Plane plane, int zeros)
        : taps(taps_between(pair(y, plane.height, zeros), pair(x, plane.width, zeros), plane.width, 1.0f)) {
        UNROLLED for (int i = 0; i < 4; ++i) taps.at[i] *= plane.step;
    }

    template <int N, class T> DEVICE void sample(const T* values, int channel_step, float (&sum)[N]) const {
        UNROLLED for (int c = 0; c < N; ++c) sum[c] = weighed(taps, values + c * channel_step);
    }
};

// What a box covers along one axis, where pixel i reaches from i - 0.5 to i + 0.5.
struct Stretch {
    float low, high;
    int first, last, length, zeros;

    DEVICE Stretch(float place, float extent, int length, int zeros) : length(length), zeros(zeros) {
        place = fminf(fmaxf(place, -FARTHEST), FARTHEST);
        extent = fminf(fmaxf(extent, 1.0f), FARTHEST);
        low = place - 0.5f * extent;
        high = place + 0.5f * extent;
        // Where nothing lies beyond the picture, its first and last pixel reach on for ever.
        first = static_cast<int>(fminf(fmaxf(floorf(low + 0.5f), 0.0f), zeros ? length : length - 1.0f));
        last = static_cast<int>(fminf(fmaxf(ceilf(high - 0.5f), zeros ? -1.0f : 0.0f), length - 1.0f));
    }

    DEVICE float weight(int i) const {
        float from = i == 0 && !zeros ? low : fmaxf(low, i - 0.5f);
        float to = i == length - 1 && !zeros ? high : fminf(high, i + 0.5f);
        return to - from;
    }
};

// The mean of a box around a place, as wide as the map's step but never narrower than a pixel.
struct Area {
    Stretch rows, columns;
    int width, step;

    DEVICE Area(float x, float y, Affine map, Plane plane, int zeros)
        : rows(y, extent_y(map), plane.height, zeros),
          columns(x, extent_x(map), plane.width, zeros),
          width(plane.width),
          step(plane.step) {}

    template <int N, class T> DEVICE void sample(const T* values, int channel_step, float (&sum)[N]) const {
        UNROLLED for (int c = 0; c < N; ++c) sum[c] = 0.0f;
        for (int y = rows.first; y <= rows.last; ++y) {
            float row = rows.weight(y);
            ROLLED for (int x = columns.first; x <= columns.last; ++x) {
                float weight = row * columns.weight(x);
                const T* pixel = values + (y * width + x) * step;
                UNROLLED for (int c = 0; c < N; ++c) sum[c] += weight * to_float(pixel[c * channel_step]);
            }
        }
        float share = 1.0f / ((rows.high - rows.low) * (columns.high - columns.low));
        UNROLLED for (int c = 0; c < N; ++c) sum[c] *= share;
    }
};

// A thread makes the three values of one pixel of one crop.
template <class T, class Sampler> DEVICE void crop(const CropParams& p) {
    int pixels = p.out_height * p.out_width, pixel = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
    if (pixel >= pixels) return;
    Affine map = map_at(p.maps, b);
    float x = static_cast<float>(pixel % p.out_width), y = static_cast<float>(pixel / p.out_width), value[3];
    Sampler sampler(map.xx * x + map.xy * y + map.x0, map.yx * x + map.yy * y + map.y0, map,
                    {p.height, p.width, p.channels}, p.zeros);
    sampler.sample(p.picture, 1, value);
    T* out = static_cast<T*>(p.out) + b * 3 * pixels + pixel;
    UNROLLED for (int c = 0; c < 3; ++c)
        out[c * pixels] = from_float<T>((p.reversed ? value[2 - c] : value[c]) * p.scale[c] + p.offset[c]);
}

// Whether the pixels from `first` on, a run within one row, all lie outside every crop.
DEVICE bool apart(const PasteParams& p, int first) {
    int y = first / p.width, x = first - y * p.width;
    if (x + RUN > p.width) return false;
    for (int b = 0; b < p.batch; ++b) {
        Affine back = inverse(map_at(p.maps, b));
        float left = x - back.x0, right = left + (RUN - 1), down = y - back.y0;
        float u = back.xx * left + back.xy * down, v = back.yx * left + back.yy * down;
        float u_last = back.xx * right + back.xy * down, v_last = back.yx * right + back.yy * down;
        // Half a pixel more than the crop has: rounding then cannot lose one of its pixels.
        if (fmaxf(u, u_last) > -1.0f && fminf(u, u_last) < p.crop_width && fmaxf(v, v_last) > -1.0f &&
            fminf(v, v_last) < p.crop_height)
            return false;
    }
    return true;
}

// Lays crop b over a pixel, where it covers it.
template <class T, class Sampler>
DEVICE void lay(const PasteParams& p, int b, int x, int y, unsigned char (&pixel)[3]) {
    Affine back = inverse(map_at(p.maps, b));
    float right = x - back.x0, down = y - back.y0;
    float u = back.xx * right + back.xy * down, v = back.yx * right + back.yy * down;
    if (!(u >= -0.5f && u < p.crop_width - 0.5f && v >= -0.5f && v < p.crop_height - 0.5f)) return;
    int values = p.crop_height * p.crop_width;
    Sampler sampler(u, v, back, {p.crop_height, p.crop_width, 1}, 0);
    float part[1], over[3];
    if (p.mask_bytes)
        sampler.sample(static_cast<const unsigned char*>(p.masks) + b * p.mask_step, 0, part);
    else
        sampler.sample(static_cast<const float*>(p.masks) + b * p.mask_step, 0, part);
    part[0] = fminf(fmaxf(p.mask_bytes ? part[0] / 255.0f : part[0], 0.0f), 1.0f);
    sampler.sample(static_cast<const T*>(p.crops) + b * 3 * values, values, over);
    UNROLLED for (int c = 0; c < 3; ++c) over[c] = fminf(fmaxf(over[c] * p.scale[c] + p.offset[c], 0.0f), 255.0f);
    UNROLLED for (int c = 0; c < 3; ++c) {
        float mixed = pixel[c] * (1.0f - part[0]) + (p.reversed ? over[2 - c] : over[c]) * part[0];
        pixel[c] = static_cast<unsigned char>(floorf(mixed + 0.5f));
    }
}

// A thread has one pixel. Where no crop is near, three of a run's sixteen threads copy it whole.
template <class T, class Sampler> DEVICE void paste(const PasteParams& p) {
    int pixels = p.height * p.width, number = blockIdx.x * blockDim.x + threadIdx.x;
    if (number >= pixels) return;
    int lane = number % RUN, first = number - lane;
    if (p.packed && first + RUN <= pixels && apart(p, first)) {
        int pack = first / RUN * PACKS + lane;
        if (lane < PACKS && p.photo != p.out)
            reinterpret_cast<Bytes*>(p.out)[pack] = reinterpret_cast<const Bytes*>(p.photo)[pack];
        return;
    }
    int y = number / p.width, x = number - y * p.width;
    unsigned char pixel[3];
    UNROLLED for (int c = 0; c < 3; ++c) pixel[c] = p.photo[3 * number + c];
    for (int b = 0; b < p.batch; ++b) lay<T, Sampler>(p, b, x, y, pixel);
    UNROLLED for (int c = 0; c < 3; ++c) p.out[3 * number + c] = pixel[c];
}

KERNEL(crop_bilinear_f32, CropParams) { crop<float, Bilinear>(p); }
KERNEL(crop_bilinear_f16, CropParams) { crop<half_t, Bilinear>(p); }
KERNEL(crop_area_f32, CropParams) { crop<float, Area>(p); }
KERNEL(crop_area_f16, CropParams) { crop<half_t, Area>(p); }
KERNEL(paste_bilinear_f32, PasteParams) { paste<float, Bilinear>(p); }
KERNEL(paste_bilinear_f16, PasteParams) { paste<half_t, Bilinear>(p); }
KERNEL(paste_area_f32, PasteParams) { paste<float, Area>(p); }
KERNEL(paste_area_f16, PasteParams) { paste<half_t, Area>(p); }
