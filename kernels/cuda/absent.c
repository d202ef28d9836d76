/* absent.c - a build without nvcc. */
#include "kernels/cuda/measure.h"
#include "kernels/cuda/probe.h"

#include <assert.h>

int mx_cuda_probe(char *text, size_t size) {
    snprintf(text, size, "not built in");
    return 0;
}

bool mx_cuda_usable(char *text, size_t size) {
    snprintf(text, size, "this mixrun was built without CUDA");
    return false;
}

mx_code mx_cuda_open(const mx_backend_options *o, mx_backend **ret, mx_status *st) {
    *ret = NULL;
    mx_fail(st, MX_E_DEVICE, MX_NOWHERE, "device '%s': this mixrun was built without CUDA", o->device);
    mx_hint(st, "use device: cpu, or install the CUDA toolkit (nvcc) and build again: ./setup.sh");
    return MX_E_DEVICE;
}

/* Nobody has a CUDA backend to call these with. */
void mx_cuda_measure_product(mx_backend *b, int64_t m, int64_t n, int64_t k, mx_measured_matrix a, mx_measured_matrix w,
                             mx_measured_matrix y) {
    (void)b, (void)m, (void)n, (void)k, (void)a, (void)w, (void)y;
    assert(!"there is no CUDA backend in this build");
}

size_t mx_cuda_measure_free(mx_backend *b) {
    (void)b;
    assert(!"there is no CUDA backend in this build");
    return 0;
}
