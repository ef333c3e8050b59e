// The flow of a moving triangle mesh, and a photo taken through it: the rules of `mesh.py`.
//
// Two launches. Each triangle raises the owners of the pixels that it covers to its number, so the last of the
// overlapping ones stays whatever the order of threads; then each pixel asks its owner where it comes from.
#include "device.cuh"

constexpr int LANES = 32;          // threads that share a triangle's rows
constexpr double NO_AREA = 1e-7;   // twice the area in pixels below which a triangle is not drawn
constexpr double EDGE = 1e-4;      // pixels by which a pixel centre may lie outside and still count as on the edge
constexpr double MOST_AREA = 1e100;  // only what is not finite is more
constexpr float FARTHEST = 1e9f;   // pixels; places further away are there

// Where a triangle's pixels come from: (u, v) at pixel (x, y), steps to the right and down, and how far its source
// reaches. The pixel lies beside the triangle, so that float32 loses nothing on the way. Loaded 16 bytes at once.
struct alignas(16) Origin {
    float x, y, u, v;
    float u_right, u_down, v_right, v_down;
    float u_low, u_high, v_low, v_high;
};

struct PaintParams {
    const float* targets;  // (N, 2)
    const float* sources;  // (N, 2)
    const int* triangles;  // (M, 3)
    int* owners;           // (H, W): number of the triangle + 1, or 0
    Origin* origins;       // (M,)
    int vertex_count, triangle_count, height, width;
};

struct Painted {
    int* owners;  // 0 again when they have been asked
    const Origin* origins;
    int triangle_count, height, width;
};

struct FlowParams {
    Painted painted;
    float* flow;  // (H, W, 2)
};

struct WarpParams {
    Painted painted;
    const unsigned char* photo;  // (photo_height, photo_width, 3)
    unsigned char* out;          // (H, W, 3)
    int photo_height, photo_width;
};

struct Corners {
    double x[3], y[3];
    double area;
};

// False where the triangle names a vertex that is not there, has no area or is not finite.
DEVICE bool corners_of(const PaintParams& p, int t, int (&number)[3], Corners& at) {
    UNROLLED for (int k = 0; k < 3; ++k) {
        number[k] = p.triangles[3 * t + k];
        if (number[k] < 0 || number[k] >= p.vertex_count) return false;
        at.x[k] = p.targets[2 * number[k]];
        at.y[k] = p.targets[2 * number[k] + 1];
    }
    at.area = (at.x[1] - at.x[0]) * (at.y[2] - at.y[0]) - (at.x[2] - at.x[0]) * (at.y[1] - at.y[0]);
    return fabs(at.area) >= NO_AREA && fabs(at.area) < MOST_AREA;
}

DEVICE double least_of(const double (&a)[3]) { return fmin(fmin(a[0], a[1]), a[2]); }
DEVICE double most_of(const double (&a)[3]) { return fmax(fmax(a[0], a[1]), a[2]); }
DEVICE int first_from(double place, int length) {
    return static_cast<int>(fmin(fmax(ceil(place - EDGE), 0.0), double(length)));
}
DEVICE int last_until(double place, int length) {
    return static_cast<int>(fmin(fmax(floor(place + EDGE), -1.0), length - 1.0));
}

// Pixels from `first` to `last` of row y, in double as on the CPU: a pixel then has the same triangles.
DEVICE void span(const Corners& at, int y, int width, int& first, int& last) {
    double left = 1e30, right = -1e30;
    UNROLLED for (int k = 0; k < 3; ++k) {
        double ax = at.x[k], ay = at.y[k], bx = at.x[(k + 1) % 3], by = at.y[(k + 1) % 3];
        if (!(fmin(ay, by) - EDGE <= y && y <= fmax(ay, by) + EDGE)) continue;
        if (fabs(by - ay) <= EDGE) {
            left = fmin(left, fmin(ax, bx));
            right = fmax(right, fmax(ax, bx));
        } else {
            double cut = ax + (bx - ax) * fmin(1.0, fmax(0.0, (y - ay) / (by - ay)));
            left = fmin(left, cut);
            right = fmax(right, cut);
        }
    }
    first = first_from(left, width);
    last = last_until(right, width);
}

DEVICE void write_origin(const PaintParams& p, int t, const int (&number)[3], const Corners& at, int x, int y) {
    double u[3], v[3];
    UNROLLED for (int k = 0; k < 3; ++k) {
        u[k] = p.sources[2 * number[k]];
        v[k] = p.sources[2 * number[k] + 1];
    }
    double dx1 = at.x[1] - at.x[0], dy1 = at.y[1] - at.y[0], dx2 = at.x[2] - at.x[0], dy2 = at.y[2] - at.y[0];
    double u_right = ((u[1] - u[0]) * dy2 - (u[2] - u[0]) * dy1) / at.area;
    double u_down = ((u[2] - u[0]) * dx1 - (u[1] - u[0]) * dx2) / at.area;
    double v_right = ((v[1] - v[0]) * dy2 - (v[2] - v[0]) * dy1) / at.area;
    double v_down = ((v[2] - v[0]) * dx1 - (v[1] - v[0]) * dx2) / at.area;
    double right = x - at.x[0], down = y - at.y[0];
    Origin origin;
    origin.x = static_cast<float>(x);
    origin.y = static_cast<float>(y);
    origin.u = static_cast<float>(u[0] + u_right * right + u_down * down);
    origin.v = static_cast<float>(v[0] + v_right * right + v_down * down);
    origin.u_right = static_cast<float>(u_right);
    origin.u_down = static_cast<float>(u_down);
    origin.v_right = static_cast<float>(v_right);
    origin.v_down = static_cast<float>(v_down);
    origin.u_low = static_cast<float>(least_of(u));
    origin.u_high = static_cast<float>(most_of(u));
    origin.v_low = static_cast<float>(least_of(v));
    origin.v_high = static_cast<float>(most_of(v));
    p.origins[t] = origin;
}

KERNEL(mesh_paint, PaintParams) {
    int work = blockIdx.x * blockDim.x + threadIdx.x, t = work / LANES, lane = work % LANES, number[3];
    Corners at;
    if (t >= p.triangle_count || !corners_of(p, t, number, at)) return;
    int top = first_from(least_of(at.y), p.height), bottom = last_until(most_of(at.y), p.height);
    if (lane == 0) write_origin(p, t, number, at, first_from(least_of(at.x), p.width), top);
    for (int y = top + lane; y <= bottom; y += LANES) {
        int first, last;
        span(at, y, p.width, first, last);
        for (int x = first; x <= last; ++x) atomicMax(p.owners + y * p.width + x, t + 1);
    }
}

// Where pixel (x, y) comes from; false where no triangle covers it.
DEVICE bool came_from(const Painted& p, int x, int y, float& u, float& v) {
    int* owner = p.owners + y * p.width + x;
    int t = *owner - 1;
    if (t < 0) return false;
    *owner = 0;
    if (t >= p.triangle_count) return false;
    Origin origin = p.origins[t];
    float right = x - origin.x, down = y - origin.y;
    // A sliver's steps are huge; what lies in its pixels is still its own.
    u = fminf(fmaxf(origin.u + origin.u_right * right + origin.u_down * down, origin.u_low), origin.u_high);
    v = fminf(fmaxf(origin.v + origin.v_right * right + origin.v_down * down, origin.v_low), origin.v_high);
    return true;
}

// Reflected into 0 .. length - 1 without repeating the edge.
DEVICE int mirrored(int i, int length) {
    if (length == 1) return 0;
    i = (i < 0 ? -i : i) % (2 * length - 2);
    return i < length ? i : 2 * length - 2 - i;
}

KERNEL(mesh_flow, FlowParams) {
    int pixel = blockIdx.x * blockDim.x + threadIdx.x, y = pixel / p.painted.width, x = pixel - y * p.painted.width;
    float u, v;
    if (y >= p.painted.height || !came_from(p.painted, x, y, u, v)) return;
    p.flow[2 * pixel] = u;
    p.flow[2 * pixel + 1] = v;
}

KERNEL(mesh_warp, WarpParams) {
    int pixel = blockIdx.x * blockDim.x + threadIdx.x, y = pixel / p.painted.width, x = pixel - y * p.painted.width;
    if (y >= p.painted.height) return;
    float u = static_cast<float>(x), v = static_cast<float>(y);
    came_from(p.painted, x, y, u, v);
    u = fminf(fmaxf(u, -FARTHEST), FARTHEST);
    v = fminf(fmaxf(v, -FARTHEST), FARTHEST);
    float column = floorf(u), row = floorf(v), after = u - column, below = v - row;
    int left = static_cast<int>(column), upper = static_cast<int>(row);
    int columns[2] = {mirrored(left, p.photo_width), mirrored(left + 1, p.photo_width)};
    int rows[2] = {mirrored(upper, p.photo_height), mirrored(upper + 1, p.photo_height)};
    float sum[3] = {0.0f, 0.0f, 0.0f};
    UNROLLED for (int k = 0; k < 4; ++k) {
        const unsigned char* from = p.photo + 3 * (rows[k / 2] * p.photo_width + columns[k % 2]);
        float weight = (k % 2 ? after : 1.0f - after) * (k / 2 ? below : 1.0f - below);
        UNROLLED for (int c = 0; c < 3; ++c) sum[c] += weight * to_float(from[c]);
    }
    UNROLLED for (int c = 0; c < 3; ++c) p.out[3 * pixel + c] = static_cast<unsigned char>(rintf(sum[c]));
}
