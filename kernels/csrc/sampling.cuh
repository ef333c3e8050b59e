// Bilinear sampling: which four values a place lies between, and how much each weighs.
#pragma once
#include "device.cuh"

// Two neighbours along one axis and how much each weighs.
struct Pair {
    int first, second;
    float before, after;
};

DEVICE Pair beside(float place, int length) {
    Pair pair;
    float low = floorf(place);
    pair.after = place - low;
    pair.before = 1.0f - pair.after;
    pair.first = static_cast<int>(low);
    pair.second = pair.first + 1;
    if (pair.first < 0 || pair.first >= length) { pair.before = 0.0f; pair.first = 0; }
    if (pair.second < 0 || pair.second >= length) { pair.after = 0.0f; pair.second = 0; }
    return pair;
}

DEVICE float reflected(float place, float low, float span) {
    if (!(span > 0.0f)) return 0.0f;
    float away = fabsf(place - low);
    float turns = floorf(away / span);
    float rest = away - turns * span;
    return (static_cast<int>(turns) & 1) ? span - rest + low : rest + low;
}

// From [-1, 1] to pixels, then what padding does with places outside.
DEVICE Pair sampled(float place, int length, int padding, int align_corners) {
    float pixel = align_corners ? (place + 1.0f) * 0.5f * (length - 1) : ((place + 1.0f) * length - 1.0f) * 0.5f;
    if (padding == 2) pixel = align_corners ? reflected(pixel, 0.0f, length - 1.0f) : reflected(pixel, -0.5f, length);
    if (padding != 0) pixel = fminf(fmaxf(pixel, 0.0f), length - 1.0f);
    // Far outside, and what is no number, is one place outside: nothing is sampled there.
    if (!(pixel > -2.0f)) pixel = -2.0f;
    if (pixel > length + 1.0f) pixel = length + 1.0f;
    return beside(pixel, length);
}

// The four taps of one output pixel.
struct Taps {
    int at[4];
    float weight[4];
};

DEVICE Taps taps_between(Pair rows, Pair columns, int width, float factor) {
    Taps taps;
    taps.at[0] = rows.first * width + columns.first;
    taps.at[1] = rows.first * width + columns.second;
    taps.at[2] = rows.second * width + columns.first;
    taps.at[3] = rows.second * width + columns.second;
    taps.weight[0] = factor * rows.before * columns.before;
    taps.weight[1] = factor * rows.before * columns.after;
    taps.weight[2] = factor * rows.after * columns.before;
    taps.weight[3] = factor * rows.after * columns.after;
    return taps;
}

template <class T> DEVICE float weighed(const Taps& taps, const T* plane) {
    return taps.weight[0] * to_float(plane[taps.at[0]]) + taps.weight[1] * to_float(plane[taps.at[1]]) +
           taps.weight[2] * to_float(plane[taps.at[2]]) + taps.weight[3] * to_float(plane[taps.at[3]]);
}
