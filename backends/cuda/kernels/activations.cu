// Activations, biases.

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

// dx = dy (1 - y^2), of tanh. Blocks: threads for all of it.
extern "C" __global__ void tanh_grad(
    const real *__restrict__ dy, const real *__restrict__ y, real *__restrict__ dx, int size) {
    int at = flat_thread();
    if (at < size) dx[at] = dy[at] * (1 - y[at] * y[at]);
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
