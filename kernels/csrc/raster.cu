// Triangle meshes as pictures: the rules and names of `raster.py`. A mesh is drawn in three launches: keys are emptied,
// each triangle lowers the keys of the pixels that it covers, and each pixel looks up what its key says.
#include "device.cuh"

constexpr int SUBPIXELS = 16;   // positions a pixel that a corner may take, along x and along y
constexpr int MOST_SETS = 4;    // of attributes in one launch
constexpr int MOST_CORNERS = 9; // of a triangle cut by six planes

using Key = unsigned long long;  // depth above, 2^32 - 1 - id below: the least is the nearest, of equals the later
constexpr Key NOTHING = ~0ull;

struct Mesh {
    const float* vertices;  // (V, 4) clip space
    const int* triangles;   // (T, 3)
    int vertex_count, triangle_count;
};

struct ClearParams {
    Key* keys;
    int pixels;
};

struct DrawParams {
    Mesh mesh;
    Key* keys;  // (H, W)
    int height, width;
    int lanes;  // threads that share a triangle's rows
};

struct ResolveParams {
    Mesh mesh;
    const Key* keys;
    int* ids;    // (H, W)
    float* uvz;  // (H, W, 3)
    int height, width;
};

struct CullParams {
    Mesh mesh;
    int* ids;
    float* uvz;
    int pixels;
};

struct AttributeSet {
    const float* attributes;  // (V, A)
    void* out;
    int channels;
    int offset, pixel_step, channel_step;  // of a pixel's first channel in `out`, in elements
    int first_block;                       // of this set in the grid's x
};

struct InterpolateParams {
    AttributeSet sets[MOST_SETS];
    const int* triangles;
    const int* ids;
    const float* uvz;
    int number, vertex_count, triangle_count, pixels, channels_a_thread;
};

struct OutlineParams {
    Mesh mesh;
    const int* neighbours;    // (T, 3)
    unsigned char* outlines;  // (T,)
};

struct AntialiasParams {
    Mesh mesh;
    const int* ids;
    const float* uvz;
    const unsigned char* outlines;
    const void* image;
    void* out;
    int height, width, channels, channels_a_thread;
    int in_pixel_step, in_channel_step;
    int offset, out_pixel_step, out_channel_step;
};

struct Vertex {
    float x, y, z, w;
};

// Position in 1/16 pixel from the picture's middle, and z / w.
struct Corner {
    int x, y;
    float z;
};

DEVICE int thread_number() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

// False where the mesh has no such triangle or the triangle names a vertex that is not there.
DEVICE bool corners_of(const int* triangles, int triangle_count, int vertex_count, int t, int (&corner)[3]) {
    if (t < 0 || t >= triangle_count) return false;
    bool known = true;
    UNROLLED for (int k = 0; k < 3; ++k) {
        corner[k] = triangles[3 * t + k];
        known = known && corner[k] >= 0 && corner[k] < vertex_count;
    }
    return known;
}

DEVICE Vertex vertex_of(const Mesh& mesh, int i) {
    const float* v = mesh.vertices + 4 * i;
    return {v[0], v[1], v[2], v[3]};
}

DEVICE bool corners_of(const Mesh& mesh, int t, Vertex (&vertex)[3]) {
    int corner[3];
    if (!corners_of(mesh.triangles, mesh.triangle_count, mesh.vertex_count, t, corner)) return false;
    UNROLLED for (int k = 0; k < 3; ++k) vertex[k] = vertex_of(mesh, corner[k]);
    return true;
}

constexpr unsigned NOWHERE = 64;

// Which of the six planes a vertex lies beyond, a bit each; NOWHERE where it is not finite or lies in the eye.
DEVICE unsigned outside(Vertex v) {
    if ((v.x - v.x) + (v.y - v.y) + (v.z - v.z) + (v.w - v.w) != 0.0f) return NOWHERE;
    unsigned planes = (v.x < -v.w ? 1u : 0u) | (v.x > v.w ? 2u : 0u) | (v.y < -v.w ? 4u : 0u) |
                      (v.y > v.w ? 8u : 0u) | (v.z < -v.w ? 16u : 0u) | (v.z > v.w ? 32u : 0u);
    return planes == 0 && v.w == 0.0f ? NOWHERE : planes;
}

DEVICE Corner projected(Vertex v, int height, int width) {
    float half_x = static_cast<float>(width * (SUBPIXELS / 2)), half_y = static_cast<float>(height * (SUBPIXELS / 2));
    return {static_cast<int>(rintf(v.x / v.w * half_x)), static_cast<int>(rintf(v.y / v.w * half_y)), v.z / v.w};
}

DEVICE long long product(int a, int b) { return static_cast<long long>(a) * b; }

// Rounded down, also below 0.
DEVICE int pixels_before(int subpixels) { return subpixels >> 4; }

// Twice the area that a point makes with an edge, and how it grows a pixel to the right and a pixel down.
struct Edge {
    long long area;
    int right, down;
};

DEVICE Edge edge(Corner a, Corner b, int x, int y) {
    int across = b.x - a.x, along = b.y - a.y;
    return {product(across, y - a.y) - product(along, x - a.x), -SUBPIXELS * along, SUBPIXELS * across};
}

// 0 where a pixel centre on the edge belongs to this triangle, else 1: left and upper edges keep theirs.
DEVICE int shared(Edge e) { return e.right > 0 || (e.right == 0 && e.down > 0) ? 0 : 1; }

DEVICE Key key_of(float depth, int t) {
    unsigned bits = __float_as_uint(depth + 0.0f);  // -0 becomes 0
    unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<Key>(ordered) << 32 | ~static_cast<unsigned>(t + 1);
}

// Lowers the keys of every `lanes`-th row of the pixels whose centre the triangle covers.
DEVICE void fill(const DrawParams& p, Corner a, Corner b, Corner c, int t, int lane) {
    // The first pixel's centre lies this far from the picture's middle.
    int middle_x = SUBPIXELS / 2 * (p.width - 1), middle_y = SUBPIXELS / 2 * (p.height - 1);
    int top = most(pixels_before(least(least(a.y, b.y), c.y) + middle_y + SUBPIXELS - 1), 0);
    int bottom = least(pixels_before(most(most(a.y, b.y), c.y) + middle_y), p.height - 1);
    int left = most(pixels_before(least(least(a.x, b.x), c.x) + middle_x + SUBPIXELS - 1), 0);
    int right = least(pixels_before(most(most(a.x, b.x), c.x) + middle_x), p.width - 1);
    if (top + lane > bottom || left > right) return;
    long long area = product(b.x - a.x, c.y - a.y) - product(b.y - a.y, c.x - a.x);
    if (area == 0) return;
    if (area < 0) {
        Corner other = b;
        b = c;
        c = other;
        area = -area;
    }
    int x = SUBPIXELS * left - middle_x;
    float slope_b = (b.z - a.z) / static_cast<float>(area), slope_c = (c.z - a.z) / static_cast<float>(area);
    for (int row = top + lane; row <= bottom; row += p.lanes) {
        int y = SUBPIXELS * row - middle_y;
        Edge to_a = edge(b, c, x, y), to_b = edge(c, a, x, y), to_c = edge(a, b, x, y);
        int open_a = shared(to_a), open_b = shared(to_b), open_c = shared(to_c);
        Key* key = p.keys + row * p.width;
        for (int column = left; column <= right; ++column) {
            if (((to_a.area - open_a) | (to_b.area - open_b) | (to_c.area - open_c)) >= 0) {
                float depth =
                    a.z + (static_cast<float>(to_b.area) * slope_b + static_cast<float>(to_c.area) * slope_c);
                Key mine = key_of(depth, t);
                if (mine < key[column]) atomicMin(key + column, mine);  // keys only sink: an old one misleads nobody
            }
            to_a.area += to_a.right;
            to_b.area += to_b.right;
            to_c.area += to_c.right;
        }
    }
}

// Cuts the triangle in the first three rows to the frustum, in place; returns the number of corners.
DEVICE int cut(double (&polygon)[MOST_CORNERS][4]) {
    double spare[MOST_CORNERS][4];
    int count = 3;
    for (int plane = 0; plane < 6; ++plane) {
        int axis = plane / 2, kept = 0;
        double side = plane % 2 ? -1.0 : 1.0;
        for (int end = 0; end < count; ++end) {
            int start = end ? end - 1 : count - 1;
            double before = polygon[start][3] + side * polygon[start][axis];
            double after = polygon[end][3] + side * polygon[end][axis];
            if ((before >= 0) != (after >= 0)) {
                double part = before / (before - after);
                for (int n = 0; n < 4; ++n)
                    spare[kept][n] = (1 - part) * polygon[start][n] + part * polygon[end][n];
                // On the plane, whatever was lost between numbers of very unlike size.
                spare[kept][axis] = -side * spare[kept][3];
                ++kept;
            }
            if (after >= 0) {
                for (int n = 0; n < 4; ++n) spare[kept][n] = polygon[end][n];
                ++kept;
            }
        }
        count = kept;
        for (int i = 0; i < count; ++i)
            for (int n = 0; n < 4; ++n) polygon[i][n] = spare[i][n];
    }
    return count;
}

// What of a triangle lies in the frustum; the number of corners, 0 where one of them lies in the eye.
DEVICE int cut(const Vertex (&vertex)[3], double (&polygon)[MOST_CORNERS][4]) {
    for (int k = 0; k < 3; ++k) {
        polygon[k][0] = vertex[k].x;
        polygon[k][1] = vertex[k].y;
        polygon[k][2] = vertex[k].z;
        polygon[k][3] = vertex[k].w;
    }
    int count = cut(polygon);
    for (int i = 0; i < count; ++i)
        if (!(static_cast<float>(polygon[i][3]) > 0.0f)) return 0;
    return count;
}

DEVICE Vertex rounded(const double (&corner)[4]) {
    return {static_cast<float>(corner[0]), static_cast<float>(corner[1]), static_cast<float>(corner[2]),
            static_cast<float>(corner[3])};
}

KERNEL(raster_clear, ClearParams) {
    int pixel = thread_number();
    if (pixel < p.pixels) p.keys[pixel] = NOTHING;
}

KERNEL(raster_draw, DrawParams) {
    int work = thread_number(), t = work / p.lanes, lane = work - t * p.lanes;
    Vertex v[3];
    if (!corners_of(p.mesh, t, v)) return;
    unsigned a = outside(v[0]), b = outside(v[1]), c = outside(v[2]);
    if ((a | b | c) >= NOWHERE || (a & b & c) != 0) return;
    // A triangle that leaves the frustum is drawn as a fan over what of it lies inside.
    double polygon[MOST_CORNERS][4];
    int count = 3;
    if ((a | b | c) != 0) {
        count = cut(v, polygon);
        if (count < 3) return;
        UNROLLED for (int k = 0; k < 3; ++k) v[k] = rounded(polygon[k]);
    }
    Corner first = projected(v[0], p.height, p.width), second = projected(v[1], p.height, p.width);
    Corner third = projected(v[2], p.height, p.width);
    for (int n = 3; n <= count; ++n) {
        fill(p, first, second, third, t, lane);
        if (n == count) break;
        second = third;
        third = projected(rounded(polygon[n]), p.height, p.width);
    }
}

KERNEL(raster_resolve, ResolveParams) {
    int pixel = thread_number();
    if (pixel >= p.height * p.width) return;
    int id = static_cast<int>(~static_cast<unsigned>(p.keys[pixel]));
    float u = 0.0f, v = 0.0f, z = 0.0f;
    Vertex corner[3];
    if (corners_of(p.mesh, id - 1, corner)) {
        int row = pixel / p.width, column = pixel - row * p.width;
        float fx = static_cast<float>(2 * column + 1 - p.width) / p.width;
        float fy = static_cast<float>(2 * row + 1 - p.height) / p.height;
        float x0 = corner[0].x - fx * corner[0].w, y0 = corner[0].y - fy * corner[0].w;
        float x1 = corner[1].x - fx * corner[1].w, y1 = corner[1].y - fy * corner[1].w;
        float x2 = corner[2].x - fx * corner[2].w, y2 = corner[2].y - fy * corner[2].w;
        float a0 = x1 * y2 - y1 * x2, a1 = x2 * y0 - y2 * x0, a2 = x0 * y1 - y0 * x1;
        float area = a0 + a1 + a2;
        if (area == 0.0f) {  // only rounding gave it one
            a0 = a1 = 0.0f;
            a2 = area = 1.0f;
        }
        u = fminf(fmaxf(a0 / area, 0.0f), 1.0f);
        v = fminf(fmaxf(a1 / area, 0.0f), 1.0f);
        float over = fmaxf(u + v, 1.0f);
        u /= over;
        v /= over;
        float above = a0 * corner[0].z + a1 * corner[1].z + a2 * corner[2].z;
        float below = a0 * corner[0].w + a1 * corner[1].w + a2 * corner[2].w;
        z = fminf(fmaxf(above / below, -1.0f), 1.0f);
    }
    p.ids[pixel] = id;
    p.uvz[3 * pixel] = u;
    p.uvz[3 * pixel + 1] = v;
    p.uvz[3 * pixel + 2] = z;
}

KERNEL(raster_cull, CullParams) {
    int pixel = thread_number();
    if (pixel >= p.pixels) return;
    Vertex v[3];
    if (!corners_of(p.mesh, p.ids[pixel] - 1, v)) return;
    float x = v[0].x / v[0].w, y = v[0].y / v[0].w;
    float turn = (v[1].x / v[1].w - x) * (v[2].y / v[2].w - y) - (v[1].y / v[1].w - y) * (v[2].x / v[2].w - x);
    bool mirrored = (v[0].w < 0.0f) != ((v[1].w < 0.0f) != (v[2].w < 0.0f));
    if (!((mirrored ? -turn : turn) > 0.0f)) return;
    p.ids[pixel] = 0;
    UNROLLED for (int n = 0; n < 3; ++n) p.uvz[3 * pixel + n] = 0.0f;
}

// The set that this block works on; the parameters are read by a fixed index so that they stay where they are.
DEVICE AttributeSet set_of_block(const InterpolateParams& p) {
    AttributeSet set = p.sets[0];
    UNROLLED for (int i = 1; i < MOST_SETS; ++i)
        if (i < p.number && static_cast<int>(blockIdx.x) >= p.sets[i].first_block) set = p.sets[i];
    return set;
}

// A thread takes one pixel and a run of channels.
template <class T> DEVICE void interpolate(const InterpolateParams& p) {
    AttributeSet set = set_of_block(p);
    int work = (static_cast<int>(blockIdx.x) - set.first_block) * static_cast<int>(blockDim.x) + threadIdx.x;
    int chunk = work / p.pixels, pixel = work - chunk * p.pixels;
    int first = chunk * p.channels_a_thread, last = least(first + p.channels_a_thread, set.channels);
    T* to = static_cast<T*>(set.out) + set.offset + pixel * set.pixel_step;
    int corner[3];
    if (!corners_of(p.triangles, p.triangle_count, p.vertex_count, p.ids[pixel] - 1, corner)) {
        for (int c = first; c < last; ++c) to[c * set.channel_step] = from_float<T>(0.0f);
        return;
    }
    float u = p.uvz[3 * pixel], v = p.uvz[3 * pixel + 1], w = 1.0f - u - v;
    const float* from_u = set.attributes + corner[0] * set.channels;
    const float* from_v = set.attributes + corner[1] * set.channels;
    const float* from_w = set.attributes + corner[2] * set.channels;
    ROLLED for (int c = first; c < last; c += TOGETHER) {
        float sum[TOGETHER];
        UNROLLED for (int i = 0; i < TOGETHER; ++i) {
            int known = least(c + i, last - 1);
            sum[i] = u * from_u[known] + v * from_v[known] + w * from_w[known];
        }
        UNROLLED for (int i = 0; i < TOGETHER; ++i)
            if (c + i < last) to[(c + i) * set.channel_step] = from_float<T>(sum[i]);
    }
}

KERNEL(raster_interpolate_f32, InterpolateParams) { interpolate<float>(p); }
KERNEL(raster_interpolate_f16, InterpolateParams) { interpolate<half_t>(p); }

// Whether three places turn one way or the other.
DEVICE bool turned(Vertex a, Vertex b, Vertex c) {
    float x = a.x / a.w, y = a.y / a.w;
    return (b.x / b.w - x) * (c.y / c.w - y) < (b.y / b.w - y) * (c.x / c.w - x);
}

// Bit k: the edge opposite corner k has no neighbour, or one that is folded back.
KERNEL(raster_outlines, OutlineParams) {
    int t = thread_number();
    if (t >= p.mesh.triangle_count) return;
    Vertex v[3];
    unsigned found = 0;
    if (corners_of(p.mesh, t, v)) {
        bool side = turned(v[0], v[1], v[2]);
        UNROLLED for (int k = 0; k < 3; ++k) {
            int other = p.neighbours[3 * t + k];
            bool alone = other < 0 || other >= p.mesh.vertex_count;
            if (alone || turned(vertex_of(p.mesh, other), v[(k + 1) % 3], v[(k + 2) % 3]) == side) found |= 1u << k;
        }
    }
    p.outlines[t] = static_cast<unsigned char>(found);
}

// Which part of the colours' difference two pixels hand over: to the first, above or to the left, if positive, else to
// the second.
DEVICE float share(const AntialiasParams& p, int first, int second, bool down) {
    int one = p.ids[first], two = p.ids[second];
    if (one == two) return 0.0f;
    bool of_first = two == 0 || (one > 0 && p.uvz[3 * first + 2] < p.uvz[3 * second + 2]);
    int t = (of_first ? one : two) - 1, pixel = of_first ? first : second;
    Vertex v[3];
    if (t >= p.mesh.triangle_count || p.outlines[t] == 0 || !corners_of(p.mesh, t, v)) return 0.0f;
    float sign = of_first ? 1.0f : -1.0f;
    int row = pixel / p.width, column = pixel - row * p.width;
    // Twice the distances in pixels from the pixel's centre: along the pair in x, across it in y.
    float x[3], y[3];
    UNROLLED for (int k = 0; k < 3; ++k) {
        float right = v[k].x / v[k].w * p.width - static_cast<float>(2 * column + 1 - p.width);
        float below = v[k].y / v[k].w * p.height - static_cast<float>(2 * row + 1 - p.height);
        x[k] = 0.5f * (down ? below : right);
        y[k] = 0.5f * (down ? right : below);
    }
    int chosen = -1;
    float farthest = -3.4e38f;
    bool steep = false;
    UNROLLED for (int k = 0; k < 3; ++k) {
        int i = (k + 1) % 3, j = (k + 2) % 3;
        if ((y[i] < 0.0f) == (y[j] < 0.0f)) continue;
        float dx = x[j] - x[i], dy = y[j] - y[i], distance = sign * (x[i] * dy - y[i] * dx) / dy;
        if (distance > farthest) {
            chosen = k;
            farthest = distance;
            steep = fabsf(dy) >= fabsf(dx);
        }
    }
    bool used = chosen >= 0 && (p.outlines[t] >> chosen & 1) && steep;
    if (!used || !(farthest > -1.0f / 16 && farthest < 17.0f / 16)) return 0.0f;
    return sign * (0.5f - fminf(fmaxf(farthest, 0.0f), 1.0f));
}

// A thread takes one pixel and a run of channels, and gathers what its four pairs hand over to it.
template <class T> DEVICE void antialias(const AntialiasParams& p) {
    int pixels = p.height * p.width, work = thread_number();
    int chunk = work / pixels, pixel = work - chunk * pixels;
    int first = chunk * p.channels_a_thread, last = least(first + p.channels_a_thread, p.channels);
    if (first >= p.channels) return;
    int row = pixel / p.width, column = pixel - row * p.width;
    int other[4] = {pixel - p.width, pixel - 1, pixel + 1, pixel + p.width};
    float weight[4];
    weight[0] = row > 0 ? fmaxf(-share(p, other[0], pixel, true), 0.0f) : 0.0f;
    weight[1] = column > 0 ? fmaxf(-share(p, other[1], pixel, false), 0.0f) : 0.0f;
    weight[2] = column + 1 < p.width ? fmaxf(share(p, pixel, other[2], false), 0.0f) : 0.0f;
    weight[3] = row + 1 < p.height ? fmaxf(share(p, pixel, other[3], true), 0.0f) : 0.0f;
    const T* from = static_cast<const T*>(p.image);
    T* to = static_cast<T*>(p.out) + p.offset + pixel * p.out_pixel_step;
    for (int c = first; c < last; ++c) {
        float mine = to_float(from[pixel * p.in_pixel_step + c * p.in_channel_step]), sum = mine;
        UNROLLED for (int k = 0; k < 4; ++k)
            if (weight[k] > 0.0f)
                sum += weight[k] * (to_float(from[other[k] * p.in_pixel_step + c * p.in_channel_step]) - mine);
        to[c * p.out_channel_step] = from_float<T>(sum);
    }
}

KERNEL(raster_antialias_f32, AntialiasParams) { antialias<float>(p); }
KERNEL(raster_antialias_f16, AntialiasParams) { antialias<half_t>(p); }
