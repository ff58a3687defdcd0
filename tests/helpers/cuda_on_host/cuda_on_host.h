// Stands for CUDA where a host's compiler reads the kernels: its keywords, and a launch that runs the threads
// of one block after the other, each on a stack of its own, so that they can wait for each other.
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__ inline
#define __shared__

using std::erf, std::exp, std::expm1, std::fabs, std::log, std::log1p, std::nan, std::sqrt;
using std::ceil, std::pow;

template <class To, class From>
static To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

static unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
static float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }

// what common.cuh has instructions for; this compiler knows the type
static float wide_of_float16(unsigned short bits) { return same_bits<_Float16>(bits); }
static unsigned short bits_of_float16(float value) { return same_bits<unsigned short>((_Float16)value); }

// the host's compiler is told to fuse no product with a sum
static float __fmul_rn(float a, float b) { return a * b; }
static double __dmul_rn(double a, double b) { return a * b; }

struct dim3 {
    unsigned x, y, z;
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

double shared_memory[6144 + 32]; // 48 KB, which every GPU has, and a margin that nobody may write to
static const double UNTOUCHED = 1234.5;

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Thread {
    ucontext_t start;
    jmp_buf place;
    std::vector<char> stack = std::vector<char>(64 << 10);
    State state;
    bool started;
    unsigned number, shuffles;
    dim3 index;
    alignas(8) char given[2][8]; // what it hands to its warp; the one before is still being read
};

static std::vector<Thread *> threads;
static Thread *running;
static jmp_buf scheduler;
static bool backwards; // the order in which threads and blocks run, which must not matter

static void wait(State state) {
    running->state = state;
    if (!_setjmp(running->place)) _longjmp(scheduler, 1);
}

static void __syncthreads() { wait(AT_BARRIER); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    unsigned turn = running->shuffles++ % 2;
    *(T *)running->given[turn] = value;
    wait(IN_WARP);
    return *(T *)threads[running->number ^ (unsigned)mask]->given[turn];
}

static void fail(const char *text) {
    std::fprintf(stderr, "cuda_on_host: %s\n", text);
    std::abort();
}

static void (*body)();

static void begin() {
    body();
    running->state = DONE;
    _longjmp(scheduler, 1);
}

static void resume(Thread *thread) {
    running = thread;
    threadIdx = thread->index;
    if (_setjmp(scheduler)) return;
    if (thread->started) _longjmp(thread->place, 1);
    thread->started = true;
    setcontext(&thread->start);
}

static void run_block(unsigned count, unsigned shared_bytes) {
    for (unsigned t = 0; t < count; t++) {
        Thread *thread = threads[t];
        getcontext(&thread->start);
        thread->start.uc_stack.ss_sp = thread->stack.data();
        thread->start.uc_stack.ss_size = thread->stack.size();
        makecontext(&thread->start, begin, 0);
        thread->state = READY;
        thread->started = false;
        thread->number = t;
        thread->shuffles = 0;
        thread->index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    }
    double *margin = shared_memory + (shared_bytes + 7) / 8;
    for (double *at = shared_memory; at < margin + 32; at++) *at = at < margin ? NAN : UNTOUCHED;
    for (;;) {
        for (unsigned t = 0; t < count; t++) {
            Thread *thread = threads[backwards ? count - 1 - t : t];
            if (thread->state == READY) resume(thread);
        }
        bool any_ready = false, all_done = true, at_barrier = true;
        for (unsigned first = 0; first < count; first += 32) {
            bool in_warp = false, elsewhere = false;
            for (unsigned t = first; t < count && t < first + 32; t++) {
                State state = threads[t]->state;
                in_warp |= state == IN_WARP;
                elsewhere |= state != IN_WARP; // all 32 take part in a shuffle, or none
                all_done &= state == DONE;
                at_barrier &= state == AT_BARRIER || state == DONE;
            }
            if (in_warp && elsewhere) fail("a shuffle without some threads of its warp");
            for (unsigned t = first; in_warp && t < count && t < first + 32; t++) threads[t]->state = READY;
            any_ready |= in_warp;
        }
        if (all_done) break;
        if (any_ready) continue;
        if (!at_barrier) fail("threads wait for each other in different places");
        for (unsigned t = 0; t < count; t++)
            if (threads[t]->state == AT_BARRIER) threads[t]->state = READY;
    }
    for (double *at = margin; at < margin + 32; at++)
        if (*at != UNTOUCHED) fail("a write beyond the shared memory that was asked for");
}

static void run_grid(const unsigned *grid, const unsigned *block, unsigned shared_bytes, bool reversed) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    backwards = reversed;
    unsigned count = block[0] * block[1] * block[2], blocks = grid[0] * grid[1] * grid[2];
    if (count > 1024 || shared_bytes > 48 << 10 || grid[1] > 65535 || grid[2] > 65535 || !blocks || !count)
        fail("a launch that no GPU takes");
    while (threads.size() < count) threads.push_back(new Thread);
    for (unsigned number = 0; number < blocks; number++) {
        unsigned b = reversed ? blocks - 1 - number : number;
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        run_block(count, shared_bytes);
    }
}

static void **arguments;

template <auto kernel>
struct Call;

template <class... P, void (*kernel)(P...)>
struct Call<kernel> {
    template <std::size_t... I>
    static void with(std::index_sequence<I...>) {
        kernel(*(std::remove_reference_t<P> *)arguments[I]...);
    }
    static void run() { with(std::index_sequence_for<P...>()); }
};

#define LAUNCHER(name)                                                                                       \
    extern "C" void launch_##name(                                                                           \
        const unsigned *grid, const unsigned *block, unsigned shared_bytes, int reversed, void **values) {   \
        arguments = values;                                                                                  \
        body = Call<name>::run;                                                                              \
        run_grid(grid, block, shared_bytes, reversed);                                                       \
    }                                                                                                        \
    extern "C" int parameters_##name() { return count_parameters(name); }

template <class... P>
int count_parameters(void (*)(P...)) {
    return sizeof...(P);
}
