// Sums, and numbers times a factor.

// y = x + addend; y may be one of them. Blocks: threads for all of y.
extern "C" __global__ void add(const number *x, const number *addend, number *y, int size) {
    int at = flat_thread();
    if (at < size) y[at] = (real)x[at] + (real)addend[at];
}

// y = factor * x; y may be x. Blocks: threads for all of y.
extern "C" __global__ void scale(const number *x, number *y, double factor, int size) {
    int at = flat_thread();
    if (at < size) y[at] = (real)factor * (real)x[at];
}

// sums (rows, parts) = the sum of each part of each row of x. Blocks: (parts, rows); shared: one double per
// thread.
extern "C" __global__ void sum_rows(
    const number *__restrict__ x, real *__restrict__ sums, int rows, int length) {
    long long parts = gridDim.x, part = blockIdx.x, row = row_of_blocks();
    if (row >= rows) return;
    int last = (int)(length * (part + 1) / parts);
    double total = 0;
    for (int i = (int)(length * part / parts) + threadIdx.x; i < last; i += blockDim.x)
        total += (real)x[row * length + i];
    total = block_sum(total);
    if (threadIdx.x == 0) sums[row * parts + part] = (real)total;
}
