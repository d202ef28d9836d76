/* probe.cu - see probe.h. */
#include "kernels/cuda/probe.h"

#include <cuda_runtime.h>
#include <stdio.h>

int mx_cuda_probe(char *text, size_t size) {
    cudaDeviceProp device;
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);

    if (error != cudaSuccess || count == 0) {
        snprintf(text, size, "built in; %s", error == cudaSuccess ? "no device here" : cudaGetErrorString(error));
        return 0;
    }
    error = cudaGetDeviceProperties(&device, 0);
    if (error != cudaSuccess) {
        snprintf(text, size, "built in; %s", cudaGetErrorString(error));
        return 0;
    }
    snprintf(text, size, "%d device%s: %s, sm_%d%d, %.1f GiB", count, count == 1 ? "" : "s", device.name, device.major,
             device.minor, (double)device.totalGlobalMem / (1 << 30));
    return count;
}
