/* runtime.h - the part of the CUDA runtime that mixrun uses, for a machine without a GPU (shim.h tells the rest).
 *
 * The device is "CUDA shim on the CPU": an sm_90 whose memory is host memory. Everything has happened when a call returns.
 * Fresh memory, of the device and page-locked, holds 0xff bytes (NaN, -1), so that reading what was never written shows; what
 * a copy or a fill would touch outside of its allocation is left to AddressSanitizer. The environment:
 *   MIXRUN_SHIM_BYTES  the device's memory, 8 GiB unless told; allocations beyond it fail
 *   MIXRUN_SHIM_PROTECT=1  host code that follows a device pointer crashes
 *   MIXRUN_SHIM_FAIL   "no driver", "old driver", "no device", "sm_75", or "lost after N launches" */
#ifndef KERNELS_CUDA_SHIM_RUNTIME_H
#define KERNELS_CUDA_SHIM_RUNTIME_H

#include <stddef.h>

enum cudaError_t { /* numbers as in CUDA 13 */
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
};

enum { CUDART_VERSION = 13000 };
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaMemAttachGlobal = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount;
};

typedef struct shim_stream *cudaStream_t;
typedef struct shim_event *cudaEvent_t;

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);

cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);
const char *cudaGetErrorName(cudaError_t e);

cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaMallocManaged(void **memory, size_t bytes, unsigned flags);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMallocHost(void **memory, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to);

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);

template <class T> static inline cudaError_t cudaMalloc(T **memory, size_t bytes) {
    return cudaMalloc(reinterpret_cast<void **>(memory), bytes);
}

namespace shim {
/* Called by launch: counts it, and says whether the device is still there to run it. */
bool runtime_launches();
/* Aborts when an argument of a kernel holds an address of the host's: such a pointer works here and nowhere else. Every word of
 * it is looked at, so those in structs are found too. */
void check_argument(const char *kernel, const void *value, size_t bytes);
/* While one of them lives the device's memory can be followed; with MIXRUN_SHIM_PROTECT=1 it cannot otherwise, so that host code
 * that reads or writes it crashes, as on a GPU. */
struct device_access {
    device_access();
    ~device_access();
    device_access(const device_access &) = delete;
    device_access &operator=(const device_access &) = delete;
};
size_t runtime_bytes(); /* of the device, held */
}

#endif
