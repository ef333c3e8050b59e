// Thin lines and dots in small pictures, several pictures in one launch: the pixels of `lines.py`.
//
// A thread has one pixel and looks for the last stroke that covers it: no order of threads, no memory to clear. A walk
// from pixel to pixel is not walked; whether it passes a pixel follows from where its ends are.
#include "device.cuh"

constexpr int MOST_PICTURES = 8;
constexpr float FARTHEST = 1048576.0f;  // pixels; normalised points further away are drawn from there

struct Picture {
    unsigned char* out;            // (H, W, C)
    const void* points;            // (N, 2) int32, or float32 where normalised
    const int* strokes;            // (M, 2)
    const unsigned char* colours;  // (M, C)
    int height, width, channels, point_count, stroke_count;
    int normalised;  // points in [-1, 1], at the centres of the picture's border pixels
    int over;        // pixels without a stroke stay; else they become 0
    int first_block;  // of this picture in the grid's x
};

struct LinesParams {
    Picture pictures[MOST_PICTURES];
    int number;
};

struct Point {
    int x, y;
};

// In whole pixels, truncated towards zero.
DEVICE int pixel_of(float place, int length) {
    float pixel = (place + 1.0f) / 2.0f * static_cast<float>(length - 1);
    return static_cast<int>(fminf(fmaxf(pixel, -FARTHEST), FARTHEST));
}

// False where there is no such point, or it is not finite.
DEVICE bool find(const Picture& picture, int i, Point& at) {
    if (i < 0 || i >= picture.point_count) return false;
    if (!picture.normalised) {
        const int* point = static_cast<const int*>(picture.points) + 2 * i;
        at = {point[0], point[1]};
        return true;
    }
    const float* point = static_cast<const float*>(picture.points) + 2 * i;
    at = {pixel_of(point[0], picture.width), pixel_of(point[1], picture.height)};
    return (point[0] - point[0]) + (point[1] - point[1]) == 0.0f;
}

DEVICE bool within(int value, int a, int b) { return value >= least(a, b) && value <= most(a, b); }

DEVICE int beside(Point at, int right) { return (at.x < 0 ? 1 : 0) + (at.x > right ? 2 : 0); }
DEVICE int outside(Point at, int right, int bottom) {
    return beside(at, right) + (at.y < 0 ? 4 : 0) + (at.y > bottom ? 8 : 0);
}

// How far a line of (across, along) has come when it has gone `way` along; OpenCV's rounding: doubles, truncated.
// The numbers are whole and may need 33 bits.
DEVICE int moved(int from, double way, double across, double along) {
    return static_cast<int>(from + static_cast<long long>(way * across / along));
}

// An end of the line from a to b moved onto the picture's upper or lower border.
DEVICE void clip_along(Point& end, Point a, Point b, int& code, int right, int bottom) {
    if (!(code & 12)) return;
    int edge = code < 8 ? 0 : bottom;
    end.x = moved(end.x, double(edge) - end.y, double(b.x) - a.x, double(b.y) - a.y);
    end.y = edge;
    code = beside(end, right);
}

// As above, onto its left or right border.
DEVICE void clip_across(Point& end, Point a, Point b, int code, int right) {
    if (!code) return;
    int edge = code == 1 ? 0 : right;
    end.y = moved(end.y, double(edge) - end.x, double(b.y) - a.y, double(b.x) - a.x);
    end.x = edge;
}

// False where nothing of the line is inside. The order of the four decides the rounding.
DEVICE bool clip(Point& a, Point& b, int right, int bottom) {
    int code_a = outside(a, right, bottom), code_b = outside(b, right, bottom);
    if (code_a & code_b) return false;
    clip_along(a, a, b, code_a, right, bottom);
    clip_along(b, a, b, code_b, right, bottom);
    if (code_a & code_b) return false;
    clip_across(a, a, b, code_a, right);
    clip_across(b, a, b, code_b, right);
    return true;
}

// The walk takes `longer` + `shorter` steps, the first along the longer side. After n of the long steps it has taken
// between ceil((n - 1) s / l) and ceil(n s / l) of the short ones, l and s being longer and shorter.
DEVICE bool passes(Point a, Point b, int x, int y) {
    Point from = b.x < a.x ? b : a, to = b.x < a.x ? a : b;
    int across = to.x - from.x, along = to.y - from.y, right = x - from.x, down = y - from.y;
    if (along < 0) { along = -along; down = -down; }
    bool steep = along > across;
    int longer = steep ? along : across, shorter = steep ? across : along;
    int n = steep ? down : right, m = steep ? right : down;
    if (n < 0 || n > longer || m < 0 || m > shorter) return false;
    // Products stay below the number of the picture's pixels.
    return m * longer >= shorter * (n - 1) && ((m - 1) * longer < shorter * n || m == 0);
}

DEVICE bool covers(const Picture& picture, int s, int x, int y) {
    int i = picture.strokes[2 * s], j = picture.strokes[2 * s + 1];
    Point a, b;
    if (!find(picture, i, a)) return false;
    if (j == -1) return (x == a.x && within(a.y, y - 1, y + 1)) || (y == a.y && within(a.x, x - 1, x + 1));
    if (!find(picture, j, b) || !within(x, a.x, b.x) || !within(y, a.y, b.y)) return false;
    return clip(a, b, picture.width - 1, picture.height - 1) && passes(a, b, x, y);
}

// The picture of this block; the parameters are read by a fixed index so that they stay where they are.
DEVICE Picture picture_of_block(const LinesParams& p) {
    Picture picture = p.pictures[0];
    UNROLLED for (int i = 1; i < MOST_PICTURES; ++i)
        if (i < p.number && static_cast<int>(blockIdx.x) >= p.pictures[i].first_block) picture = p.pictures[i];
    return picture;
}

KERNEL(draw_strokes, LinesParams) {
    Picture picture = picture_of_block(p);
    int pixel = (blockIdx.x - picture.first_block) * blockDim.x + threadIdx.x;
    if (pixel >= picture.height * picture.width) return;
    int y = pixel / picture.width, x = pixel - y * picture.width, s = picture.stroke_count - 1;
    while (s >= 0 && !covers(picture, s, x, y)) --s;
    unsigned char* out = picture.out + pixel * picture.channels;
    if (s >= 0)
        for (int c = 0; c < picture.channels; ++c) out[c] = picture.colours[s * picture.channels + c];
    else if (!picture.over)
        for (int c = 0; c < picture.channels; ++c) out[c] = 0;
}
