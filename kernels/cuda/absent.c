/* absent.c - a build without nvcc. */
#include "kernels/cuda/probe.h"

#include <stdio.h>

int mx_cuda_probe(char *text, size_t size) {
    snprintf(text, size, "not built in");
    return 0;
}
