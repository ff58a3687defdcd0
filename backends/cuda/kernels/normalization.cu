// Normalization and dropout. A batch normalization works on the rows of x (rows, length), which are channels;
// a group normalization works on the columns of x (groups, depth, N), which are the groups of the samples.
// Long rows and columns are split into parts.

// The mean of some numbers, and the sum of the squares of their distances from it.
struct Moments {
    double mean, squares;
};

// The moments of `count` numbers, whose distances from `shift` have these sums.
__device__ Moments moments_of(double shift, double total, double squares, int count) {
    double around = squares - total * total / count;
    return {shift + total / count, around < 0 ? 0 : around}; // NaN stays NaN
}

// found (rows, parts) = the moments of each part of each row of x. Blocks: (parts, rows); shared: one double
// per thread.
extern "C" __global__ void row_moments(
    const number *__restrict__ x, Moments *__restrict__ found, int rows, int length) {
    int parts = gridDim.x, part = blockIdx.x, row = row_of_blocks();
    if (row >= rows) return;
    int first = begin_of(part, parts, length), last = begin_of(part + 1, parts, length), count = last - first;
    x += row * length + first;
    int sample = count < (int)blockDim.x ? count : blockDim.x;
    // distances from a number near the mean are summed, so that float loses no digits
    real shift = (real)(block_sum((int)threadIdx.x < sample ? (real)x[threadIdx.x] : 0) / sample);
    real total = 0, squares = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        real apart = x[i] - shift;
        total += apart;
        squares += apart * apart;
    }
    double block_total = block_sum(total), block_squares = block_sum(squares);
    if (threadIdx.x == 0) found[row * parts + part] = moments_of(shift, block_total, block_squares, count);
}

// mean, spread (statistics,) = the mean and the variance, or with `inverted` 1 / sqrt(variance + epsilon), of
// `length` numbers from the moments of their parts, found (statistics, parts) (Chan, Golub & LeVeque 1979).
// Blocks: one per statistic; shared: one double per thread.
extern "C" __global__ void merge_moments(
    const Moments *__restrict__ found, real *__restrict__ mean, real *__restrict__ spread, int parts,
    int length, int inverted, double epsilon) {
    double total = 0, squares = 0;
    found += blockIdx.x * parts;
    for (int part = threadIdx.x; part < parts; part += blockDim.x)
        total += (begin_of(part + 1, parts, length) - begin_of(part, parts, length)) * found[part].mean;
    double middle = block_sum(total) / length;
    for (int part = threadIdx.x; part < parts; part += blockDim.x) {
        int count = begin_of(part + 1, parts, length) - begin_of(part, parts, length);
        double apart = found[part].mean - middle;
        squares += found[part].squares + count * apart * apart;
    }
    double variance = block_sum(squares) / length;
    if (threadIdx.x > 0) return;
    mean[blockIdx.x] = (real)middle;
    spread[blockIdx.x] = (real)(inverted ? 1 / sqrt(variance + epsilon) : variance);
}

// The running averages of a row move towards its moments; `share` is the weight of the batch.
__device__ void track_row(
    real *running_mean, real *running_variance, const real *mean, const real *variance, real share,
    real unbiased, int row) {
    running_mean[row] += share * (mean[row] - running_mean[row]);
    running_variance[row] += share * (unbiased * variance[row] - running_variance[row]);
}

// What a row is normalized with.
struct Row {
    real mean, scale, shift;

    __device__ real normalized(real x) const { return (x - mean) * scale + shift; }
};

__device__ Row row_with(
    const real *mean, const real *variance, const real *weight, const real *bias, double epsilon, int row) {
    real scale = 1 / sqrt(variance[row] + (real)epsilon);
    return {mean[row], weight ? scale * weight[row] : scale, bias ? bias[row] : 0};
}

// y = the function of (x - mean) / sqrt(variance + epsilon) * weight + bias + addend (weight, bias and addend
// null: none); y may be x. Running averages (batches null: none) are updated with the weight `momentum`.
// Blocks: (threads for a row, rows).
extern "C" __global__ void normalize(
    const number *x, const real *__restrict__ mean, const real *__restrict__ variance,
    const real *__restrict__ weight, const real *__restrict__ bias, const number *__restrict__ addend,
    number *y, double epsilon, int function, double a, double b, real *__restrict__ running_mean,
    real *__restrict__ running_variance, long long *batches, double momentum, double unbiased, int rows,
    int length) {
    int column = flat_thread(), row = row_of_blocks();
    if (row >= rows || column >= length) return;
    if (batches && column == 0) {
        track_row(running_mean, running_variance, mean, variance, (real)momentum, (real)unbiased, row);
        if (row == 0) ++*batches;
    }
    int at = row * length + column;
    real value = row_with(mean, variance, weight, bias, epsilon, row).normalized(x[at]);
    if (addend) value += addend[at];
    y[at] = value_of(function, value, (real)a, (real)b);
}

// Updates the running averages of all rows and the number of batches. If `momentum` is below 0, the weight of
// the batch is 1 / that number. One block.
extern "C" __global__ void track(
    const real *__restrict__ mean, const real *__restrict__ variance, real *__restrict__ running_mean,
    real *__restrict__ running_variance, long long *batches, double momentum, double unbiased, int rows) {
    long long count = *batches + 1;
    __syncthreads();
    if (threadIdx.x == 0) *batches = count;
    real share = momentum < 0 ? 1 / (real)count : (real)momentum;
    for (int row = threadIdx.x; row < rows; row += blockDim.x)
        track_row(running_mean, running_variance, mean, variance, share, (real)unbiased, row);
}

// The sums of the gradient, and of the gradient times the normalized numbers.
struct Sums {
    double total, along;
};

// dy times the slope of the function, which was applied to the normalized x plus the addend.
__device__ real before(
    int function, double a, double b, const Row &with, real dy, real x, const number *addend, int at) {
    real value = with.normalized(x);
    if (addend) value += addend[at];
    return dy * slope_of(function, value, (real)a, (real)b);
}

// found (rows, parts) = the sums of each part of each row, where the gradient is that before the function;
// addend_grad = that gradient (null: not needed). Blocks: (parts, rows); shared: one double per thread.
extern "C" __global__ void normalize_grad_sums(
    const number *__restrict__ dy, const number *__restrict__ x, const real *__restrict__ mean,
    const real *__restrict__ variance, const real *__restrict__ weight, const real *__restrict__ bias,
    const number *__restrict__ addend, number *__restrict__ addend_grad, Sums *__restrict__ found,
    double epsilon, int function, double a, double b, int rows, int length) {
    int parts = gridDim.x, part = blockIdx.x, row = row_of_blocks();
    if (row >= rows) return;
    Row with = row_with(mean, variance, weight, bias, epsilon, row);
    real scale = 1 / sqrt(variance[row] + (real)epsilon), total = 0, along = 0;
    int last = begin_of(part + 1, parts, length);
    for (int i = begin_of(part, parts, length) + threadIdx.x; i < last; i += blockDim.x) {
        int at = row * length + i;
        real grad = before(function, a, b, with, dy[at], x[at], addend, at);
        if (addend_grad) addend_grad[at] = grad;
        total += grad;
        along += grad * ((x[at] - with.mean) * scale);
    }
    double block_total = block_sum(total), block_along = block_sum(along);
    if (threadIdx.x == 0) found[row * parts + part] = {block_total, block_along};
}

// The gradients, from the sums found (rows, parts); each null: not needed. addend_grad is the gradient before
// the function (null: it is computed again). Every block adds up the sums of its row, in the same order.
// Blocks: (parts, rows); shared: one double per thread.
extern "C" __global__ void normalize_grad(
    const number *__restrict__ dy, const number *__restrict__ x, const real *__restrict__ mean,
    const real *__restrict__ variance, const real *__restrict__ weight, const real *__restrict__ bias,
    const number *__restrict__ addend, const number *__restrict__ addend_grad, const Sums *__restrict__ found,
    real *__restrict__ weight_grad, real *__restrict__ bias_grad, number *__restrict__ dx, double epsilon,
    int function, double a, double b, int rows, int length) {
    int parts = gridDim.x, part = blockIdx.x, row = row_of_blocks();
    if (row >= rows) return;
    double total = 0, along = 0;
    for (int other = threadIdx.x; other < parts; other += blockDim.x) {
        total += found[row * parts + other].total;
        along += found[row * parts + other].along;
    }
    total = block_sum(total);
    along = block_sum(along);
    if (part == 0 && threadIdx.x == 0) {
        if (weight_grad) weight_grad[row] = (real)along;
        if (bias_grad) bias_grad[row] = (real)total;
    }
    if (!dx) return;
    // dx = scale * weight * (grad - mean(grad) - normalized * mean(grad * normalized))
    Row with = row_with(mean, variance, weight, bias, epsilon, row);
    real scale = 1 / sqrt(variance[row] + (real)epsilon);
    real level = (real)(total / length), slope = (real)(along / length);
    int last = begin_of(part + 1, parts, length);
    for (int i = begin_of(part, parts, length) + threadIdx.x; i < last; i += blockDim.x) {
        int at = row * length + i;
        real grad = addend_grad ? (real)addend_grad[at]
                                : before(function, a, b, with, dy[at], x[at], addend, at);
        dx[at] = with.scale * (grad - level - (x[at] - with.mean) * scale * slope);
    }
}

// out_weight (rows, columns) = weight * f and out_bias (rows, places) = (bias - mean) * f + shift, where f =
// scale / sqrt(variance + epsilon); bias, scale and shift null: none. Blocks: (threads for columns + places,
// rows).
extern "C" __global__ void fold(
    const real *__restrict__ weight, const real *__restrict__ bias, const real *__restrict__ mean,
    const real *__restrict__ variance, const real *__restrict__ scale, const real *__restrict__ shift,
    number *__restrict__ out_weight, real *__restrict__ out_bias, double epsilon, int rows, int columns,
    int places) {
    int column = flat_thread(), row = row_of_blocks(), place = column - columns;
    if (row >= rows || place >= places) return;
    Row with = row_with(mean, variance, scale, shift, epsilon, row);
    if (place < 0)
        out_weight[row * columns + column] = weight[row * columns + column] * with.scale;
    else
        out_bias[row * places + place] = with.normalized(bias ? bias[row * places + place] : 0);
}

// The sum over the threads of a column of a block, in all of them.
__device__ double column_sum(double value) {
    shared_memory[threadIdx.y * blockDim.x + threadIdx.x] = value;
    __syncthreads();
    double total = 0;
    for (unsigned y = 0; y < blockDim.y; y++) total += shared_memory[y * blockDim.x + threadIdx.x];
    __syncthreads();
    return total;
}

// found (groups, N, parts) = the moments of each part of each column of x. Blocks of 32 x 8 threads: (tiles
// of 32 columns, groups * parts); shared: one double per thread.
extern "C" __global__ void group_moments(
    const number *__restrict__ x, Moments *__restrict__ found, int groups, int depth, int N, int parts) {
    int n = blockIdx.x * blockDim.x + threadIdx.x, group = row_of_blocks() / parts;
    int part = row_of_blocks() % parts, first = begin_of(part, parts, depth);
    if (group >= groups) return;
    int count = begin_of(part + 1, parts, depth) - first, mine = n < N ? count : 0; // a barrier is for all
    int sample = count < (int)blockDim.y ? count : blockDim.y;
    x += (group * depth + first) * N + n;
    bool taken = (int)threadIdx.y < sample && n < N;
    real shift = (real)(column_sum(taken ? (real)x[threadIdx.y * N] : 0) / sample);
    real total = 0, squares = 0;
    for (int i = threadIdx.y; i < mine; i += blockDim.y) {
        real apart = x[i * N] - shift;
        total += apart;
        squares += apart * apart;
    }
    double column_total = column_sum(total), column_squares = column_sum(squares);
    if (threadIdx.y == 0 && n < N)
        found[(group * N + n) * parts + part] = moments_of(shift, column_total, column_squares, count);
}

// Which statistic and which weight a number of x (groups, depth, N) has. There is a statistic for each group
// of each sample, and a weight for each `each` rows.
struct Member {
    int statistic, weight;
};

__device__ Member member_of(int at, int depth, int N, int each) {
    int row = at / N;
    return {row / depth * N + at % N, row / each};
}

// y = (x - mean) * scale * weight + bias, with mean and scale (groups, N); weight and bias null: none.
// Blocks: threads for all of x.
extern "C" __global__ void normalize_groups(
    const number *__restrict__ x, const real *__restrict__ mean, const real *__restrict__ scale,
    const real *__restrict__ weight, const real *__restrict__ bias, number *__restrict__ y, int depth, int N,
    int each, int size) {
    int at = flat_thread();
    if (at >= size) return;
    Member member = member_of(at, depth, N, each);
    real value = (x[at] - mean[member.statistic]) * scale[member.statistic];
    if (weight) value *= weight[member.weight];
    y[at] = bias ? value + bias[member.weight] : value;
}

// along, total (weights, parts) = the sums of dy times the normalized numbers, and of dy, of each part of the
// numbers of each weight (null: not needed). Blocks: (parts, weights); shared: one double per thread.
extern "C" __global__ void group_weight_sums(
    const number *__restrict__ dy, const number *__restrict__ x, const real *__restrict__ mean,
    const real *__restrict__ scale, real *__restrict__ along, real *__restrict__ total, int depth, int N,
    int each, int weights) {
    int parts = gridDim.x, part = blockIdx.x, weight = row_of_blocks(), length = each * N;
    if (weight >= weights) return;
    int last = begin_of(part + 1, parts, length);
    real along_here = 0, total_here = 0;
    for (int i = begin_of(part, parts, length) + threadIdx.x; i < last; i += blockDim.x) {
        int at = weight * length + i, statistic = member_of(at, depth, N, each).statistic;
        along_here += (real)dy[at] * ((x[at] - mean[statistic]) * scale[statistic]);
        total_here += dy[at];
    }
    double block_along = block_sum(along_here), block_total = block_sum(total_here);
    if (threadIdx.x > 0) return;
    if (along) along[weight * parts + part] = (real)block_along;
    if (total) total[weight * parts + part] = (real)block_total;
}

// sums (2, groups, N, parts) = the sums of g = dy * weight (null: none), and of g times the normalized
// numbers, of each part of each column. Blocks and shared memory are those of group_moments.
extern "C" __global__ void group_grad_sums(
    const number *__restrict__ dy, const number *__restrict__ x, const real *__restrict__ mean,
    const real *__restrict__ scale, const real *__restrict__ weight, real *__restrict__ sums, int groups,
    int depth, int N, int each, int parts) {
    int n = blockIdx.x * blockDim.x + threadIdx.x, group = row_of_blocks() / parts;
    int part = row_of_blocks() % parts, statistic = group * N + n;
    if (group >= groups) return;
    int last = n < N ? begin_of(part + 1, parts, depth) : 0; // a barrier is for all
    real total = 0, along = 0;
    for (int i = begin_of(part, parts, depth) + threadIdx.y; i < last; i += blockDim.y) {
        int row = group * depth + i;
        real grad = dy[row * N + n];
        if (weight) grad *= weight[row / each];
        total += grad;
        along += grad * ((x[row * N + n] - mean[statistic]) * scale[statistic]);
    }
    double column_total = column_sum(total), column_along = column_sum(along);
    if (threadIdx.y > 0 || n >= N) return;
    sums[statistic * parts + part] = (real)column_total;
    sums[(groups * N + statistic) * parts + part] = (real)column_along;
}

// dx = scale * (g - mean(g) - normalized * mean(g * normalized)), where g = dy * weight (null: none), with
// sums (2, groups, N). Blocks: threads for all of x.
extern "C" __global__ void normalize_groups_grad(
    const number *__restrict__ dy, const number *__restrict__ x, const real *__restrict__ mean,
    const real *__restrict__ scale, const real *__restrict__ weight, const real *__restrict__ sums,
    number *__restrict__ dx, int depth, int N, int each, int statistics, int size) {
    int at = flat_thread();
    if (at >= size) return;
    Member member = member_of(at, depth, N, each);
    int s = member.statistic;
    real grad = dy[at];
    if (weight) grad *= weight[member.weight];
    real normalized = (x[at] - mean[s]) * scale[s];
    dx[at] = scale[s] * (grad - sums[s] / depth - normalized * (sums[statistics + s] / depth));
}

// y = x * scale where the hash of the position and the sample is at least `limit`, else x * 0. A position has
// `each` rows of N samples. counters: the number of updates, and the position of the first sample in the
// whole batch. Blocks: threads for all of x.
extern "C" __global__ void dropout(
    const number *__restrict__ x, const long long *__restrict__ counters, number *__restrict__ y,
    double scale, unsigned stream, unsigned limit, int each, int N, int size) {
    int at = flat_thread();
    if (at >= size) return;
    unsigned update = (unsigned)counters[0], sample = at % N + (unsigned)counters[1];
    unsigned bits = scrambled(at / N / each) ^ scrambled(sample + scrambled(update ^ stream));
    y[at] = (real)x[at] * (scrambled(bits) >= limit ? (real)scale : 0);
}
