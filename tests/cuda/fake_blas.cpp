// A libcublas.so without a card, which multiplies as the documentation of cublasGemmEx says: matrices column by column,
// C = α op(A) op(B) + β C with op(A) [m, k], op(B) [k, n], C [m, n]; both operands of one type, C and sums in f32.
// FAKE_BLAS_FAIL=function:status lets a function fail. What it is not asked for rightly it refuses with status 7.
#pragma GCC visibility push(default)
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

typedef int Status;
typedef void *Handle;
static const Status INVALID = 7, UNSUPPORTED = 15;

struct Blas {
    Handle stream;
    int math;
};

static Status fails(const char *function) {
    const char *plan = std::getenv("FAKE_BLAS_FAIL");
    char name[64];
    int status;
    if (!plan || std::sscanf(plan, "%63[^:]:%d", name, &status) != 2) return 0;
    return std::strcmp(name, function) == 0 ? status : 0;
}

#define CALL(function, ...)                              \
    extern "C" Status function(__VA_ARGS__) {            \
        if (Status status = fails(#function)) return status;

CALL(cublasCreate_v2, Handle *handle) *handle = new Blas{nullptr, 0}; return 0; }
CALL(cublasDestroy_v2, Handle handle) delete (Blas *)handle; return 0; }
CALL(cublasSetStream_v2, Handle handle, Handle stream) ((Blas *)handle)->stream = stream; return 0; }
CALL(cublasSetMathMode, Handle handle, int math) ((Blas *)handle)->math = math; return 0; }

extern "C" const char *cublasGetStatusName(Status status) {
    return status == 13 ? "CUBLAS_STATUS_EXECUTION_FAILED" : status == INVALID ? "CUBLAS_STATUS_INVALID_VALUE" : nullptr;
}

static float number(const void *all, int type, int64_t i) {
    if (type == 0) return ((const float *)all)[i];
    if (type == 2) return (float)((const _Float16 *)all)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)all)[i] << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

CALL(cublasGemmEx, Handle handle, int transa, int transb, int m, int n, int k, const void *alpha, const void *a, int atype,
     int lda, const void *b, int btype, int ldb, const void *beta, void *c, int ctype, int ldc, int compute, int)
    Blas *blas = (Blas *)handle;
    // its stream, and sums in f32 alone
    if (!blas || !blas->stream || blas->math != 16) return INVALID;
    if (atype != btype || (atype != 0 && atype != 2 && atype != 14) || ctype != 0 || compute != 68) return UNSUPPORTED;
    if (lda < (transa ? k : m) || ldb < (transb ? n : k) || ldc < m) return INVALID;
    float by = *(const float *)alpha, before = *(const float *)beta, *out = (float *)c;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)number(a, atype, transa ? l + i * lda : i + l * lda) *
                       number(b, btype, transb ? j + l * ldb : l + j * ldb);
            float &to = out[i + j * ldc];
            // what C holds is not read where β is 0
            to = (float)(by * sum) + (before == 0.0f ? 0.0f : before * to);
        }
    return 0;
}
