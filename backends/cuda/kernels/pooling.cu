// Pooling: blocks of threads for C * (elements written).

// y = the maximum of each window, winner = its tap (null: not needed); padding never wins.
extern "C" __global__ void max_pool(
    const number *__restrict__ x, number *__restrict__ y, unsigned char *__restrict__ winner, Pooling s) {
    const Window &w = s.window;
    int at = flat_thread();
    if (at >= s.C * s.OH * s.OW * s.N) return;
    Place y_place = place_of(at, s.OH, s.OW, s.N);
    real best = 0;
    int taken = 0;
    bool any = false;
    for_each_tap(w, y_place.row, y_place.column, s.H, s.W, [&](int i, int j, int h, int column) {
        real value = x[((y_place.c * s.H + h) * s.W + column) * s.N + y_place.n];
        if (beats(value, best, any)) {
            best = value;
            taken = i * w.KW + j;
        }
        any = true;
    });
    y[at] = best;
    if (winner) winner[at] = (unsigned char)taken;
}

// dx = the gradient of the input: dy of every window whose maximum is here. If y, the output of ReLU and
// pooling, is given, only where y is positive, which includes the gradient of ReLU.
extern "C" __global__ void max_pool_grad(
    const number *__restrict__ dy, const unsigned char *__restrict__ winner, const number *__restrict__ y,
    number *__restrict__ dx, Pooling s) {
    const Window &w = s.window;
    int at = flat_thread();
    if (at >= s.C * s.H * s.W * s.N) return;
    Place x_place = place_of(at, s.H, s.W, s.N);
    real total = 0;
    for_each_window(w, x_place.row, x_place.column, s.OH, s.OW, [&](int i, int j, int oh, int ow) {
        int from = ((x_place.c * s.OH + oh) * s.OW + ow) * s.N + x_place.n;
        if (winner[from] == i * w.KW + j && (!y || y[from] > 0)) total += dy[from];
    });
    dx[at] = total;
}

// y (C, OH, OW, N) = weighted sums of the rows and columns of x (C, H, W, N). A sampling is a start for each
// position of the output and one more, then the positions of the input. Blocks: threads for `size`, all of y.
extern "C" __global__ void resample(
    const number *__restrict__ x, number *__restrict__ y, const long long *__restrict__ rows,
    const real *__restrict__ row_weights, const long long *__restrict__ columns,
    const real *__restrict__ column_weights, int H, int W, int OH, int OW, int N, int size) {
    int at = flat_thread();
    if (at >= size) return;
    Place place = place_of(at, OH, OW, N);
    real total = 0;
    for (long long i = rows[place.row]; i < rows[place.row + 1]; i++) {
        const number *line = x + (place.c * H + rows[OH + 1 + i]) * W * N + place.n;
        real sum = 0;
        for (long long j = columns[place.column]; j < columns[place.column + 1]; j++)
            sum += column_weights[j] * line[columns[OW + 1 + j] * N];
        total += row_weights[i] * sum;
    }
    y[at] = total;
}
