// Losses: one block whose threads loop over the images; shared: one double per thread.

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
