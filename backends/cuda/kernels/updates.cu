// Updates: blocks of threads for all parameters; state below `tiny` becomes zero.

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

// The moving averages of a gradient and of its square.
struct Moments {
    real mean, square;
};

// Advances the moments number `at`.
__device__ Moments advance(real *mean, real *square, int at, real gradient, double beta1, double beta2, double tiny) {
    real m = flushed((real)beta1 * mean[at] + (real)(1 - beta1) * gradient, tiny);
    real s = flushed((real)beta2 * square[at] + (real)(1 - beta2) * gradient * gradient, tiny);
    mean[at] = m;
    square[at] = s;
    return {m, s};
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
    Moments moments = advance(mean, square, at, gradient, beta1, beta2, tiny);
    real scaled = sqrt(moments.square / (1 - powers[1])) + (real)epsilon;
    value[at] = old - *rate / (1 - powers[0]) * (moments.mean / scaled);
}

extern "C" __global__ void next_powers(real *powers, double beta1, double beta2) {
    powers[0] *= (real)beta1;
    powers[1] *= (real)beta2;
}

// square = alpha square + (1 - alpha) g^2, value -= rate g / (sqrt(square) + epsilon). With mean, the average of
// g, the root is that of the variance; velocity adds momentum. Null: without them.
extern "C" __global__ void rmsprop(
    real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ square,
    real *__restrict__ mean, real *__restrict__ velocity, const real *__restrict__ rate, double alpha,
    double epsilon, double momentum, double decay, double tiny, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real gradient = grad[at] + (real)decay * value[at], share = (real)(1 - alpha) * gradient;
    real s = flushed((real)alpha * square[at] + share * gradient, tiny), variance = s;
    square[at] = s;
    if (mean) {
        real m = flushed((real)alpha * mean[at] + share, tiny);
        mean[at] = m;
        variance = positive(s - m * m); // which rounding may leave below 0
    }
    real step = gradient / (sqrt(variance) + (real)epsilon);
    if (velocity) velocity[at] = step = flushed((real)momentum * velocity[at] + step, tiny);
    value[at] -= *rate * step;
}

// square += g^2, value -= rate g / (sqrt(square) + epsilon).
extern "C" __global__ void adagrad(
    real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ square,
    const real *__restrict__ rate, double epsilon, double decay, double tiny, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real gradient = grad[at] + (real)decay * value[at];
    real s = flushed(square[at] + gradient * gradient, tiny);
    square[at] = s;
    value[at] -= *rate * (gradient / (sqrt(s) + (real)epsilon));
}

// progress = t, the product of all mu, mu of step t and of the next, beta_square^t.
extern "C" __global__ void next_nadam(real *progress, double beta, double beta_square, double decay) {
    real step = progress[0] + 1;
    for (int ahead = 0; ahead < 2; ahead++)
        progress[2 + ahead] = (real)beta * (1 - (real)0.5 * pow((real)0.96, (step + ahead) * (real)decay));
    progress[0] = step;
    progress[1] *= progress[2];
    progress[4] *= (real)beta_square;
}

// Adam with Nesterov momentum.
extern "C" __global__ void nadam(
    real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ mean,
    real *__restrict__ square, const real *__restrict__ progress, const real *__restrict__ rate, double beta1,
    double beta2, double epsilon, double decay, double tiny, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real product = progress[1], present = progress[2], following = progress[3], power = progress[4];
    real gradient = grad[at] + (real)decay * value[at];
    Moments moments = advance(mean, square, at, gradient, beta1, beta2, tiny);
    real scaled = sqrt(moments.square / (1 - power)) + (real)epsilon;
    real of_gradient = *rate * (1 - present) / (1 - product);
    real of_mean = *rate * following / (1 - product * following);
    value[at] = value[at] - of_gradient * gradient / scaled - of_mean * moments.mean / scaled;
}

// value -= rate (sign(beta1 mean + (1 - beta1) g) + decay value), then mean = beta2 mean + (1 - beta2) g.
extern "C" __global__ void lion(
    real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ mean,
    const real *__restrict__ rate, double beta1, double beta2, double decay, double tiny, int size) {
    int at = flat_thread();
    if (at >= size) return;
    real step = (real)beta1 * mean[at] + (real)(1 - beta1) * grad[at];
    step = step > 0 ? 1 : step < 0 ? -1 : step; // 0, or NaN
    value[at] = value[at] * (1 - *rate * (real)decay) - *rate * step;
    mean[at] = flushed((real)beta2 * mean[at] + (real)(1 - beta2) * grad[at], tiny);
}

// --- norms: the blocks of one launch compute parts of a sum, those of the next one add the parts

// Calls see(at) for each number in the part of this block of a vector. The parts are as many as the blocks.
template <class See>
__device__ void for_each_of_part(int size, See see) {
    long long parts = gridDim.x, part = blockIdx.x;
    int last = (int)(size * (part + 1) / parts);
    for (int at = (int)(size * part / parts) + threadIdx.x; at < last; at += blockDim.x) see(at);
}

// The root of the sum of the parts, in all threads of a block; shared: one double per thread.
__device__ double norm_of(const double *squares, int parts) {
    return sqrt(block_sum((int)threadIdx.x < parts ? squares[threadIdx.x] : 0));
}

// squares = the sum of x^2 in each part. Blocks: parts; shared: one double per thread.
extern "C" __global__ void sum_squares(const real *__restrict__ x, double *__restrict__ squares, int size) {
    double total = 0;
    for_each_of_part(size, [&](int at) { total += (double)x[at] * x[at]; });
    total = block_sum(total);
    if (threadIdx.x == 0) squares[blockIdx.x] = total;
}

// x *= min(1, limit / (|x| + rounding)), unless the norm is NaN. Blocks: threads for x; shared: one double per
// thread.
extern "C" __global__ void clip_norm(
    real *__restrict__ x, const double *__restrict__ squares, int parts, double limit, double rounding,
    int size) {
    int at = flat_thread();
    double factor = limit / (norm_of(squares, parts) + rounding);
    if (at < size && factor < 1) x[at] *= (real)factor;
}

// x *= norm / max(|x|, smallest). Blocks: threads for x; shared: one double per thread.
extern "C" __global__ void scale_to_norm(
    real *__restrict__ x, const double *__restrict__ squares, int parts, double norm, double smallest,
    int size) {
    int at = flat_thread();
    double found = norm_of(squares, parts);
    if (at < size) x[at] *= (real)(norm / (found < smallest ? smallest : found));
}

// --- the scale of a loss: one launch counts what is not finite, the next one adds up these counts

// found (1 + parts,) = the scale, and how many numbers of each part of x are NaN or infinite. Blocks: parts;
// shared: one double per thread.
extern "C" __global__ void count_not_finite(
    const real *__restrict__ x, const real *__restrict__ scale, double *__restrict__ found, int size) {
    double count = 0;
    for_each_of_part(size, [&](int at) { count += !(x[at] - x[at] == 0); });
    count = block_sum(count);
    if (threadIdx.x > 0) return;
    found[1 + blockIdx.x] = count;
    if (blockIdx.x == 0) found[0] = *scale; // the next launch writes another one
}

// x /= scale, or 0 if a number is not finite; then the next scale, from lowest to highest, and the counts (2,)
// of finite gradients since it changed and of the others. Blocks: threads for x; shared: one double per thread.
extern "C" __global__ void unscale(
    real *__restrict__ x, const double *__restrict__ found, real *__restrict__ scale,
    long long *__restrict__ counts, int parts, int every, double lowest, double highest, int size) {
    int at = flat_thread();
    bool finite = block_sum((int)threadIdx.x < parts ? found[1 + threadIdx.x] : 0) == 0;
    if (at < size) x[at] = finite ? x[at] / (real)found[0] : 0;
    if (at > 0) return;
    long long since = finite ? counts[0] + 1 : 0;
    bool due = since >= every;
    *scale = (real)fmin(fmax(found[0] * (!finite ? 0.5 : due ? 2 : 1), lowest), highest);
    counts[0] = due ? 0 : since;
    counts[1] += !finite;
}

// The step of LAMB before it is scaled.
__device__ real lamb_step(real value, Moments moments, const real *powers, double epsilon, double decay) {
    real scaled = sqrt(moments.square / (1 - powers[1])) + (real)epsilon;
    return moments.mean / (1 - powers[0]) / scaled + (real)decay * value;
}

// Advances the moments; squares (2, parts) = the sums of value^2 and of step^2. Blocks: parts; shared: one
// double per thread.
extern "C" __global__ void lamb_moments(
    const real *__restrict__ value, const real *__restrict__ grad, real *__restrict__ mean,
    real *__restrict__ square, const real *__restrict__ powers, double *__restrict__ squares, double beta1,
    double beta2, double epsilon, double decay, double tiny, int size) {
    double of_value = 0, of_step = 0;
    for_each_of_part(size, [&](int at) {
        Moments moments = advance(mean, square, at, grad[at], beta1, beta2, tiny);
        double step = lamb_step(value[at], moments, powers, epsilon, decay);
        of_value += (double)value[at] * value[at];
        of_step += step * step;
    });
    of_value = block_sum(of_value);
    of_step = block_sum(of_step);
    if (threadIdx.x > 0) return;
    squares[blockIdx.x] = of_value;
    squares[gridDim.x + blockIdx.x] = of_step;
}

// value -= rate |value| / |step| step; the quotient is 1 if a norm is 0. Blocks: threads for value; shared: one
// double per thread.
extern "C" __global__ void lamb(
    real *__restrict__ value, const real *__restrict__ mean, const real *__restrict__ square,
    const real *__restrict__ powers, const real *__restrict__ rate, const double *__restrict__ squares,
    int parts, double epsilon, double decay, double tiny, int size) {
    int at = flat_thread();
    double of_value = norm_of(squares, parts), of_step = norm_of(squares + parts, parts);
    double trust = of_value * of_step > 0 ? of_value / (of_step < tiny ? tiny : of_step) : 1;
    if (at >= size) return;
    real step = lamb_step(value[at], {mean[at], square[at]}, powers, epsilon, decay);
    value[at] -= *rate * (real)trust * step;
}

// --- Muon

// velocity = momentum velocity + g; update = velocity, or with nesterov momentum velocity + g; squares = the
// sums of update^2. Blocks: parts; shared: one double per thread.
extern "C" __global__ void muon_momentum(
    real *__restrict__ velocity, const real *__restrict__ grad, real *__restrict__ update,
    const real *__restrict__ momentum, double *__restrict__ squares, double tiny, int nesterov, int size) {
    double total = 0;
    for_each_of_part(size, [&](int at) {
        real v = flushed(*momentum * velocity[at] + grad[at], tiny);
        real step = nesterov ? *momentum * v + grad[at] : v;
        velocity[at] = v;
        update[at] = step;
        total += (double)step * step;
    });
    total = block_sum(total);
    if (threadIdx.x == 0) squares[blockIdx.x] = total;
}

// gram = a I + b gram + c square, matrices (side, side). Blocks: threads for gram.
extern "C" __global__ void muon_polynomial(
    real *__restrict__ gram, const real *__restrict__ square, double a, double b, double c, int side) {
    int at = flat_thread();
    if (at >= side * side) return;
    real diagonal = at / side == at % side ? (real)a : 0;
    gram[at] = diagonal + (real)b * gram[at] + (real)c * square[at];
}

// value = (1 - rate decay) value - rate factor update. Blocks: threads for value.
extern "C" __global__ void muon(
    real *__restrict__ value, const real *__restrict__ update, const real *__restrict__ rate, double factor,
    double decay, int size) {
    int at = flat_thread();
    if (at < size)
        value[at] = value[at] * (1 - *rate * (real)decay) - *rate * (real)factor * update[at];
}

// --- what is around an optimizer, and counters

// mean += share (value - mean), all of it before the first count. Blocks: threads for value.
extern "C" __global__ void average(
    const real *__restrict__ value, real *__restrict__ mean, const long long *__restrict__ count,
    double share, int size) {
    int at = flat_thread();
    if (at < size) mean[at] += (value[at] - mean[at]) * (*count > 0 ? (real)share : 1);
}

// slow += alpha (value - slow), value = slow, in every step number `every`. Blocks: threads for value.
extern "C" __global__ void lookahead(
    real *__restrict__ value, real *__restrict__ slow, const long long *__restrict__ count, int every,
    double alpha, int size) {
    int at = flat_thread();
    if (at >= size || (*count + 1) % every != 0) return;
    slow[at] += (value[at] - slow[at]) * (real)alpha;
    value[at] = slow[at];
}

// counters (updates, samples).
extern "C" __global__ void count_update(long long *counters) {
    counters[0]++;
    counters[1] = 0;
}
