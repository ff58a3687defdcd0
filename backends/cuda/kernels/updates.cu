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
