/* probe.h - what CUDA finds on this machine. Exists in every build: without nvcc, absent.c answers. */
#ifndef KERNELS_CUDA_PROBE_H
#define KERNELS_CUDA_PROBE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One line for `mixrun env`: "not built in", "built in; no driver here", "NVIDIA H200, sm_90, 139.8 GiB". Returns the
 * number of devices. Never fails and never needs a driver. */
int mx_cuda_probe(char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
