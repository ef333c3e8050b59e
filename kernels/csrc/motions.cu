// First-order motion around keypoints: what the dense-motion networks take in, and what becomes of their masks.
#include "device.cuh"
#include "sampling.cuh"

struct SparseParams {
    const void* source;       // (B, C, h, w)
    void* out;                // (B, out_channels, h, w): K + 1 groups of 1 + C channels, from out_offset on
    const float* keypoints_source;   // (B, K, 2)
    const float* keypoints_driving;  // (B, K, 2)
    const float* jacobians;   // (B, K, 2, 2), or null: identity
    int batch, keypoints, channels, height, width, out_channels, out_offset;
    float inverse_spread;  // 1 / (2 variance)
};

struct CombineParams {
    const void* logits;       // (B, M, h, w)
    const float* others;      // (B, M - K - 1, h, w, 2) motions of the last masks, or null
    float* out;               // (B, h, w, 2)
    const float* keypoints_source;
    const float* keypoints_driving;
    const float* jacobians;
    int batch, keypoints, masks, height, width;
};

// Columns or rows run from -1 to 1 over the pixel centres.
DEVICE float corner_aligned(int i, int length) { return length > 1 ? 2.0f * i / (length - 1) - 1.0f : -1.0f; }

// Where motion k (0: none, else keypoint k - 1) takes the place (x, y) of the driving from in the source.
template <class P> DEVICE void moved(const P& p, int b, int k, float& x, float& y) {
    if (k == 0) return;
    int keypoint = b * p.keypoints + k - 1;
    float dx = x - p.keypoints_driving[2 * keypoint], dy = y - p.keypoints_driving[2 * keypoint + 1];
    float mx = dx, my = dy;
    if (p.jacobians != nullptr) {
        const float* j = p.jacobians + 4 * keypoint;
        mx = j[0] * dx + j[1] * dy;
        my = j[2] * dx + j[3] * dy;
    }
    x = mx + p.keypoints_source[2 * keypoint];
    y = my + p.keypoints_source[2 * keypoint + 1];
}

DEVICE float bell(const float* keypoint, float x, float y, float factor) {
    float dx = x - keypoint[0], dy = y - keypoint[1];
    return expf(-factor * (dx * dx + dy * dy));
}

template <class T> DEVICE void sparse_motions(const SparseParams& p) {
    int pixels = p.height * p.width, work = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
    int k = work / pixels, pixel = work - k * pixels;
    if (k > p.keypoints) return;
    float x = corner_aligned(pixel % p.width, p.width), y = corner_aligned(pixel / p.width, p.height);
    T* to = static_cast<T*>(p.out) + (b * p.out_channels + p.out_offset + k * (1 + p.channels)) * pixels + pixel;
    float heat = 0.0f;
    if (k > 0) {
        int keypoint = 2 * (b * p.keypoints + k - 1);
        heat = bell(p.keypoints_driving + keypoint, x, y, p.inverse_spread) -
               bell(p.keypoints_source + keypoint, x, y, p.inverse_spread);
    }
    *to = from_float<T>(heat);
    moved(p, b, k, x, y);
    Taps taps = taps_between(sampled(y, p.height, 0, 0), sampled(x, p.width, 0, 0), p.width, 1.0f);
    const T* from = static_cast<const T*>(p.source) + b * p.channels * pixels;
    for (int c = 0; c < p.channels; ++c, from += pixels) {
        to += pixels;
        *to = from_float<T>(weighed(taps, from));
    }
}

template <class T> DEVICE void combine_motions(const CombineParams& p) {
    int pixels = p.height * p.width, pixel = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
    if (pixel >= pixels) return;
    const T* logits = static_cast<const T*>(p.logits) + b * p.masks * pixels + pixel;
    float largest = to_float(logits[0]);
    for (int m = 1; m < p.masks; ++m) largest = fmaxf(largest, to_float(logits[m * pixels]));
    float sum = 0.0f, sum_x = 0.0f, sum_y = 0.0f;
    for (int m = 0; m < p.masks; ++m) {
        float weight = expf(to_float(logits[m * pixels]) - largest);
        float x = corner_aligned(pixel % p.width, p.width), y = corner_aligned(pixel / p.width, p.height);
        if (m <= p.keypoints) {
            moved(p, b, m, x, y);
        } else {
            int other = (b * (p.masks - p.keypoints - 1) + m - p.keypoints - 1) * pixels + pixel;
            x = p.others[2 * other];
            y = p.others[2 * other + 1];
        }
        sum += weight;
        sum_x += weight * x;
        sum_y += weight * y;
    }
    float* to = p.out + 2 * (b * pixels + pixel);
    to[0] = sum_x / sum;
    to[1] = sum_y / sum;
}

KERNEL(sparse_motions_f32, SparseParams) { sparse_motions<float>(p); }
KERNEL(sparse_motions_f16, SparseParams) { sparse_motions<half_t>(p); }
KERNEL(combine_motions_f32, CombineParams) { combine_motions<float>(p); }
KERNEL(combine_motions_f16, CombineParams) { combine_motions<half_t>(p); }
