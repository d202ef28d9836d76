/* runtime.cc - the CUDA runtime of a device that is the CPU. */
#include "kernels/cuda/shim/runtime.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <sys/mman.h>

struct shim_stream {
    unsigned flags;
};
struct shim_event {
    unsigned flags;
    bool recorded;
    std::chrono::steady_clock::time_point at;
};

namespace {

enum { ALIGNMENT = 256, PAGE = 4096, SHARED_OPTIN = 232448 /* sm_90's */ };

struct allocation {
    size_t bytes;
    size_t mapped; /* 0: from the heap */
    bool host;
};

struct runtime {
    std::mutex lock;
    std::map<void *, allocation> held;
    int accesses = 0;     /* device_access that live */
    bool protects = false;
    size_t bytes = 0, all = (size_t)8 << 30;
    unsigned long long launches = 0, lost_after = ~0ull;
    bool no_driver = false, old_driver = false, no_device = false, old_device = false, lost = false;

    runtime() {
        const char *size = getenv("MIXRUN_SHIM_BYTES"), *protect = getenv("MIXRUN_SHIM_PROTECT"), *fail = getenv("MIXRUN_SHIM_FAIL");

        protects = protect && strcmp(protect, "1") == 0;
        if (size && *size) {
            all = strtoull(size, NULL, 0);
        }
        if (!fail || !*fail) {
            return;
        }
        no_driver = strcmp(fail, "no driver") == 0;
        old_driver = strcmp(fail, "old driver") == 0;
        no_device = strcmp(fail, "no device") == 0;
        old_device = strcmp(fail, "sm_75") == 0;
        if (!no_driver && !old_driver && !no_device && !old_device && sscanf(fail, "lost after %llu launches", &lost_after) != 1) {
            fprintf(stderr, "cuda shim: MIXRUN_SHIM_FAIL=\"%s\" means nothing to it\n", fail);
            abort();
        }
    }
};

runtime &the() {
    static runtime *r = new runtime; /* never destroyed: streams and memory may outlive main */

    return *r;
}

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t told(cudaError_t e) {
    if (e != cudaSuccess) {
        last_error = e;
    }
    return e;
}

/* What every call says when the device cannot be reached, or has been lost: that stays so. */
cudaError_t state() {
    runtime &r = the();

    if (r.no_driver || r.old_driver) {
        return cudaErrorInsufficientDriver;
    }
    if (r.no_device) {
        return cudaErrorNoDevice;
    }
    return r.lost ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t take(void **memory, size_t bytes, bool host) {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    *memory = NULL;
    if (state() != cudaSuccess) {
        return told(state());
    }
    if (bytes == 0) {
        return cudaSuccess;
    }
    if (!host && (bytes > r.all || r.bytes > r.all - bytes)) {
        return told(cudaErrorMemoryAllocation);
    }
    void *p = NULL; /* exactly as large as asked for: AddressSanitizer then knows its end */
    size_t mapped = r.protects && !host ? (bytes + PAGE - 1) / PAGE * PAGE : 0;

    if (mapped) {
        p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p = p == MAP_FAILED ? NULL : p;
    } else if (posix_memalign(&p, ALIGNMENT, bytes) != 0) {
        p = NULL;
    }
    if (!p) {
        return told(cudaErrorMemoryAllocation);
    }
    memset(p, 0xff, bytes);
    if (mapped && r.accesses == 0) {
        mprotect(p, mapped, PROT_NONE);
    }
    r.held.emplace(p, allocation{ bytes, mapped, host });
    r.bytes += host ? 0 : bytes;
    *memory = p;
    return cudaSuccess;
}

cudaError_t give(void *memory, bool host) {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    if (!memory) {
        return told(state());
    }
    auto at = r.held.find(memory);

    if (at == r.held.end() || at->second.host != host) {
        return told(cudaErrorInvalidValue);
    }
    r.bytes -= host ? 0 : at->second.bytes;
    if (at->second.mapped) {
        munmap(memory, at->second.mapped);
    } else {
        free(memory);
    }
    r.held.erase(at);
    return told(state());
}

}

namespace shim {
bool runtime_launches() {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    if (r.launches++ >= r.lost_after) {
        r.lost = true;
    }
    return told(state()) == cudaSuccess;
}
static void allow(runtime &r, int protection) {
    for (auto &a : r.held) {
        if (a.second.mapped) {
            mprotect(a.first, a.second.mapped, protection);
        }
    }
}
device_access::device_access() {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    if (r.protects && r.accesses++ == 0) {
        allow(r, PROT_READ | PROT_WRITE);
    }
}
device_access::~device_access() {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    if (r.protects && --r.accesses == 0) {
        allow(r, PROT_NONE);
    }
}

/* The device's or page-locked: both can be reached from a GPU. A pointer one past the end counts. */
static bool reachable(runtime &r, uint64_t word) {
    auto at = r.held.upper_bound(reinterpret_cast<void *>(word));

    if (at == r.held.begin()) {
        return false;
    }
    --at;
    return word - (uint64_t)at->first <= at->second.bytes;
}
/* Where Linux on x86-64 puts a process's code, heap, mappings and stacks (with the sanitizers' heaps), and something is there: a
 * pair of 32-bit numbers whose second is 32,000 lies in the same range. */
static bool is_host_address(uint64_t word) {
    unsigned high = (unsigned)(word >> 40);
    unsigned char resident;

    return ((high >= 0x55 && high <= 0x56) || (high >= 0x60 && high <= 0x64) || (high >= 0x7b && high <= 0x7f)) &&
           mincore(reinterpret_cast<void *>(word / PAGE * PAGE), 1, &resident) == 0;
}
void check_argument(const char *kernel, const void *value, size_t bytes) {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    for (size_t at = 0; at + sizeof(uint64_t) <= bytes; at += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, static_cast<const char *>(value) + at, sizeof word);
        if (is_host_address(word) && !reachable(r, word)) {
            fprintf(stderr, "cuda shim: %s: an argument of %zu bytes holds a host address, %#llx, in byte %zu\n", kernel, bytes,
                    (unsigned long long)word, at);
            abort();
        }
    }
}

size_t runtime_bytes() {
    std::lock_guard<std::mutex> hold(the().lock);

    return the().bytes;
}
}

/* ------------------------------------------------------------------ the device */

cudaError_t cudaGetDeviceCount(int *count) {
    cudaError_t e = state();

    *count = e == cudaSuccess || e == cudaErrorIllegalAddress ? 1 : 0;
    return told(e);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    if (device != 0) {
        return told(cudaErrorInvalidDevice);
    }
    if (state() != cudaSuccess) {
        return told(state());
    }
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "CUDA shim on the CPU");
    p->totalGlobalMem = the().all;
    p->sharedMemPerBlockOptin = SHARED_OPTIN;
    p->major = the().old_device ? 7 : 9;
    p->minor = the().old_device ? 5 : 0;
    p->multiProcessorCount = 4;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    return told(state() != cudaSuccess ? state() : device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = the().no_driver ? 0 : the().old_driver ? 11040 : CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* ------------------------------------------------------------------ errors */

cudaError_t cudaGetLastError(void) {
    cudaError_t e = last_error;

    last_error = the().lost ? cudaErrorIllegalAddress : cudaSuccess;
    return e;
}
const char *cudaGetErrorName(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    }
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    }
    return "unrecognized error code";
}

/* ------------------------------------------------------------------ memory */

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    return take(memory, bytes, false);
}
cudaError_t cudaMallocManaged(void **memory, size_t bytes, unsigned) {
    return bytes ? take(memory, bytes, false) : told(cudaErrorInvalidValue);
}
cudaError_t cudaFree(void *memory) {
    return give(memory, false);
}
cudaError_t cudaMallocHost(void **memory, size_t bytes) {
    return take(memory, bytes, true);
}
cudaError_t cudaFreeHost(void *memory) {
    return give(memory, true);
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes) {
    runtime &r = the();
    std::lock_guard<std::mutex> hold(r.lock);

    *all_bytes = r.all;
    *free_bytes = r.all - r.bytes;
    return told(state());
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    if (state() == cudaSuccess && bytes) {
        shim::device_access access;

        memmove(to, from, bytes);
    }
    return told(state());
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t) {
    if (state() == cudaSuccess && bytes) {
        shim::device_access access;

        memset(to, value, bytes);
    }
    return told(state());
}

/* ------------------------------------------------------------------ streams and events */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    *stream = state() == cudaSuccess ? new shim_stream{ flags } : NULL;
    return told(state());
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return told(state());
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return told(state());
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    *event = state() == cudaSuccess ? new shim_event{ flags, false, {} } : NULL;
    return told(state());
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return told(state());
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    if (!event) {
        return told(cudaErrorInvalidResourceHandle);
    }
    event->recorded = true;
    event->at = std::chrono::steady_clock::now();
    return told(state());
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    return told(event ? state() : cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return told(event ? state() : cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    if (!from || !to || !from->recorded || !to->recorded || ((from->flags | to->flags) & cudaEventDisableTiming)) {
        return told(cudaErrorInvalidResourceHandle);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return told(state());
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    bool fits = attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || (value >= 0 && value <= SHARED_OPTIN);

    return told(kernel && fits ? state() : cudaErrorInvalidValue);
}
