// Activations, biases.

// y = the function of scale * y + bias (each null: none), where a number of scale and of bias is for so many
// numbers of y. Blocks: threads for all of y.
extern "C" __global__ void finish(
    number *__restrict__ y, const real *__restrict__ scale, const real *__restrict__ bias, int scale_length,
    int bias_length, int function, double a, double b, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real value = y[at];
    if (scale) value *= scale[at / scale_length];
    if (bias) value += bias[at / bias_length];
    y[at] = value_of(function, value, (real)a, (real)b);
}

// dx = dy where y is positive. Blocks: threads for all of it.
extern "C" __global__ void relu_grad(
    const number *__restrict__ dy, const number *__restrict__ y, number *__restrict__ dx, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = y[at] > 0 ? (real)dy[at] : 0;
}

// The same, and sums = the sum of each row. Blocks: one per row; shared: one double per thread.
extern "C" __global__ void relu_grad_rows(
    const number *__restrict__ dy, const number *__restrict__ y, number *__restrict__ dx,
    real *__restrict__ sums, int length) {
    double total = 0;
    for (int i = threadIdx.x; i < length; i += blockDim.x) {
        int at = blockIdx.x * length + i;
        real grad = y[at] > 0 ? (real)dy[at] : 0;
        dx[at] = grad;
        total += grad;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) sums[blockIdx.x] = (real)total;
}

// dx = dy (1 - y^2), of tanh. Blocks: threads for all of it.
extern "C" __global__ void tanh_grad(
    const number *__restrict__ dy, const number *__restrict__ y, number *__restrict__ dx, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = (real)dy[at] * (1 - (real)y[at] * (real)y[at]);
}

// y = the function of x + addend (null: none); y may be x. Blocks: threads for all of it.
extern "C" __global__ void activate(
    const number *x, const number *__restrict__ addend, number *y, int function, double a, double b,
    int size) {
    int at = flat_thread();
    if (at >= size) return;
    real value = x[at];
    if (addend) value += addend[at];
    y[at] = value_of(function, value, (real)a, (real)b);
}

// dx = dy f'(x). Blocks: threads for all of it.
extern "C" __global__ void activate_grad(
    const number *__restrict__ dy, const number *__restrict__ x, number *__restrict__ dx, int function,
    double a, double b, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = (real)dy[at] * slope_of(function, x[at], (real)a, (real)b);
}

// y = x if x > 0, else weight * x; each weight is for `length` numbers. Blocks: threads for all of it.
extern "C" __global__ void prelu(
    const number *__restrict__ x, const real *__restrict__ weight, number *__restrict__ y, int length,
    int size) {
    int at = flat_thread();
    if (at >= size) return;
    real value = x[at];
    y[at] = value > 0 ? value : weight[at / length] * value;
}

// dx = dy, times the weight where x is not positive (null: not needed), sums (rows, parts) = the sums of the
// gradient of each part of each weight's row. Blocks: (parts, rows); shared: one double per thread.
extern "C" __global__ void prelu_grad(
    const number *__restrict__ dy, const number *__restrict__ x, const real *__restrict__ weight,
    real *__restrict__ sums, number *__restrict__ dx, int rows, int length) {
    int parts = gridDim.x, part = blockIdx.x, row = row_of_blocks();
    if (row >= rows) return;
    int last = begin_of(part + 1, parts, length);
    double total = 0;
    for (int i = begin_of(part, parts, length) + threadIdx.x; i < last; i += blockDim.x) {
        int at = row * length + i;
        real value = x[at], grad = dy[at];
        if (!(value > 0)) total += value * grad;
        if (dx) dx[at] = value > 0 ? grad : weight[row] * grad;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) sums[row * parts + part] = (real)total;
}

// The higher of two numbers; NaN stays NaN.
__device__ real higher(real value, real highest) { return value <= highest ? highest : value; }

// y = the softmax of x (F, N) along F. Blocks: threads for N.
extern "C" __global__ void softmax(const number *__restrict__ x, number *__restrict__ y, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real highest = x[n], total = 0;
    for (int f = 1; f < F; f++) highest = higher(x[f * N + n], highest);
    for (int f = 0; f < F; f++) total += exp(x[f * N + n] - highest);
    for (int f = 0; f < F; f++) y[f * N + n] = exp(x[f * N + n] - highest) / total;
}

// dx = y (dy - sum(y dy)). Blocks: threads for N.
extern "C" __global__ void softmax_grad(
    const number *__restrict__ dy, const number *__restrict__ y, number *__restrict__ dx, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real total = 0;
    for (int f = 0; f < F; f++) total += (real)y[f * N + n] * (real)dy[f * N + n];
    for (int f = 0; f < F; f++) dx[f * N + n] = (real)y[f * N + n] * (dy[f * N + n] - total);
}

// y = the logarithm of the softmax of x (F, N) along F. Blocks: threads for N.
extern "C" __global__ void log_softmax(const number *__restrict__ x, number *__restrict__ y, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real highest = x[n], total = 0;
    for (int f = 1; f < F; f++) highest = higher(x[f * N + n], highest);
    for (int f = 0; f < F; f++) total += exp(x[f * N + n] - highest);
    for (int f = 0; f < F; f++) y[f * N + n] = x[f * N + n] - highest - log(total);
}

// dx = dy - exp(y) sum(dy). Blocks: threads for N.
extern "C" __global__ void log_softmax_grad(
    const number *__restrict__ dy, const number *__restrict__ y, number *__restrict__ dx, int F, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real total = 0;
    for (int f = 0; f < F; f++) total += dy[f * N + n];
    for (int f = 0; f < F; f++) dx[f * N + n] = dy[f * N + n] - exp((real)y[f * N + n]) * total;
}
