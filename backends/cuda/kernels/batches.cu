// Batches.

// chosen (rows, N) = the next columns of `order` (rows, count), chosen_labels = the labels of what the first row
// names (labels null: none), rate = the rate of this step; the cursor, the number of (samples, steps) done,
// advances. One block. Beyond the end it starts again, so that an extra step, as in a warm-up, reads nothing out
// of bounds.
extern "C" __global__ void next_batch(
    long long *cursor, const long long *__restrict__ order, const long long *__restrict__ labels,
    const real *__restrict__ rates, long long *__restrict__ chosen, long long *__restrict__ chosen_labels,
    real *__restrict__ rate, int rows, int N, int count, int steps, int columns) {
    long long first = cursor[0], step = cursor[1];
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        long long column = (first + n) % count;
        for (int row = 0; row < rows; row++) chosen[row * N + n] = order[row * count + column];
        if (labels) chosen_labels[n] = labels[order[column]];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int column = 0; column < columns; column++) rate[column] = rates[step % steps * columns + column];
        cursor[0] = first + N;
        cursor[1] = step + 1;
    }
}

// images (M, pixels) -> out (pixels, N): the chosen images, each channel of `plane` pixels less its `shift`
// and times its `scale`, or times `factor` if these are null. Blocks and shared memory as in transpose.
template <class T>
__device__ void gather(const T *images, const long long *chosen, number *out, const real *shift,
                       const real *scale, real factor, int plane, int pixels, int N) {
    transpose(out, pixels, N, [&](int n, int pixel) {
        real value = images[chosen[n] * pixels + pixel];
        int channel = pixel / plane;
        return shift ? (value - shift[channel]) * scale[channel] : value * factor;
    });
}

extern "C" __global__ void gather_bytes(
    const unsigned char *__restrict__ images, const long long *__restrict__ chosen, number *__restrict__ out,
    const real *__restrict__ shift, const real *__restrict__ scale, double factor, int plane, int pixels,
    int N) {
    gather(images, chosen, out, shift, scale, (real)factor, plane, pixels, N);
}

extern "C" __global__ void gather_numbers(
    const real *__restrict__ images, const long long *__restrict__ chosen, number *__restrict__ out,
    const real *__restrict__ shift, const real *__restrict__ scale, double factor, int plane, int pixels,
    int N) {
    gather(images, chosen, out, shift, scale, (real)factor, plane, pixels, N);
}
