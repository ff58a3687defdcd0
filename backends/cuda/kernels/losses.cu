// Losses of y (F, N), where F counts all outputs of a sample, and what a log counts.
//
// A block computes `columns` adjacent samples at a time. Each sample has blockDim.x / columns threads, its lanes,
// which share its outputs. Shared: two doubles per thread. Blocks: as many as the samples need, or one that
// computes all of them. Only a single block adds to the sums of a log itself.

// Labels (N,), which stand for one-hot columns, or numbers (F, N); the others are null.
struct Targets {
    const long long *labels;
    const real *numbers;
    int N;

    __device__ real at(int f, int n) const { return labels ? (real)(labels[n] == f) : numbers[f * N + n]; }
};

// A sample, and which of its lanes a thread is. Threads beyond the last sample compute the last one again and
// write nothing.
struct Sample {
    int n, lane, lanes;
    bool exists;

    __device__ bool leads() const { return exists && lane == 0; }
};

// Calls see(sample) for each sample of a block, with all of its threads.
template <class See>
__device__ void for_each_sample(int N, int columns, See see) {
    for (int tile = blockIdx.x; tile < tiles_of(N, columns); tile += gridDim.x) {
        int n = tile * columns + (int)threadIdx.x % columns;
        see(Sample{n < N ? n : N - 1, (int)threadIdx.x / columns, (int)blockDim.x / columns, n < N});
    }
}

struct Output {
    real value;
    int at;
};

// Whether an output is higher than another: NaN is higher than every number, and of equal ones the first.
__device__ bool is_higher(Output one, Output other) {
    bool one_is_nan = one.value != one.value, other_is_nan = other.value != other.value;
    if (one_is_nan != other_is_nan) return one_is_nan;
    return one.value > other.value || (!(one.value < other.value) && one.at < other.at);
}

// The highest output of a sample, in all of its lanes.
__device__ Output highest(const real *y, Sample sample, int F, int N, int columns) {
    Output best = {y[sample.lane * N + sample.n], sample.lane};
    for (int f = sample.lane + sample.lanes; f < F; f += sample.lanes) {
        Output next = {y[f * N + sample.n], f};
        if (is_higher(next, best)) best = next;
    }
    real *values = (real *)shared_memory;
    int *places = (int *)(shared_memory + blockDim.x);
    values[threadIdx.x] = best.value;
    places[threadIdx.x] = best.at;
    __syncthreads();
    for (int half = blockDim.x / 2; half >= columns; half /= 2) {
        if ((int)threadIdx.x < half) {
            Output other = {values[threadIdx.x + half], places[threadIdx.x + half]};
            if (is_higher(other, best)) {
                best = other;
                values[threadIdx.x] = best.value;
                places[threadIdx.x] = best.at;
            }
        }
        __syncthreads();
    }
    best = {values[threadIdx.x % columns], places[threadIdx.x % columns]};
    __syncthreads();
    return best;
}

// The class that a sample has: its label, or where its numbers are highest.
__device__ int class_of(Targets targets, Sample sample, int classes, int columns) {
    if (targets.labels) return (int)targets.labels[sample.n];
    return highest(targets.numbers, sample, classes, targets.N, columns).at;
}

// sums[at] += the sum of `value` over the threads of a single block. If there are several blocks, each writes
// its sum into a column of `sums`, and add_rows adds these columns later.
__device__ void add_to(double *sums, int at, double value) {
    value = block_sum(value);
    if (threadIdx.x > 0) return;
    if (gridDim.x == 1)
        sums[at] += value;
    else
        sums[at * gridDim.x + blockIdx.x] = value;
}

// What the samples of a thread add to the sums of a log: their losses, right answers, samples.
struct Totals {
    double loss, right, count;

    __device__ void add_to_all(double *sums) const {
        add_to(sums, 0, loss);
        add_to(sums, 1, right);
        add_to(sums, 2, count);
    }
};

// sums += the sums of the rows of parts (rows, length). Blocks: one per row; shared: one double per thread.
extern "C" __global__ void add_rows(const double *__restrict__ parts, double *__restrict__ sums, int length) {
    double total = 0;
    for (int i = threadIdx.x; i < length; i += blockDim.x) total += parts[blockIdx.x * length + i];
    total = block_sum(total);
    if (threadIdx.x == 0) sums[blockIdx.x] += total;
}

// losses = -sum(t log softmax(y)), dy = the gradient of their sum over divisor, sums += Totals (null: not
// needed). The loss of a label that is no class is NaN.
extern "C" __global__ void cross_entropy(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, double *__restrict__ sums, int classes,
    int N, int columns) {
    Targets targets = {labels, numbers, N};
    Totals totals = {0, 0, 0};
    for_each_sample(N, columns, [&](Sample sample) {
        int n = sample.n;
        Output best = highest(y, sample, classes, N, columns);
        real total = 0, mass = 0, own = 0;
        for (int k = sample.lane; k < classes; k += sample.lanes) {
            real below = y[k * N + n] - best.value, target = targets.at(k, n);
            total += exp(below);
            mass += target;
            if (target != 0) own -= target * below; // it may be infinite elsewhere
        }
        total = (real)column_sum(total, columns);
        own = (real)column_sum(own, columns);
        mass = labels ? (real)1 : (real)column_sum(mass, columns);
        for (int k = sample.lane; sample.exists && k < classes; k += sample.lanes) {
            real p = exp(y[k * N + n] - best.value) / total;
            dy[k * N + n] = (p * mass - targets.at(k, n)) / (real)divisor;
        }
        real loss = own + mass * log(total);
        if (labels && (labels[n] < 0 || labels[n] >= classes)) loss = nan("");
        int right = sums ? class_of(targets, sample, classes, columns) : 0;
        if (!sample.leads()) return;
        losses[n] = loss;
        totals.loss += loss;
        totals.right += best.at == right;
        totals.count++;
    });
    if (sums) totals.add_to_all(sums);
}

// The same for losses = -sum(t (1 - p)^gamma log p) with p = softmax(y).
extern "C" __global__ void focal(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, double gamma, double *__restrict__ sums,
    int classes, int N, int columns) {
    Targets targets = {labels, numbers, N};
    Totals totals = {0, 0, 0};
    for_each_sample(N, columns, [&](Sample sample) {
        int n = sample.n;
        Output best = highest(y, sample, classes, N, columns);
        real total = 0;
        for (int k = sample.lane; k < classes; k += sample.lanes) total += exp(y[k * N + n] - best.value);
        real above = log((real)column_sum(total, columns));
        real own, p; // of one class: t (1 - p)^gamma log p, and p
        auto slope = [&](int k) { // the result is p times the derivative of the loss with respect to p
            real log_p = y[k * N + n] - best.value - above, rest = -expm1(log_p);
            real power = pow(rest, (real)gamma) * targets.at(k, n);
            p = exp(log_p);
            own = power == 0 ? 0 : power * log_p; // log p may be infinite there
            return own * p * (real)gamma / (rest == 0 ? 1 : rest) - power;
        };
        real loss = 0, slopes = 0;
        for (int k = sample.lane; k < classes; k += sample.lanes) {
            slopes += slope(k);
            loss -= own;
        }
        loss = (real)column_sum(loss, columns);
        slopes = (real)column_sum(slopes, columns);
        for (int k = sample.lane; sample.exists && k < classes; k += sample.lanes) {
            real a = slope(k);
            dy[k * N + n] = (a - p * slopes) / (real)divisor;
        }
        int right = sums ? class_of(targets, sample, classes, columns) : 0;
        if (!sample.leads()) return;
        losses[n] = loss;
        totals.loss += loss;
        totals.right += best.at == right;
        totals.count++;
    });
    if (sums) totals.add_to_all(sums);
}

// losses = the mean over the outputs of term(y, t, f, slope), which sets `slope` to its derivative with respect
// to y; dy and sums as above. Blocks: (for the samples, parts of the outputs). If there are several parts, each
// writes a row of losses (parts, N), and add_parts adds these rows later.
template <class Term>
__device__ void mean_loss(const real *y, Targets targets, real *losses, real *dy, double divisor, double *sums,
                          int F, int N, int columns, Term term) {
    long long parts = gridDim.y, part = blockIdx.y;
    int first = (int)(F * part / parts), last = (int)(F * (part + 1) / parts);
    Totals totals = {0, 0, 0};
    for_each_sample(N, columns, [&](Sample sample) {
        real total = 0, slope = 0;
        for (int f = first + sample.lane; f < last; f += sample.lanes) {
            int at = f * N + sample.n;
            total += term(y[at], targets.at(f, sample.n), f, slope);
            if (sample.exists) dy[at] = slope / F / (real)divisor;
        }
        real loss = (real)(column_sum(total, columns) / F);
        bool right = sums && highest(y, sample, F, N, columns).at == class_of(targets, sample, F, columns);
        if (!sample.leads()) return;
        losses[blockIdx.y * N + sample.n] = loss;
        totals.loss += loss;
        totals.right += right;
        totals.count++;
    });
    if (sums) totals.add_to_all(sums);
}

// losses (N,) = the sums of the columns of `parts` (count, N). Blocks: threads for N.
extern "C" __global__ void add_parts(
    const real *__restrict__ parts, real *__restrict__ losses, int count, int N) {
    int n = flat_thread();
    if (n >= N) return;
    real total = 0;
    for (int part = 0; part < count; part++) total += parts[part * N + n];
    losses[n] = total;
}

// losses = -mean(t log p + (1 - t) log(1 - p)) of probabilities y; p is at least `margin` from 0 and 1.
extern "C" __global__ void binary_cross_entropy(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, double margin,
    double *__restrict__ sums, int F, int N, int columns) {
    real least = (real)margin, most = (real)(1 - margin);
    auto term = [&](real p, real target, int f, real &slope) {
        p = p < least ? least : p > most ? most : p;
        slope = (p - target) / ((1 - p) * p);
        return -(target * log(p) + (1 - target) * log(1 - p));
    };
    mean_loss(y, Targets{labels, numbers, N}, losses, dy, divisor, sums, F, N, columns, term);
}

// losses = -mean(w t log p + (1 - t) log(1 - p)) for p = sigmoid(y); w is one of `weights` for each of
// F / inner channels.
extern "C" __global__ void logistic_loss(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, const real *__restrict__ weights,
    int inner, double *__restrict__ sums, int F, int N, int columns) {
    auto term = [&](real value, real target, int f, real &slope) {
        real ones = target * weights[f / inner], zeros = 1 - target;
        real above = log1p(exp(-fabs(value)));
        real log_p = (value > 0 ? 0 : value) - above, log_q = -(positive(value) + above);
        slope = zeros * exp(log_p) - ones * exp(log_q);
        return -(ones * log_p + zeros * log_q);
    };
    mean_loss(y, Targets{labels, numbers, N}, losses, dy, divisor, sums, F, N, columns, term);
}

// losses = mean((y - t)^2).
extern "C" __global__ void squared_error(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, double *__restrict__ sums, int F, int N,
    int columns) {
    auto term = [&](real value, real target, int f, real &slope) {
        slope = 2 * (value - target);
        return (value - target) * (value - target);
    };
    mean_loss(y, Targets{labels, numbers, N}, losses, dy, divisor, sums, F, N, columns, term);
}

// losses = mean(|y - t|).
extern "C" __global__ void absolute_error(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, double *__restrict__ sums, int F, int N,
    int columns) {
    auto term = [&](real value, real target, int f, real &slope) {
        real difference = value - target;
        slope = difference > 0 ? 1 : difference < 0 ? -1 : difference; // 0, or NaN
        return fabs(difference);
    };
    mean_loss(y, Targets{labels, numbers, N}, losses, dy, divisor, sums, F, N, columns, term);
}

// losses = mean(d^2 / 2) for d = |y - t| up to `delta`, above it delta (d - delta / 2).
extern "C" __global__ void huber(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    real *__restrict__ losses, real *__restrict__ dy, double divisor, double delta, double *__restrict__ sums,
    int F, int N, int columns) {
    real limit = (real)delta;
    auto term = [&](real value, real target, int f, real &slope) {
        real difference = value - target, size = fabs(difference), near = size > limit ? limit : size;
        slope = difference > limit ? limit : difference < -limit ? -limit : difference;
        return near * (size - near / 2);
    };
    mean_loss(y, Targets{labels, numbers, N}, losses, dy, divisor, sums, F, N, columns, term);
}

// out (classes, N) = class_weights * (kept t + others), shares = the weight of the label, or 1 for numbers. Both
// are 0 for the label `ignored` if `ignores`, and NaN for a label that is no class. Blocks: threads for all
// of out.
extern "C" __global__ void class_targets(
    const long long *__restrict__ labels, const real *__restrict__ numbers,
    const real *__restrict__ class_weights, double kept, double others, int ignores, int ignored,
    real *__restrict__ out, real *__restrict__ shares, int classes, int N) {
    int at = flat_thread();
    if (at >= classes * N) return;
    int k = at / N, n = at % N;
    real factor = 1, share = 1;
    if (labels) {
        bool known = labels[n] >= 0 && labels[n] < classes;
        factor = ignores && labels[n] == ignored ? (real)0 : known ? (real)1 : (real)nan("");
        share = known ? factor * class_weights[labels[n]] : factor;
    }
    Targets targets = {labels, numbers, N};
    out[at] = ((real)kept * targets.at(k, n) + (real)others) * class_weights[k] * factor;
    if (k == 0) shares[n] = share;
}

// losses (N,) and dy (F, N) times weights (N,). Blocks: threads for dy.
extern "C" __global__ void weigh(
    real *__restrict__ losses, real *__restrict__ dy, const real *__restrict__ weights, int N, int size) {
    int at = flat_thread();
    if (at >= size) return;
    dy[at] *= weights[at % N];
    if (at < N) losses[at] *= weights[at];
}

// total += the sum of `shares`. One block.
extern "C" __global__ void add_up(const real *__restrict__ shares, real *__restrict__ total, int N) {
    double sum = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) sum += shares[n];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *total += (real)sum;
}

// x /= total, or 0 if that is 0. Blocks: threads for x.
extern "C" __global__ void divide(real *__restrict__ x, const real *__restrict__ total, int size) {
    int at = flat_thread();
    if (at < size) x[at] = x[at] * (*total != 0) / (*total == 0 ? 1 : *total);
}

// sums as above, for losses computed elsewhere; y null: no answers. With shares, answers count only where these
// are not 0, and sums[3] += the sum of the shares, sums[4] += how many are not 0.
extern "C" __global__ void tally(
    const real *__restrict__ losses, const real *__restrict__ y, const long long *__restrict__ labels,
    const real *__restrict__ numbers, const real *__restrict__ shares, double *__restrict__ sums, int classes,
    int N, int columns) {
    Targets targets = {labels, numbers, N};
    Totals totals = {0, 0, 0};
    double share = 0, counted = 0;
    for_each_sample(N, columns, [&](Sample sample) {
        int n = sample.n;
        bool right = y && highest(y, sample, classes, N, columns).at == class_of(targets, sample, classes, columns);
        if (!sample.leads()) return;
        bool counts = !shares || shares[n] != 0;
        totals.loss += losses[n];
        totals.right += right && counts;
        totals.count++;
        share += shares ? shares[n] : 0;
        counted += counts;
    });
    totals.add_to_all(sums);
    if (!shares) return;
    add_to(sums, 3, share);
    add_to(sums, 4, counted);
}

// The class of a sample, or -1 if it does not count: its label is no class, or its share is 0.
__device__ int counted_class(
    Targets targets, const real *shares, Sample sample, int classes, int columns) {
    int own = class_of(targets, sample, classes, columns);
    return within(own, classes) && (!shares || shares[sample.n] != 0) ? own : -1;
}

// sums += (how often the class is among the k highest outputs, how many samples count).
extern "C" __global__ void count_top(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    const real *__restrict__ shares, int k, double *__restrict__ sums, int classes, int N, int columns) {
    double top = 0, counted = 0;
    for_each_sample(N, columns, [&](Sample sample) {
        int own = counted_class(Targets{labels, numbers, N}, shares, sample, classes, columns);
        real value = y[(own < 0 ? 0 : own) * N + sample.n];
        double higher = 0;
        for (int f = sample.lane; f < classes; f += sample.lanes) {
            real other = y[f * N + sample.n];
            higher += other > value || other != other || (other == value && f < own);
        }
        higher = column_sum(higher, columns);
        if (!sample.leads() || own < 0) return;
        top += higher < k;
        counted++;
    });
    add_to(sums, 0, top);
    add_to(sums, 1, counted);
}

// For each sample its class as above, the class with the highest output, and that output (null: not wanted).
extern "C" __global__ void answers(
    const real *__restrict__ y, const long long *__restrict__ labels, const real *__restrict__ numbers,
    const real *__restrict__ shares, int *__restrict__ own, int *__restrict__ answered,
    real *__restrict__ confidence, int classes, int N, int columns) {
    for_each_sample(N, columns, [&](Sample sample) {
        int label = counted_class(Targets{labels, numbers, N}, shares, sample, classes, columns);
        Output best = highest(y, sample, classes, N, columns);
        if (!sample.leads()) return;
        own[sample.n] = label;
        answered[sample.n] = best.at;
        if (confidence) confidence[sample.n] = best.value;
    });
}

// counts (classes, classes)[own, answered] += 1 for each sample. Blocks: threads for counts.
extern "C" __global__ void count_pairs(
    const int *__restrict__ own, const int *__restrict__ answered, double *__restrict__ counts, int classes,
    int N) {
    int at = flat_thread();
    if (at >= classes * classes) return;
    int found = 0;
    for (int n = 0; n < N; n++) found += own[n] == at / classes && answered[n] == at % classes;
    counts[at] += found;
}

// sums (3, bins) += samples, the sum of their confidence, right answers, in the bin of their confidence. Blocks:
// one per bin; shared: one double per thread.
extern "C" __global__ void count_confidence(
    const int *__restrict__ own, const int *__restrict__ answered, const real *__restrict__ confidence,
    double *__restrict__ sums, int N) {
    int bins = gridDim.x, bin = blockIdx.x;
    double count = 0, sum = 0, right = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        double p = confidence[n], place = ceil(p * bins) - 1;
        place = place < 0 ? 0 : place > bins - 1 ? bins - 1 : place;
        double share = place == bin && own[n] >= 0;
        count += share;
        sum += share * p;
        right += share * (own[n] == answered[n]);
    }
    count = block_sum(count);
    sum = block_sum(sum);
    right = block_sum(right);
    if (threadIdx.x > 0) return;
    sums[bin] += count;
    sums[bins + bin] += sum;
    sums[2 * bins + bin] += right;
}
