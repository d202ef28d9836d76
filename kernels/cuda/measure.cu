/* measure.cu - see measure.h. */
#include "kernels/cuda/measure.h"

#include "kernels/cuda/cuda.h"

static mx_matrix matrix_of(const mx_measured_matrix &m) {
    return mx_matrix{ m.data, m.dtype, m.ld, m.transposed };
}

void mx_cuda_measure_product(mx_backend *b, int64_t m, int64_t n, int64_t k, mx_measured_matrix a, mx_measured_matrix w,
                             mx_measured_matrix y) {
    mx_cuda_gemm(mx_cuda_of(b), m, n, k, matrix_of(a), matrix_of(w), matrix_of(y), 1, false);
}

size_t mx_cuda_measure_free(mx_backend *b) {
    mx_cuda *c = mx_cuda_of(b);
    size_t free_bytes = 0, all_bytes = 0;

    b->waits++;
    mx_cuda_check(c, cudaStreamSynchronize(c->stream), "the work before this point");
    mx_cuda_check(c, cudaMemGetInfo(&free_bytes, &all_bytes), "asking for its memory");
    return free_bytes;
}
