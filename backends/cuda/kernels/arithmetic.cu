// Sums.

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
