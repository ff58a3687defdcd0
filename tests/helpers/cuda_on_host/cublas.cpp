// The calls of cuBLAS that a recorded step makes, as its documentation has them, for ctypes to call for real.
#include <cstddef>
#include <cstdint>

extern "C" {

int created, destroyed, answer; // answer: what the next product gives back
void *stream_set, *workspace_set;
std::size_t workspace_bytes;

struct Handle {
    int number;
};
static Handle handle{42};

int cublasCreate_v2(Handle **out) {
    created++;
    *out = &handle;
    return 0;
}

int cublasDestroy_v2(Handle *given) {
    destroyed++;
    return given == &handle ? 0 : 1;
}

int cublasSetStream_v2(Handle *given, void *stream) {
    stream_set = stream;
    workspace_set = nullptr; // as cuBLAS does
    return given == &handle ? 0 : 1;
}

int cublasSetWorkspace_v2(Handle *given, void *workspace, std::size_t bytes) {
    workspace_set = workspace;
    workspace_bytes = bytes;
    return given == &handle ? 0 : 1;
}
}

template <class T>
static void multiply(
    bool turn_a, bool turn_b, int m, int n, int k, T alpha, const T *a, int lda, const T *b, int ldb, T beta,
    T *c, int ldc) {
    for (int column = 0; column < n; column++)
        for (int row = 0; row < m; row++) {
            T sum = 0;
            for (int i = 0; i < k; i++)
                sum += (turn_a ? a[i + row * lda] : a[row + i * lda]) *
                       (turn_b ? b[column + i * ldb] : b[i + column * ldb]);
            T &out = c[row + column * ldc];
            out = alpha * sum + (beta == 0 ? 0 : beta * out);
        }
}

extern "C" int cublasGemmEx(
    Handle *given, int turn_a, int turn_b, int m, int n, int k, const void *alpha, const void *a, int a_type,
    int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc, int compute,
    int algorithm) {
    if (answer) return answer;
    if (given != &handle) return 1;
    if (a_type != c_type || b_type != c_type || algorithm != -1) return 7;
    if (c_type == 0 && (compute == 68 || compute == 77))
        multiply<float>(
            turn_a, turn_b, m, n, k, *(const float *)alpha, (const float *)a, lda, (const float *)b, ldb,
            *(const float *)beta, (float *)c, ldc);
    else if (c_type == 1 && compute == 70)
        multiply<double>(
            turn_a, turn_b, m, n, k, *(const double *)alpha, (const double *)a, lda, (const double *)b, ldb,
            *(const double *)beta, (double *)c, ldc);
    else
        return 15;
    return 0;
}
