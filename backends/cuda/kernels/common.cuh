// What all sources share. A source is compiled for one dtype of activations and of the operands of products,
// NUMBER: float, double, float16 or bfloat16. REAL is what kernels compute in, and the dtype of all other
// arrays: float for 16-bit numbers, else NUMBER.
//
// Arrays are contiguous and batch last: x (C, H, W, N), y (O, OH, OW, N), weight (O, C, KH, KW). Adjacent
// threads process adjacent images or, at batch 1, adjacent columns, so their memory accesses are adjacent.
// Sums do not use atomics, so the same input gives the same bits. The caller makes sure that an array has
// fewer than 2^31 elements.
//
// The comment above a kernel says how it is launched: "Blocks: threads for n" means as many blocks of 256 threads
// as n threads need, "Blocks: (a, b)" means b rows of a blocks (row_of_blocks gives the row), and "shared" is the
// shared memory of each block. "null: none" or "null: not needed" says what a null pointer means; other pointers
// are never null.
//
// Nothing is included and all shared memory is dynamic, so the same source can be compiled by NVRTC, by nvcc
// and, with a header that replaces CUDA, by a host compiler.

#ifdef __CUDACC__ // a host's compiler has these two from the header that replaces CUDA
__device__ float wide_of_float16(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ unsigned short bits_of_float16(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

// 16-bit numbers, which become float in every sum or product. A float is rounded to the nearest of them,
// halfway to the even one; what is too large becomes infinite, and NaN stays NaN.
struct float16 {
    unsigned short bits;

    float16() = default;
    __device__ float16(float value) : bits(bits_of_float16(value)) {}
    __device__ operator float() const { return wide_of_float16(bits); }
};

struct bfloat16 { // the upper half of a float
    unsigned short bits;

    bfloat16() = default;
    __device__ bfloat16(float value) {
        unsigned wide = __float_as_uint(value);
        bits = (unsigned short)((value == value ? wide + 0x7fff + (wide >> 16 & 1) : 0x7fc00000) >> 16);
    }
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

typedef REAL real;
typedef NUMBER number;

struct Window {
    int KH, KW; // size
    int SH, SW; // stride
    int PH, PW; // padding
    int DH, DW; // dilation
};

struct Convolution {
    int groups, C, H, W, O, OH, OW, N; // C and O: of one group
    Window window;
};

struct Pooling {
    int C, H, W, OH, OW, N;
    Window window;
};

const unsigned WARP = 32, WHOLE_WARP = 0xffffffff;

extern __shared__ double shared_memory[];

__device__ int flat_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The row of this block. A grid has at most 65,535 rows along y, so more are split into layers along z. The
// last layer may have too many rows; kernels return in them.
__device__ int row_of_blocks() { return blockIdx.z * gridDim.y + blockIdx.y; }

__device__ real positive(real value) { return value < 0 ? 0 : value; } // NaN stays NaN

// A hash of 32 bits, that of backends/kernels/hashing.py.
__device__ unsigned scrambled(unsigned bits) {
    bits = (bits ^ (bits >> 16)) * 0x7feb352d;
    bits = (bits ^ (bits >> 15)) * 0x846ca68b;
    return bits ^ (bits >> 16);
}

__device__ int tiles_of(int size, int tile) { return (size + tile - 1) / tile; }

// Where a part of `length` numbers begins.
__device__ int begin_of(int part, int parts, int length) { return (int)((long long)length * part / parts); }

__device__ bool within(int index, int size) { return (unsigned)index < (unsigned)size; }

// Whether a value replaces the maximum so far in max pooling: of equal values the first wins, and NaN always
// wins.
__device__ bool beats(real value, real best, bool any) { return !any || value > best || value != value; }

// The position of element `at` of an array (C, H, W, N).
struct Place {
    int c, row, column, n;
};

__device__ Place place_of(int at, int H, int W, int N) {
    return {at / N / W / H, at / N / W % H, at / N % W, at % N};
}

// The position of the window that contains `index` at the tap with this `offset`, or -1 if there is none.
__device__ int position_before(int index, int offset, int stride, int positions) {
    int distance = index + offset;
    if (distance < 0 || distance % stride != 0) return -1;
    return distance / stride < positions ? distance / stride : -1;
}

// Calls see(i, j, h, column) for each tap of the window at (oh, ow) that is inside the input.
template <class See>
__device__ void for_each_tap(const Window &w, int oh, int ow, int H, int W, See see) {
    for (int i = 0; i < w.KH; i++) {
        int h = oh * w.SH + i * w.DH - w.PH;
        if (!within(h, H)) continue;
        for (int j = 0; j < w.KW; j++) {
            int column = ow * w.SW + j * w.DW - w.PW;
            if (within(column, W)) see(i, j, h, column);
        }
    }
}

// Calls seen(i, j, oh, ow) for each window that contains (h, column) of the input, with the tap.
template <class Seen>
__device__ void for_each_window(const Window &w, int h, int column, int OH, int OW, Seen seen) {
    for (int i = 0; i < w.KH; i++) {
        int oh = position_before(h, w.PH - i * w.DH, w.SH, OH);
        if (oh < 0) continue;
        for (int j = 0; j < w.KW; j++) {
            int ow = position_before(column, w.PW - j * w.DW, w.SW, OW);
            if (ow >= 0) seen(i, j, oh, ow);
        }
    }
}

const int GATHER_SIDE = 32;

// out (pixels, N) = value_of(n, pixel), where the pixels of an image are adjacent in what it reads. Blocks of
// 32 x 8 threads: (tiles of 32 images, tiles of 32 pixels); shared: 32 x 33 elements for the transposition.
template <class Value>
__device__ void transpose(number *out, int pixels, int N, Value value_of) {
    number *tile = (number *)shared_memory;
    const int PITCH = GATHER_SIDE + 1; // one more, so that the elements of a column are in different banks
    int row_of_tiles = row_of_blocks();
    if (row_of_tiles >= tiles_of(pixels, GATHER_SIDE)) return;
    int first_image = blockIdx.x * GATHER_SIDE, first_pixel = row_of_tiles * GATHER_SIDE;
    for (int row = threadIdx.y; row < GATHER_SIDE; row += blockDim.y) {
        int n = first_image + row, pixel = first_pixel + threadIdx.x;
        if (n < N && pixel < pixels) tile[row * PITCH + threadIdx.x] = value_of(n, pixel);
    }
    __syncthreads();
    for (int row = threadIdx.y; row < GATHER_SIDE; row += blockDim.y) {
        int n = first_image + threadIdx.x, pixel = first_pixel + row;
        if (n < N && pixel < pixels) out[pixel * N + n] = tile[threadIdx.x * PITCH + row];
    }
}

// The sums over the threads of a block whose numbers are the same modulo `columns`: each thread gets its own
// column's. The sizes are powers of two; shared: one double per thread.
__device__ double column_sum(double value, unsigned columns) {
    shared_memory[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half >= columns; half /= 2) {
        if (threadIdx.x < half) shared_memory[threadIdx.x] += shared_memory[threadIdx.x + half];
        __syncthreads();
    }
    double total = shared_memory[threadIdx.x % columns];
    __syncthreads();
    return total;
}

// The sum over all threads of a block, in all of them.
__device__ double block_sum(double value) { return column_sum(value, 1); }
