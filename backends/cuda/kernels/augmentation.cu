// Augmentation; backends/kernels/augmentation.py says what a program is, and what is drawn.

enum Kind { GEOMETRY, COLOUR, BLEND, BOX_SIZE, BOX_TOP, BOX_LEFT };

// The rows of what is drawn for a sample; each box has four: top, left, height and width.
enum Row { AFFINE = 0, GAIN = 6, OFFSET = 7, SHARE = 8, TARGET_SHARE = 9, BOXES = 10 };

const int COLUMNS = 6; // of a table
const int FINE = 256;  // positions between two pixels at which values are interpolated
const double UNIT = 65536;

const int MOST_STEPS = 64;

struct Step {
    long long kind, first, rows, span, alternates, box;
};

struct Program {
    long long size;
    Step steps[MOST_STEPS];
};

// Products that the compiler does not fuse with a sum, so that every device rounds alike.
__device__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ double times(double a, double b) { return __dmul_rn(a, b); }

// --- draws

__device__ double rounded(double value) { return times(floor(times(value, UNIT) + 0.5), 1 / UNIT); }

// Let a row of a table change what has been drawn for a sample, whose numbers are N apart.
__device__ void change(double *mine, int N, const Step &step, const double *row) {
    double *box = mine + (BOXES + 4 * step.box) * N;
    switch (step.kind) {
    case GEOMETRY:
        for (int half = 0; half < 2; half++) {
            double *target = mine + (AFFINE + 3 * half) * N;
            double a = target[0], b = target[N], c = target[2 * N];
            target[0] = rounded(times(a, row[0]) + times(b, row[3]));
            target[N] = rounded(times(a, row[1]) + times(b, row[4]));
            target[2 * N] = rounded(times(a, row[2]) + times(b, row[5]) + c);
        }
        break;
    case COLOUR:
        mine[GAIN * N] = rounded(times(row[0], mine[GAIN * N]));
        mine[OFFSET * N] = rounded(times(row[0], mine[OFFSET * N]) + row[1]);
        break;
    case BLEND: mine[SHARE * N] = row[0]; break;
    case BOX_SIZE:
        box[2 * N] = row[0];
        box[3 * N] = row[1];
        break;
    default:
        int axis = step.kind == BOX_LEFT;
        box[axis * N] = row[0] - floor(times(row[1], box[(2 + axis) * N]));
    }
}

// The rows or columns of a box that lie in the image.
__device__ double visible(double start, double size, double extent) {
    double length = fmin(start + size, extent) - fmax(start, 0.0);
    return fmax(length, 0.0);
}

// drawn (k, rows, N) = what the steps of a program draw for samples (k, N): one thread for each of them.
extern "C" __global__ void draw(
    const long long *__restrict__ samples, const long long *__restrict__ keys, const Program program,
    const double *__restrict__ table, double *__restrict__ drawn, int rows, int H, int W, int N, int count) {
    int at = flat_thread();
    if (at >= count) return;
    double *mine = drawn + (long long)(at / N) * rows * N + at % N;
    for (int row = 0; row < rows; row++) mine[row * N] = 0;
    mine[AFFINE * N] = mine[(AFFINE + 4) * N] = mine[GAIN * N] = mine[SHARE * N] = 1;
    for (int number = 0; number < program.size; number++) {
        const Step &step = program.steps[number];
        unsigned bits = scrambled((unsigned)(samples[at] + keys[step.alternates]));
        bits = scrambled(bits ^ scrambled(number));
        long long index = step.alternates ? ((bits >> 31) + keys[2]) & 1 : (bits * step.span) >> 48;
        if (index < step.rows) change(mine, N, step, table + (step.first + index) * COLUMNS);
    }
    double *box = mine + BOXES * N;
    double area = times(visible(box[0], box[2 * N], H), visible(box[N], box[3 * N], W));
    mine[TARGET_SHARE * N] = times(mine[SHARE * N], 1 - area / (H * W));
}

// --- pixels

// Where pixels come from, and what becomes of them.
struct Augmentation {
    int rows, reflect, smooth; // rows: of what is drawn
    int C, H, W, N;
};

// What was drawn for an image of a block, in shared memory: whole numbers of 1 / UNIT, so that pixels need no
// float64, which most GPUs compute slowly.
struct Drawn {
    const long long *units;

    __device__ long long operator[](int row) const { return units[row * GATHER_SIDE]; }
    __device__ real number(int row) const { return times((real)(*this)[row], (real)(1 / UNIT)); }
};

// A coordinate of the source of the pixel at (i, j), rounded to 1 / FINE; `at` is the row of its map.
__device__ long long coordinate(const Drawn &drawn, int at, int i, int j) {
    return (drawn[at] * i + drawn[at + 1] * j + drawn[at + 2] + 128) >> 8;
}

// A place brought into 0..size - 1 by mirrors on the first and the last pixel.
__device__ int reflected(long long place, int size) {
    if (size == 1) return 0;
    int period = 2 * (size - 1), at = (int)(place % period);
    if (at < 0) at += period;
    return at < size ? at : period - at;
}

// The pixel at (y, x), which may lie outside.
template <class T>
__device__ real tap(const T *image, long long y, long long x, const Augmentation &how) {
    if (how.reflect) return image[reflected(y, how.H) * how.W + reflected(x, how.W)];
    bool inside = y >= 0 && y < how.H && x >= 0 && x < how.W;
    return inside ? (real)image[y * how.W + x] : 0;
}

__device__ real between(real first, real second, real fraction) {
    return times(first, 1 - fraction) + times(second, fraction);
}

// Whether the pixel at (i, j) lies in the box whose rows begin at `at`.
__device__ bool in_box(const Drawn &drawn, int at, int i, int j) {
    long long down = ((long long)i << 16) - drawn[at], right = ((long long)j << 16) - drawn[at + 1];
    return down >= 0 && down < drawn[at + 2] && right >= 0 && right < drawn[at + 3];
}

// The pixel at (i, j) of a channel of an image, as was drawn for it.
template <class T>
__device__ real augmented(const T *image, const Drawn &drawn, int i, int j, real shift, real scale,
                          const Augmentation &how) {
    for (int box = BOXES + 4; box < how.rows; box += 4)
        if (in_box(drawn, box, i, j)) return 0;
    long long fine_y = coordinate(drawn, AFFINE, i, j), fine_x = coordinate(drawn, AFFINE + 3, i, j);
    long long y = fine_y >> 8, x = fine_x >> 8;
    real value = tap(image, y, x, how);
    if (how.smooth) {
        real down = times((real)(fine_y & (FINE - 1)), (real)1 / FINE);
        real right = times((real)(fine_x & (FINE - 1)), (real)1 / FINE);
        real upper = between(value, tap(image, y, x + 1, how), right);
        real lower = between(tap(image, y + 1, x, how), tap(image, y + 1, x + 1, how), right);
        value = between(upper, lower, down);
    }
    return times(times(value, drawn.number(GAIN)) + drawn.number(OFFSET) - shift, scale);
}

// images (M, C, H, W) -> out (C, H, W, N): the chosen (N,) images as was drawn for them; if `mixed`, chosen
// (2, N) and drawn (2, rows, N), mixed with the images in the second row. Blocks as in transpose; shared: what
// it needs, and what was drawn for the images of the block.
template <class T>
__device__ void augment(const T *images, const long long *chosen, const double *drawn, const real *shift,
                        const real *scale, number *out, const Augmentation &how, int mixed) {
    const int SIDE = GATHER_SIDE;
    long long *units = (long long *)((number *)shared_memory + SIDE * (SIDE + 1));
    int N = how.N, plane = how.H * how.W, first_image = blockIdx.x * SIDE;
    for (int row = threadIdx.y; row < (1 + mixed) * how.rows; row += blockDim.y) {
        int n = first_image + threadIdx.x;
        if (n < N) units[row * SIDE + threadIdx.x] = (long long)floor(times(drawn[row * N + n], UNIT) + 0.5);
    }
    __syncthreads();
    transpose(out, how.C * plane, N, [&](int n, int pixel) {
        int channel = pixel / plane, i = pixel % plane / how.W, j = pixel % how.W;
        Drawn own = {units + n - first_image};
        bool cut = mixed && in_box(own, BOXES, i, j);
        real value = 0;
        for (int image = cut; image <= mixed; image++) {
            const T *source = images + (chosen[image * N + n] * how.C + channel) * plane;
            Drawn for_it = {own.units + image * how.rows * SIDE};
            real part = augmented(source, for_it, i, j, shift[channel], scale[channel], how);
            if (!mixed || cut) value = part;
            else if (image == 0) value = times(part, own.number(SHARE));
            else value += times(part, 1 - own.number(SHARE));
        }
        return value;
    });
}

extern "C" __global__ void augment_bytes(
    const unsigned char *__restrict__ images, const long long *__restrict__ chosen,
    const double *__restrict__ drawn, const real *__restrict__ shift, const real *__restrict__ scale,
    number *__restrict__ out, Augmentation how, int mixed) {
    augment(images, chosen, drawn, shift, scale, out, how, mixed);
}

extern "C" __global__ void augment_numbers(
    const real *__restrict__ images, const long long *__restrict__ chosen, const double *__restrict__ drawn,
    const real *__restrict__ shift, const real *__restrict__ scale, number *__restrict__ out,
    Augmentation how, int mixed) {
    augment(images, chosen, drawn, shift, scale, out, how, mixed);
}

// --- targets

__device__ real target(const long long *labels, int c, int n, int N) { return labels[n] == c; }
__device__ real target(const real *numbers, int c, int n, int N) { return numbers[c * N + n]; }

// out (classes, N) = the mixture of the targets; one thread for each number.
template <class T>
__device__ void mix(const T *own, const T *others, const double *drawn, real *out, int classes, int N) {
    int at = flat_thread(), c = at / N, n = at % N;
    if (c >= classes) return;
    real share = (real)drawn[TARGET_SHARE * N + n];
    out[at] = times(target(own, c, n, N), share) + times(target(others, c, n, N), 1 - share);
}

extern "C" __global__ void mix_labels(
    const long long *__restrict__ own, const long long *__restrict__ others,
    const double *__restrict__ drawn, real *__restrict__ out, int classes, int N) {
    mix(own, others, drawn, out, classes, N);
}

extern "C" __global__ void mix_numbers(
    const real *__restrict__ own, const real *__restrict__ others, const double *__restrict__ drawn,
    real *__restrict__ out, int classes, int N) {
    mix(own, others, drawn, out, classes, N);
}
