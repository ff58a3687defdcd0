// Convolution, pooling and the rest of a training step, for one dtype: REAL is float or double.
//
// Arrays are contiguous and batch last: x (C, H, W, N), y (O, OH, OW, N), weight (O, C, KH, KW). Adjacent
// threads process adjacent images or, at batch 1, adjacent columns, so their memory accesses are adjacent.
// Sums do not use atomics, so the same input gives the same bits. The caller makes sure that an array has
// fewer than 2^31 elements.
//
// Nothing is included and all shared memory is dynamic, so the same source can be compiled by NVRTC, by nvcc
// and, with a header that replaces CUDA, by a host compiler.

typedef REAL real;

struct Window {
    int KH, KW; // size
    int SH, SW; // stride
    int PH, PW; // padding
    int DH, DW; // dilation
};

struct Convolution {
    int groups, C, H, W, O, OH, OW, N; // C and O: of one group
    Window window;
};

struct Pooling {
    int C, H, W, OH, OW, N;
    Window window;
};

const unsigned WARP = 32, WHOLE_WARP = 0xffffffff;

extern __shared__ double shared_memory[];

__device__ int flat_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The row of this block. A grid has at most 65,535 rows along y, so more are split into layers along z. The
// last layer may have too many rows; kernels return in them.
__device__ int row_of_blocks() { return blockIdx.z * gridDim.y + blockIdx.y; }

__device__ real positive(real value) { return value < 0 ? 0 : value; } // NaN stays NaN

__device__ int tiles_of(int size, int tile) { return (size + tile - 1) / tile; }

__device__ bool within(int index, int size) { return (unsigned)index < (unsigned)size; }

// Whether a value replaces the maximum so far in max pooling: of equal values the first wins, and NaN always
// wins.
__device__ bool beats(real value, real best, bool any) { return !any || value > best || value != value; }

// The position of element `at` of an array (C, H, W, N).
struct Place {
    int c, row, column, n;
};

__device__ Place place_of(int at, int H, int W, int N) {
    return {at / N / W / H, at / N / W % H, at / N % W, at % N};
}

// The position of the window that contains `index` at the tap with this `offset`, or -1 if there is none.
__device__ int position_before(int index, int offset, int stride, int positions) {
    int distance = index + offset;
    if (distance < 0 || distance % stride != 0) return -1;
    return distance / stride < positions ? distance / stride : -1;
}

// Calls see(i, j, h, column) for each tap of the window at (oh, ow) that is inside the input.
template <class See>
__device__ void for_each_tap(const Window &w, int oh, int ow, int H, int W, See see) {
    for (int i = 0; i < w.KH; i++) {
        int h = oh * w.SH + i * w.DH - w.PH;
        if (!within(h, H)) continue;
        for (int j = 0; j < w.KW; j++) {
            int column = ow * w.SW + j * w.DW - w.PW;
            if (within(column, W)) see(i, j, h, column);
        }
    }
}

// Calls seen(i, j, oh, ow) for each window that contains (h, column) of the input, with the tap.
template <class Seen>
__device__ void for_each_window(const Window &w, int h, int column, int OH, int OW, Seen seen) {
    for (int i = 0; i < w.KH; i++) {
        int oh = position_before(h, w.PH - i * w.DH, w.SH, OH);
        if (oh < 0) continue;
        for (int j = 0; j < w.KW; j++) {
            int ow = position_before(column, w.PW - j * w.DW, w.SW, OW);
            if (ow >= 0) seen(i, j, oh, ow);
        }
    }
}

// The sum over all threads of a block, whose size is a power of two, in thread 0.
__device__ double block_sum(double value) {
    shared_memory[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared_memory[threadIdx.x] += shared_memory[threadIdx.x + half];
        __syncthreads();
    }
    double total = shared_memory[0];
    __syncthreads();
    return total;
}


// ---- Convolution ----

// A thread computes one position of one image for TILE channels: each value of x is read once for all of
// them, and their weights are adjacent in shared memory.

// weight (O, C, taps) -> (taps, C, TILE): the output channels from `first`, with zeros beyond O.
template <int TILE>
__device__ const real *stage_forward(const real *weight, int first, const Convolution &s) {
    real *staged = (real *)shared_memory;
    int taps = s.window.KH * s.window.KW, depth = s.C * taps;
    for (int at = threadIdx.x; at < depth * TILE; at += blockDim.x) {
        int t = at / depth, k = at % depth;
        int c = k / taps, tap = k % taps;
        staged[(tap * s.C + c) * TILE + t] = first + t < s.O ? weight[(first + t) * depth + k] : 0;
    }
    __syncthreads();
    return staged;
}

// sums[t] += the products of the window at (oh, ow) of x, which points to its group and image.
template <int TILE>
__device__ void accumulate(
    real (&sums)[TILE], const real *x, const real *staged, const Convolution &s, int oh, int ow) {
    int plane = s.H * s.W * s.N;
    for_each_tap(s.window, oh, ow, s.H, s.W, [&](int i, int j, int h, int column) {
        const real *seen = x + (h * s.W + column) * s.N;
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
// elements.
template <int TILE>
__device__ void convolve(
    const real *x, const real *weight, const real *bias, int bias_channel, int bias_position, real *y,
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
    const real *x, const real *weight, const real *bias, int bias_channel, int bias_position, real *y,
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
// channels at once. Blocks: (threads for H * W * N, groups * tiles of C); shared: O * taps * TILE elements.
template <int TILE>
__device__ void convolve_back(const real *dy, const real *weight, real *dx, const Convolution &s) {
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
            first + t < s.C ? weight[o * depth + (first + t) * taps + tap] : 0;
    }
    __syncthreads();
    if (at >= plane) return;
    int n = at % s.N, h = at / s.N / s.W, column = at / s.N % s.W;
    dy += group * s.O * dy_plane + n;
    real sums[TILE] = {};
    for_each_window(w, h, column, s.OH, s.OW, [&](int i, int j, int oh, int ow) {
        const real *seen = dy + (oh * s.OW + ow) * s.N;
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
        const real *__restrict__ x, const real *__restrict__ weight, const real *__restrict__ bias,          \
        int bias_channel, int bias_position, real *__restrict__ y, int rectify, Convolution s) {             \
        convolve<TILE>(x, weight, bias, bias_channel, bias_position, y, rectify, s);                         \
    }                                                                                                        \
    extern "C" __global__ void convolve_pool_##TILE(                                                         \
        const real *__restrict__ x, const real *__restrict__ weight, const real *__restrict__ bias,          \
        int bias_channel, int bias_position, real *__restrict__ y, unsigned char *__restrict__ winner,       \
        Convolution s, Pooling pool) {                                                                       \
        convolve_pool<TILE>(x, weight, bias, bias_channel, bias_position, y, winner, s, pool);               \
    }                                                                                                        \
    extern "C" __global__ void convolve_back_##TILE(                                                         \
        const real *__restrict__ dy, const real *__restrict__ weight, real *__restrict__ dx,                 \
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
    const real *__restrict__ x, const real *__restrict__ dy, real *__restrict__ parts, int shares,
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
                gradient[o] = o_tile * O_TILE + o < s.O ? dy[(o * s.OH + oh) * line + at] : 0;
#pragma unroll
            for (int t = 0; t < TAP_TILE; t++) {
                bool inside = within(oh * w.SH + vertical[t], s.H) && within(ow * w.SW + horizontal[t], s.W);
                real value = inside ? x[corner + offset[t]] : (real)(t == bias_tap);
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
    const real *__restrict__ x, real *__restrict__ columns, int first, int rows, Convolution s) {
    const Window &w = s.window;
    int length = rows * s.OW * s.N, at = flat_thread(), k = row_of_blocks();
    if (at >= length || k >= s.C * w.KH * w.KW) return;
    int n = at % s.N, ow = at / s.N % s.OW, oh = first + at / s.N / s.OW;
    int h = oh * w.SH + k / w.KW % w.KH * w.DH - w.PH, column = ow * w.SW + k % w.KW * w.DW - w.PW;
    bool inside = within(h, s.H) && within(column, s.W);
    columns[k * length + at] = inside ? x[((k / w.KW / w.KH * s.H + h) * s.W + column) * s.N + n] : 0;
}

// dx = (or, with `add`, +=) the contributions of the columns of those rows. Blocks: (threads for H * W * N, C).
extern "C" __global__ void from_columns(
    const real *__restrict__ columns, real *__restrict__ dx, int first, int rows, int add, Convolution s) {
    const Window &w = s.window;
    int plane = s.H * s.W * s.N, length = rows * s.OW * s.N, at = flat_thread(), c = row_of_blocks();
    if (at >= plane || c >= s.C) return;
    int n = at % s.N, h = at / s.N / s.W, column = at / s.N % s.W;
    real total = add ? dx[c * plane + at] : 0;
    for_each_window(w, h, column, s.OH, s.OW, [&](int i, int j, int oh, int ow) {
        if (within(oh - first, rows))
            total += columns[((c * w.KH + i) * w.KW + j) * length + ((oh - first) * s.OW + ow) * s.N + n];
    });
    dx[c * plane + at] = total;
}


// ---- Pooling: blocks of threads for C * (elements written) ----

// y = the maximum of each window, winner = its tap (null: not needed); padding never wins.
extern "C" __global__ void max_pool(
    const real *__restrict__ x, real *__restrict__ y, unsigned char *__restrict__ winner, Pooling s) {
    const Window &w = s.window;
    int at = flat_thread();
    if (at >= s.C * s.OH * s.OW * s.N) return;
    Place y_place = place_of(at, s.OH, s.OW, s.N);
    real best = 0;
    int taken = 0;
    bool any = false;
    for_each_tap(w, y_place.row, y_place.column, s.H, s.W, [&](int i, int j, int h, int column) {
        real value = x[((y_place.c * s.H + h) * s.W + column) * s.N + y_place.n];
        if (beats(value, best, any)) {
            best = value;
            taken = i * w.KW + j;
        }
        any = true;
    });
    y[at] = best;
    if (winner) winner[at] = (unsigned char)taken;
}

// dx = the gradient of the input: dy of every window whose maximum is here. If y, the output of ReLU and
// pooling, is given, only where y is positive, which includes the gradient of ReLU.
extern "C" __global__ void max_pool_grad(
    const real *__restrict__ dy, const unsigned char *__restrict__ winner, const real *__restrict__ y,
    real *__restrict__ dx, Pooling s) {
    const Window &w = s.window;
    int at = flat_thread();
    if (at >= s.C * s.H * s.W * s.N) return;
    Place x_place = place_of(at, s.H, s.W, s.N);
    real total = 0;
    for_each_window(w, x_place.row, x_place.column, s.OH, s.OW, [&](int i, int j, int oh, int ow) {
        int from = ((x_place.c * s.OH + oh) * s.OW + ow) * s.N + x_place.n;
        if (winner[from] == i * w.KW + j && (!y || y[from] > 0)) total += dy[from];
    });
    dx[at] = total;
}


// ---- Resampling ----

// y (C, OH, OW, N) = weighted sums of the rows and columns of x (C, H, W, N). A sampling is a start for each
// position of the output and one more, then the positions of the input. Blocks: threads for `size`, all of y.
extern "C" __global__ void resample(
    const real *__restrict__ x, real *__restrict__ y, const long long *__restrict__ rows,
    const real *__restrict__ row_weights, const long long *__restrict__ columns,
    const real *__restrict__ column_weights, int H, int W, int OH, int OW, int N, int size) {
    int at = flat_thread();
    if (at >= size) return;
    Place place = place_of(at, OH, OW, N);
    real total = 0;
    for (long long i = rows[place.row]; i < rows[place.row + 1]; i++) {
        const real *line = x + (place.c * H + rows[OH + 1 + i]) * W * N + place.n;
        real sum = 0;
        for (long long j = columns[place.column]; j < columns[place.column + 1]; j++)
            sum += column_weights[j] * line[columns[OW + 1 + j] * N];
        total += row_weights[i] * sum;
    }
    y[at] = total;
}


// ---- Activations, biases ----

// y += bias, one value per row; with `rectify` ReLU of that. Blocks: threads for all of y.
extern "C" __global__ void add_bias(
    real *__restrict__ y, const real *__restrict__ bias, int rectify, int length, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real value = y[at] + bias[at / length];
    y[at] = rectify ? positive(value) : value;
}

// dx = dy where y is positive. Blocks: threads for all of it.
extern "C" __global__ void relu_grad(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = y[at] > 0 ? dy[at] : 0;
}

// The same, and sums = the sum of each row. Blocks: one per row; shared: one double per thread.
extern "C" __global__ void relu_grad_rows(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, real *__restrict__ sums,
    int length) {
    double total = 0;
    for (int i = threadIdx.x; i < length; i += blockDim.x) {
        int at = blockIdx.x * length + i;
        dx[at] = y[at] > 0 ? dy[at] : 0;
        total += dx[at];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) sums[blockIdx.x] = (real)total;
}

// sums (rows, parts) = the sum of each part of each row of x. Blocks: (parts, rows); shared: one double per
// thread.
extern "C" __global__ void sum_rows(
    const real *__restrict__ x, real *__restrict__ sums, int rows, int length) {
    long long parts = gridDim.x, part = blockIdx.x, row = row_of_blocks();
    if (row >= rows) return;
    int last = (int)(length * (part + 1) / parts);
    double total = 0;
    for (int i = (int)(length * part / parts) + threadIdx.x; i < last; i += blockDim.x)
        total += x[row * length + i];
    total = block_sum(total);
    if (threadIdx.x == 0) sums[row * parts + part] = (real)total;
}

// dx = dy (1 - y^2), of tanh. Blocks: threads for all of it.
extern "C" __global__ void tanh_grad(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = dy[at] * (1 - y[at] * y[at]);
}

// The functions of each number, in the order of backends/kernels/functions.py, which explains a and b.
enum Function { RELU, TANH, LEAKY_RELU, ELU, GELU, GELU_TANH, SILU, SIGMOID, SOFTPLUS, HARD_SIGMOID, HARD_SWISH };

const double CUBIC = 0.044715, TANH_SCALE = 1.5957691216057308; // sqrt(8 / pi)

__device__ real sigmoid(real x) { return 1 / (1 + exp(-x)); }

__device__ real normal_share(real x) { return (1 + erf(x * (real)0.7071067811865476)) / 2; }

__device__ real gelu_argument(real x) { return x * (real)TANH_SCALE * (1 + (real)CUBIC * x * x); }

__device__ real hard_sigmoid(real x) {
    real raised = x + 3;
    return (raised < 0 ? 0 : raised > 6 ? 6 : raised) / 6;
}

__device__ real value_of(int function, real x, real a, real b) {
    switch (function) {
    case RELU: return positive(x);
    case TANH: return tanh(x);
    case LEAKY_RELU: return x > 0 ? x : a * x;
    case ELU: return b * (x > 0 ? x : a * expm1(x));
    case GELU: return x * normal_share(x);
    case GELU_TANH: return x * sigmoid(gelu_argument(x));
    case SILU: return x * sigmoid(x);
    case SIGMOID: return sigmoid(x);
    case SOFTPLUS: return a * x > b ? x : (positive(a * x) + log1p(exp(-fabs(a * x)))) / a;
    case HARD_SIGMOID: return hard_sigmoid(x);
    default: return x * hard_sigmoid(x);
    }
}

// The slope of x sigmoid(u), where rise = x u'.
__device__ real gate_slope(real share, real rise) { return share * (1 + rise * (1 - share)); }

__device__ real slope_of(int function, real x, real a, real b) {
    switch (function) {
    case RELU: return x > 0;
    case TANH: return 1 - tanh(x) * tanh(x);
    case LEAKY_RELU: return x > 0 ? 1 : a;
    case ELU: return x > 0 ? b : a * b * exp(x);
    case GELU: return normal_share(x) + x * exp(-x * x / 2) * (real)0.3989422804014327; // 1 / sqrt(2 pi)
    case GELU_TANH:
        return gate_slope(sigmoid(gelu_argument(x)), x * (real)TANH_SCALE * (1 + 3 * (real)CUBIC * x * x));
    case SILU: return gate_slope(sigmoid(x), x);
    case SIGMOID: return sigmoid(x) * (1 - sigmoid(x));
    case SOFTPLUS: return a * x > b ? 1 : sigmoid(a * x);
    case HARD_SIGMOID: return fabs(x) < 3 ? (real)1 / 6 : 0;
    default: return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + (real)0.5;
    }
}

// y = the function of each number. Blocks: threads for all of it.
extern "C" __global__ void activate(
    const real *__restrict__ x, real *__restrict__ y, int function, double a, double b, int size) {
    int at = flat_thread();
    if (at < size) y[at] = value_of(function, x[at], (real)a, (real)b);
}

// dx = dy f'(x). Blocks: threads for all of it.
extern "C" __global__ void activate_grad(
    const real *__restrict__ dy, const real *__restrict__ x, real *__restrict__ dx, int function, double a,
    double b, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = dy[at] * slope_of(function, x[at], (real)a, (real)b);
}

// y = the softmax of x (F, N) along F. Blocks: threads for N.
extern "C" __global__ void softmax(const real *__restrict__ x, real *__restrict__ y, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real highest = x[n], total = 0;
    for (int f = 1; f < F; f++) highest = x[f * N + n] <= highest ? highest : x[f * N + n];
    for (int f = 0; f < F; f++) total += y[f * N + n] = exp(x[f * N + n] - highest);
    for (int f = 0; f < F; f++) y[f * N + n] /= total;
}

// dx = y (dy - sum(y dy)). Blocks: threads for N.
extern "C" __global__ void softmax_grad(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real total = 0;
    for (int f = 0; f < F; f++) total += y[f * N + n] * dy[f * N + n];
    for (int f = 0; f < F; f++) dx[f * N + n] = y[f * N + n] * (dy[f * N + n] - total);
}

// y = the logarithm of the softmax of x (F, N) along F. Blocks: threads for N.
extern "C" __global__ void log_softmax(const real *__restrict__ x, real *__restrict__ y, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real highest = x[n], total = 0;
    for (int f = 1; f < F; f++) highest = x[f * N + n] <= highest ? highest : x[f * N + n];
    for (int f = 0; f < F; f++) total += exp(x[f * N + n] - highest);
    for (int f = 0; f < F; f++) y[f * N + n] = x[f * N + n] - highest - log(total);
}

// dx = dy - exp(y) sum(dy). Blocks: threads for N.
extern "C" __global__ void log_softmax_grad(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real total = 0;
    for (int f = 0; f < F; f++) total += dy[f * N + n];
    for (int f = 0; f < F; f++) dx[f * N + n] = dy[f * N + n] - exp(y[f * N + n]) * total;
}


// ---- Losses: one block whose threads loop over the images; shared: one double per thread ----

// The class with the highest output: the first of equal outputs; NaN is higher than every number.
__device__ int argmax(const real *y, int classes, int N, int n) {
    int best = 0;
    for (int k = 1; k < classes; k++) {
        real highest = y[best * N + n];
        if (highest == highest && !(y[k * N + n] <= highest)) best = k;
    }
    return best;
}

// sums += (the sum of the losses, the number of correct answers, the number of images), for the whole block.
__device__ void add_to(double *sums, double loss, double right, int N) {
    loss = block_sum(loss);
    right = block_sum(right);
    if (threadIdx.x == 0) {
        sums[0] += loss;
        sums[1] += right;
        sums[2] += N;
    }
}

// losses = -log softmax(y)[label], dy = the gradient of their sum over divisor, sums as above (null: not
// needed).
extern "C" __global__ void cross_entropy(
    const real *__restrict__ y, const long long *__restrict__ labels, real *__restrict__ losses,
    real *__restrict__ dy, double *__restrict__ sums, double divisor, int classes, int N) {
    double loss = 0, right = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        int label = (int)labels[n], best = argmax(y, classes, N, n);
        real highest = y[best * N + n], total = 0;
        for (int k = 0; k < classes; k++) total += dy[k * N + n] = exp(y[k * N + n] - highest);
        for (int k = 0; k < classes; k++)
            dy[k * N + n] = (dy[k * N + n] / total - (k == label)) / (real)divisor;
        losses[n] = within(label, classes) ? log(total) - (y[label * N + n] - highest) : (real)nan("");
        loss += losses[n];
        right += best == label;
    }
    if (sums) add_to(sums, loss, right, N);
}

// The same for targets t (classes, N): losses = -sum(t log softmax(y)). The right answer is the largest t.
extern "C" __global__ void soft_cross_entropy(
    const real *__restrict__ y, const real *__restrict__ targets, real *__restrict__ losses,
    real *__restrict__ dy, double *__restrict__ sums, double divisor, int classes, int N) {
    double loss = 0, right = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        int best = argmax(y, classes, N, n);
        real highest = y[best * N + n], total = 0, mass = 0, own = 0;
        for (int k = 0; k < classes; k++) total += dy[k * N + n] = exp(y[k * N + n] - highest);
        real above = log(total);
        for (int k = 0; k < classes; k++) {
            real target = targets[k * N + n];
            mass += target;
            if (target != 0) own += target * (above - (y[k * N + n] - highest));
        }
        for (int k = 0; k < classes; k++)
            dy[k * N + n] = (dy[k * N + n] / total * mass - targets[k * N + n]) / (real)divisor;
        losses[n] = own;
        loss += own;
        right += best == argmax(targets, classes, N, n);
    }
    if (sums) add_to(sums, loss, right, N);
}

// out (classes, N) = class_weights * (`right` at the label + `others`), shares = the weight of the label; 0 for
// the label `ignored` if `ignores`, NaN for a label that is no class. Blocks: threads for N.
extern "C" __global__ void class_targets(
    const long long *__restrict__ labels, const real *__restrict__ class_weights, double right,
    double others, int ignores, int ignored, real *__restrict__ out, real *__restrict__ shares, int classes,
    int N) {
    int n = flat_thread();
    if (n >= N) return;
    bool skipped = ignores && labels[n] == ignored, known = labels[n] >= 0 && labels[n] < classes;
    real factor = skipped ? (real)0 : known ? (real)1 : (real)nan("");
    shares[n] = known ? factor * class_weights[labels[n]] : factor;
    for (int k = 0; k < classes; k++)
        out[k * N + n] = (real)(k == labels[n] ? right + others : others) * class_weights[k] * factor;
}

// losses = -mean(t log p + (1 - t) log(1 - p)) of probabilities y and one-hot t; p is at least `margin` from 0
// and 1.
extern "C" __global__ void binary_cross_entropy(
    const real *__restrict__ y, const long long *__restrict__ labels, real *__restrict__ losses,
    real *__restrict__ dy, double *__restrict__ sums, double divisor, double margin, int classes, int N) {
    double loss = 0, right = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        int label = (int)labels[n];
        real total = 0;
        for (int k = 0; k < classes; k++) {
            real p = y[k * N + n], target = k == label;
            p = p<(real)margin ? (real)margin : p>(real)(1 - margin) ? (real)(1 - margin) : p;
            total += log(k == label ? p : 1 - p);
            dy[k * N + n] = (p - target) / ((1 - p) * p) / classes / (real)divisor;
        }
        losses[n] = -total / classes;
        loss += losses[n];
        right += argmax(y, classes, N, n) == label;
    }
    if (sums) add_to(sums, loss, right, N);
}

// sums as above, for losses computed elsewhere.
extern "C" __global__ void tally(
    const real *__restrict__ losses, const real *__restrict__ y, const long long *__restrict__ labels,
    double *__restrict__ sums, int classes, int N) {
    double loss = 0, right = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        loss += losses[n];
        right += argmax(y, classes, N, n) == labels[n];
    }
    add_to(sums, loss, right, N);
}


// ---- Updates: blocks of threads for all parameters; state below `tiny` becomes zero ----

__device__ real flushed(real value, double tiny) { return fabs(value) < (real)tiny ? 0 : value; }

// v = momentum v + g + decay value; value -= rate v, or with nesterov rate (g + momentum v). velocity null:
// none.
extern "C" __global__ void sgd(
    real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ velocity,
    const real *__restrict__ rate, const real *__restrict__ momentum, double decay, double tiny, int nesterov,
    int size) {
    int at = flat_thread();
    if (at >= size) return;
    real gradient = grad[at] + (real)decay * value[at], step = gradient;
    if (velocity) {
        real v = flushed(*momentum * velocity[at] + gradient, tiny);
        velocity[at] = v;
        step = nesterov ? *momentum * v + gradient : v;
    }
    value[at] -= *rate * step;
}

// Adam's step number t; powers is beta1^t, beta2^t.
extern "C" __global__ void adam(
    real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ mean,
    real *__restrict__ square, const real *__restrict__ powers, const real *__restrict__ rate, double beta1,
    double beta2, double epsilon, double decay, double tiny, int decoupled, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real old = decoupled ? value[at] * (1 - *rate * (real)decay) : value[at];
    real gradient = decoupled ? grad[at] : grad[at] + (real)decay * old;
    real m = flushed((real)beta1 * mean[at] + (real)(1 - beta1) * gradient, tiny);
    real s = flushed((real)beta2 * square[at] + (real)(1 - beta2) * gradient * gradient, tiny);
    mean[at] = m;
    square[at] = s;
    real scaled = sqrt(s / (1 - powers[1])) + (real)epsilon;
    value[at] = old - *rate / (1 - powers[0]) * (m / scaled);
}

extern "C" __global__ void next_powers(real *powers, double beta1, double beta2) {
    powers[0] *= (real)beta1;
    powers[1] *= (real)beta2;
}


// ---- Batches ----

// chosen (N,) = the next indices of `order` (count,), chosen_labels = their labels (labels null: none), rate
// = the rate of this step; the cursor, the number of (samples, steps) done, advances. One block. Beyond the end it starts again,
// so that an extra step, as in a warm-up, reads nothing out of bounds.
extern "C" __global__ void next_batch(
    long long *cursor, const long long *__restrict__ order, const long long *__restrict__ labels,
    const real *__restrict__ rates, long long *__restrict__ chosen, long long *__restrict__ chosen_labels,
    real *__restrict__ rate, int N, int count, int steps, int columns) {
    long long first = cursor[0], step = cursor[1];
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        long long sample = order[(first + n) % count];
        chosen[n] = sample;
        if (labels) chosen_labels[n] = labels[sample];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int column = 0; column < columns; column++) rate[column] = rates[step % steps * columns + column];
        cursor[0] = first + N;
        cursor[1] = step + 1;
    }
}

const int GATHER_SIDE = 32;

// images (M, pixels) -> out (pixels, N): the chosen images, each channel of `plane` pixels less its `shift`
// and times its `scale`, or times `factor` if these are null. Blocks of 32 x 8 threads: (tiles of 32 images,
// tiles of 32 pixels); shared: 32 x 33 elements for the transposition.
template <class T>
__device__ void gather(const T *images, const long long *chosen, real *out, const real *shift,
                       const real *scale, real factor, int plane, int pixels, int N) {
    real *tile = (real *)shared_memory;
    const int PITCH = GATHER_SIDE + 1; // one more, so that the elements of a column are in different banks
    int row_of_tiles = row_of_blocks();
    if (row_of_tiles >= tiles_of(pixels, GATHER_SIDE)) return;
    int first_image = blockIdx.x * GATHER_SIDE, first_pixel = row_of_tiles * GATHER_SIDE;
    for (int row = threadIdx.y; row < GATHER_SIDE; row += blockDim.y) {
        int n = first_image + row, pixel = first_pixel + threadIdx.x;
        if (n < N && pixel < pixels) {
            real value = images[chosen[n] * pixels + pixel];
            int channel = pixel / plane;
            tile[row * PITCH + threadIdx.x] =
                shift ? (value - shift[channel]) * scale[channel] : value * factor;
        }
    }
    __syncthreads();
    for (int row = threadIdx.y; row < GATHER_SIDE; row += blockDim.y) {
        int n = first_image + threadIdx.x, pixel = first_pixel + row;
        if (n < N && pixel < pixels) out[pixel * N + n] = tile[threadIdx.x * PITCH + row];
    }
}

extern "C" __global__ void gather_bytes(
    const unsigned char *__restrict__ images, const long long *__restrict__ chosen, real *__restrict__ out,
    const real *__restrict__ shift, const real *__restrict__ scale, double factor, int plane, int pixels,
    int N) {
    gather(images, chosen, out, shift, scale, (real)factor, plane, pixels, N);
}

extern "C" __global__ void gather_numbers(
    const real *__restrict__ images, const long long *__restrict__ chosen, real *__restrict__ out,
    const real *__restrict__ shift, const real *__restrict__ scale, double factor, int plane, int pixels,
    int N) {
    gather(images, chosen, out, shift, scale, (real)factor, plane, pixels, N);
}
