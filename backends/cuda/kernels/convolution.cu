// Convolution.

// A thread computes one position of one image for TILE channels: each value of x is read once for all of
// them, and their weights are adjacent in shared memory.

// weight (O, C, taps) -> (taps, C, TILE): the output channels from `first`, with zeros beyond O.
template <int TILE>
__device__ const real *stage_forward(const number *weight, int first, const Convolution &s) {
    real *staged = (real *)shared_memory;
    int taps = s.window.KH * s.window.KW, depth = s.C * taps;
    for (int at = threadIdx.x; at < depth * TILE; at += blockDim.x) {
        int t = at / depth, k = at % depth;
        int c = k / taps, tap = k % taps;
        staged[(tap * s.C + c) * TILE + t] = first + t < s.O ? (real)weight[(first + t) * depth + k] : 0;
    }
    __syncthreads();
    return staged;
}

// sums[t] += the products of the window at (oh, ow) of x, which points to its group and image.
template <int TILE>
__device__ void accumulate(
    real (&sums)[TILE], const number *x, const real *staged, const Convolution &s, int oh, int ow) {
    int plane = s.H * s.W * s.N;
    for_each_tap(s.window, oh, ow, s.H, s.W, [&](int i, int j, int h, int column) {
        const number *seen = x + (h * s.W + column) * s.N;
        const real *weights = staged + (i * s.window.KW + j) * s.C * TILE;
        for (int c = 0; c < s.C; c++) {
            real value = seen[c * plane];
#pragma unroll
            for (int t = 0; t < TILE; t++) sums[t] += value * weights[c * TILE + t];
        }
    });
}

// y = the convolution of x, plus a bias (with strides between channels and positions; null: none), and with
// `rectify` ReLU of that. Blocks: (threads for OH * OW * N, groups * tiles of O); shared: C * taps * TILE
// numbers of `real`.
template <int TILE>
__device__ void convolve(
    const number *x, const number *weight, const real *bias, int bias_channel, int bias_position, number *y,
    int rectify, const Convolution &s) {
    int tiles = tiles_of(s.O, TILE), block_row = row_of_blocks(), group = block_row / tiles;
    int first = block_row % tiles * TILE;
    if (group >= s.groups) return;
    int plane = s.OH * s.OW * s.N, at = flat_thread();
    const real *staged =
        stage_forward<TILE>(weight + group * s.O * s.C * s.window.KH * s.window.KW, first, s);
    if (at >= plane) return;
    int n = at % s.N, position = at / s.N;
    real sums[TILE] = {};
    accumulate<TILE>(
        sums, x + group * s.C * s.H * s.W * s.N + n, staged, s, position / s.OW, position % s.OW);
#pragma unroll
    for (int t = 0; t < TILE; t++) {
        if (first + t >= s.O) continue;
        int channel = group * s.O + first + t;
        real value = sums[t];
        if (bias) value += bias[channel * bias_channel + position * bias_position];
        y[channel * plane + at] = rectify ? positive(value) : value;
    }
}

// y = the max pooling of ReLU of the convolution, winner = the tap of each (null: not needed). The first
// maximum in row-major order wins; NaN wins over every number. Blocks: (threads for the pooled OH * OW * N,
// groups * tiles of O); shared: as above.
template <int TILE>
__device__ void convolve_pool(
    const number *x, const number *weight, const real *bias, int bias_channel, int bias_position, number *y,
    unsigned char *winner, const Convolution &s, const Pooling &pool) {
    int tiles = tiles_of(s.O, TILE), block_row = row_of_blocks(), group = block_row / tiles;
    int first = block_row % tiles * TILE;
    if (group >= s.groups) return;
    int plane = pool.OH * pool.OW * s.N, at = flat_thread();
    const real *staged =
        stage_forward<TILE>(weight + group * s.O * s.C * s.window.KH * s.window.KW, first, s);
    if (at >= plane) return;
    int n = at % s.N, row = at / s.N / pool.OW, column = at / s.N % pool.OW;
    const Window &p = pool.window;
    real best[TILE];
    int taken[TILE];
    bool any = false;
    for (int tap = 0; tap < p.KH * p.KW; tap++) {
        int oh = row * p.SH + tap / p.KW * p.DH - p.PH, ow = column * p.SW + tap % p.KW * p.DW - p.PW;
        if (!within(oh, s.OH) || !within(ow, s.OW)) continue;
        real sums[TILE] = {};
        accumulate<TILE>(sums, x + group * s.C * s.H * s.W * s.N + n, staged, s, oh, ow);
#pragma unroll
        for (int t = 0; t < TILE; t++) {
            real value = sums[t];
            if (bias && first + t < s.O)
                value += bias[(group * s.O + first + t) * bias_channel + (oh * s.OW + ow) * bias_position];
            value = positive(value);
            bool better = beats(value, best[t], any);
            best[t] = better ? value : best[t];
            taken[t] = better ? tap : taken[t];
        }
        any = true;
    }
#pragma unroll
    for (int t = 0; t < TILE; t++) {
        if (first + t >= s.O) continue;
        int to = (group * s.O + first + t) * plane + at;
        y[to] = best[t];
        if (winner) winner[to] = (unsigned char)taken[t];
    }
}

// dx = the gradient of the input, gathered from the positions of dy whose windows contain it, for TILE input
// channels at once. Blocks: (threads for H * W * N, groups * tiles of C); shared: O * taps * TILE numbers of
// `real`.
template <int TILE>
__device__ void convolve_back(const number *dy, const number *weight, number *dx, const Convolution &s) {
    const Window &w = s.window;
    int tiles = tiles_of(s.C, TILE), block_row = row_of_blocks(), group = block_row / tiles;
    int first = block_row % tiles * TILE;
    if (group >= s.groups) return;
    int taps = w.KH * w.KW, depth = s.C * taps;
    int plane = s.H * s.W * s.N, dy_plane = s.OH * s.OW * s.N, at = flat_thread();
    real *staged = (real *)shared_memory; // (O, C, taps) -> (taps, O, TILE)
    weight += group * s.O * depth;
    for (int from = threadIdx.x; from < s.O * taps * TILE; from += blockDim.x) {
        int t = from / taps % TILE, tap = from % taps, o = from / taps / TILE;
        staged[(tap * s.O + o) * TILE + t] =
            first + t < s.C ? (real)weight[o * depth + (first + t) * taps + tap] : 0;
    }
    __syncthreads();
    if (at >= plane) return;
    int n = at % s.N, h = at / s.N / s.W, column = at / s.N % s.W;
    dy += group * s.O * dy_plane + n;
    real sums[TILE] = {};
    for_each_window(w, h, column, s.OH, s.OW, [&](int i, int j, int oh, int ow) {
        const number *seen = dy + (oh * s.OW + ow) * s.N;
        const real *weights = staged + (i * w.KW + j) * s.O * TILE;
        for (int o = 0; o < s.O; o++) {
            real value = seen[o * dy_plane];
#pragma unroll
            for (int t = 0; t < TILE; t++) sums[t] += value * weights[o * TILE + t];
        }
    });
#pragma unroll
    for (int t = 0; t < TILE; t++)
        if (first + t < s.C) dx[(group * s.C + first + t) * plane + at] = sums[t];
}

#define WITH_TILE(TILE)                                                                                      \
    extern "C" __global__ void convolve_##TILE(                                                              \
        const number *__restrict__ x, const number *__restrict__ weight, const real *__restrict__ bias,      \
        int bias_channel, int bias_position, number *__restrict__ y, int rectify, Convolution s) {           \
        convolve<TILE>(x, weight, bias, bias_channel, bias_position, y, rectify, s);                         \
    }                                                                                                        \
    extern "C" __global__ void convolve_pool_##TILE(                                                         \
        const number *__restrict__ x, const number *__restrict__ weight, const real *__restrict__ bias,      \
        int bias_channel, int bias_position, number *__restrict__ y, unsigned char *__restrict__ winner,     \
        Convolution s, Pooling pool) {                                                                       \
        convolve_pool<TILE>(x, weight, bias, bias_channel, bias_position, y, winner, s, pool);               \
    }                                                                                                        \
    extern "C" __global__ void convolve_back_##TILE(                                                         \
        const number *__restrict__ dy, const number *__restrict__ weight, number *__restrict__ dx,           \
        Convolution s) {                                                                                     \
        convolve_back<TILE>(dy, weight, dx, s);                                                              \
    }

WITH_TILE(1)
WITH_TILE(4)
WITH_TILE(8)

// The gradient of the weight is a product of dy with the columns of x, which is long along positions and
// images and small otherwise. A warp computes O_TILE channels and TAP_TILE taps (c, i, j) over a share of the
// positions and images; the bias is an additional tap whose input is 1. At the end, lane l has the sum number
// l of the warp's 32.
const int O_TILE = 4, TAP_TILE = 8, SUMS = O_TILE * TAP_TILE;

// sums[0] = on lane l, the warp's total of sums[l]. In each round, lanes that differ in one bit exchange half
// of their sums and add the other half.
template <int HALF>
__device__ void add_up_warp(real (&sums)[SUMS], int lane) {
    if constexpr (HALF > 0) {
        bool upper = lane & HALF;
#pragma unroll
        for (int v = 0; v < HALF; v++) {
            real given = upper ? sums[v] : sums[v + HALF], kept = upper ? sums[v + HALF] : sums[v];
            sums[v] = kept + __shfl_xor_sync(WHOLE_WARP, given, HALF);
        }
        add_up_warp<HALF / 2>(sums, lane);
    }
}

// parts (shares, groups, tiles of O, tiles of taps, 32). Blocks: whole warps for all of these.
extern "C" __global__ void grad_weight_parts(
    const number *__restrict__ x, const number *__restrict__ dy, real *__restrict__ parts, int shares,
    int with_bias, Convolution s) {
    const Window &w = s.window;
    int depth = s.C * w.KH * w.KW, o_tiles = tiles_of(s.O, O_TILE),
        tap_tiles = tiles_of(depth + with_bias, TAP_TILE);
    int lane = threadIdx.x % WARP, task = flat_thread() / WARP;
    int tap_tile = task % tap_tiles, o_tile = task / tap_tiles % o_tiles;
    int group = task / tap_tiles / o_tiles % s.groups, share = task / tap_tiles / o_tiles / s.groups;
    if (share >= shares) return; // a whole warp

    int vertical[TAP_TILE], horizontal[TAP_TILE], offset[TAP_TILE];
#pragma unroll
    for (int t = 0; t < TAP_TILE; t++) {
        int tap = tap_tile * TAP_TILE + t, c = tap / w.KW / w.KH;
        bool real_tap = tap < depth;
        vertical[t] = real_tap ? tap / w.KW % w.KH * w.DH - w.PH : -(1 << 30); // never inside
        horizontal[t] = tap % w.KW * w.DW - w.PW;
        offset[t] = real_tap ? ((c * s.H + vertical[t]) * s.W + horizontal[t]) * s.N : 0;
    }
    int bias_tap = with_bias ? depth - tap_tile * TAP_TILE : -1;

    x += group * s.C * s.H * s.W * s.N;
    dy += (group * s.O + o_tile * O_TILE) * s.OH * s.OW * s.N;
    int line = s.OW * s.N, line_steps = tiles_of(line, WARP);
    long long steps = (long long)s.OH * line_steps;
    int step = (int)(steps * share / shares), last = (int)(steps * (share + 1) / shares);
    int oh = step / line_steps, at = step % line_steps * WARP + lane; // of OW * N numbers of a line
    real sums[SUMS] = {};
    for (; step < last; step++) {
        if (at < line) {
            int ow = at / s.N, corner = (oh * w.SH * s.W + ow * w.SW) * s.N + at - ow * s.N;
            real gradient[O_TILE];
#pragma unroll
            for (int o = 0; o < O_TILE; o++)
                gradient[o] = o_tile * O_TILE + o < s.O ? (real)dy[(o * s.OH + oh) * line + at] : 0;
#pragma unroll
            for (int t = 0; t < TAP_TILE; t++) {
                bool inside = within(oh * w.SH + vertical[t], s.H) && within(ow * w.SW + horizontal[t], s.W);
                real value = inside ? (real)x[corner + offset[t]] : (real)(t == bias_tap);
#pragma unroll
                for (int o = 0; o < O_TILE; o++) sums[o * TAP_TILE + t] += gradient[o] * value;
            }
        }
        at += WARP;
        if (at - lane >= line) {
            at = lane;
            oh++;
        }
    }
    add_up_warp<SUMS / 2>(sums, lane);
    parts[task * WARP + lane] = sums[0];
}

// weight_grad (and, if needed, bias_grad) = the sum of their parts. Blocks: threads for groups * O * taps.
extern "C" __global__ void grad_weight_sum(
    const real *__restrict__ parts, real *__restrict__ weight_grad, real *__restrict__ bias_grad, int shares,
    Convolution s) {
    int depth = s.C * s.window.KH * s.window.KW, taps = depth + (bias_grad != 0), at = flat_thread();
    if (at >= s.groups * s.O * taps) return;
    int channel = at / taps, tap = at % taps, group = channel / s.O, o = channel % s.O;
    int o_tiles = tiles_of(s.O, O_TILE), tap_tiles = tiles_of(taps, TAP_TILE);
    int task = (group * o_tiles + o / O_TILE) * tap_tiles + tap / TAP_TILE;
    int first = task * WARP + o % O_TILE * TAP_TILE + tap % TAP_TILE,
        step = s.groups * o_tiles * tap_tiles * WARP;
    real total = 0;
    for (int share = 0; share < shares; share++) total += parts[first + share * step];
    if (tap < depth)
        weight_grad[channel * depth + tap] = total;
    else
        bias_grad[channel] = total;
}

// columns (C * taps, rows * OW * N) of the output rows from `first`, for one group. Blocks: (threads for a
// column's length, C * taps).
extern "C" __global__ void to_columns(
    const number *__restrict__ x, number *__restrict__ columns, int first, int rows, Convolution s) {
    const Window &w = s.window;
    int length = rows * s.OW * s.N, at = flat_thread(), k = row_of_blocks();
    if (at >= length || k >= s.C * w.KH * w.KW) return;
    int n = at % s.N, ow = at / s.N % s.OW, oh = first + at / s.N / s.OW;
    int h = oh * w.SH + k / w.KW % w.KH * w.DH - w.PH, column = ow * w.SW + k % w.KW * w.DW - w.PW;
    bool inside = within(h, s.H) && within(column, s.W);
    columns[k * length + at] =
        inside ? x[((k / w.KW / w.KH * s.H + h) * s.W + column) * s.N + n] : (number)0;
}

// dx = (or, with `add`, +=) the contributions of the columns of those rows. Blocks: (threads for H * W * N, C).
extern "C" __global__ void from_columns(
    const real *__restrict__ columns, number *__restrict__ dx, int first, int rows, int add, Convolution s) {
    const Window &w = s.window;
    int plane = s.H * s.W * s.N, length = rows * s.OW * s.N, at = flat_thread(), c = row_of_blocks();
    if (at >= plane || c >= s.C) return;
    int n = at % s.N, h = at / s.N / s.W, column = at / s.N % s.W;
    real total = add ? (real)dx[c * plane + at] : 0;
    for_each_window(w, h, column, s.OH, s.OW, [&](int i, int j, int oh, int ow) {
        if (within(oh - first, rows))
            total += columns[((c * w.KH + i) * w.KW + j) * length + ((oh - first) * s.OW + ow) * s.N + n];
    });
    dx[c * plane + at] = total;
}
