/* absent.c - a build without nvcc. */
#include "kernels/cuda/probe.h"

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
