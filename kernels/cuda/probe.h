/* probe.h - CUDA from outside: what there is of it on this machine, and opening it. Exists in every build: without nvcc,
 * absent.c answers. Never needs a driver to start. */
#ifndef KERNELS_CUDA_PROBE_H
#define KERNELS_CUDA_PROBE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/backend.h"

/* A few lines for `mixrun env`: "not built in"; or what was found of driver, devices and cuBLASLt and where, one line each,
 * separated by line feeds. Returns the number of usable devices. */
int mx_cuda_probe(char *text, size_t size);
/* Why device "cuda" (the first) cannot be used, in a few words ("not built in", "no driver here"), or an empty text when it
 * can: for `device: auto`, which says why it took the CPU. Returns true when it can. */
bool mx_cuda_usable(char *text, size_t size);

/* o->device "cuda" or "cuda:N". MX_E_DEVICE, with a hint what to do: not built in, no driver, a driver that is too old, no such
 * device, an architecture below sm_80, no cuBLASLt; MX_E_MEMORY. */
mx_code mx_cuda_open(const mx_backend_options *o, mx_backend **ret, mx_status *st);

#ifdef __cplusplus
}
#endif

#endif
