// The functions of each number, in the order of backends/kernels/functions.py, which explains a and b.
enum Function {
    NO_FUNCTION = -1,
    RELU,
    TANH,
    LEAKY_RELU,
    ELU,
    GELU,
    GELU_TANH,
    SILU,
    SIGMOID,
    SOFTPLUS,
    HARD_SIGMOID,
    HARD_SWISH
};

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
    case NO_FUNCTION: return x;
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
    case NO_FUNCTION: return 1;
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
