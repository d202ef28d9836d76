/* device.cu - which GPUs there are, whether they can be used and why not, in words. */
#include "kernels/cuda/device.h"

extern "C" {
#include "kernels/cuda/probe.h"
}

static const mx_mark nowhere = {};

/* ------------------------------------------------------------------ what is there */

enum { OLDEST_ARCHITECTURE = 80 };

/* Devices that can be counted, or 0 and why not: `why` in a few words, `remedy` what to do about it. */
static int count_devices(char *why, size_t why_size, const char **remedy) {
    int count = 0, driver = 0, runtime = 0;
    cudaError_t e = cudaGetDeviceCount(&count);

    why[0] = '\0';
    *remedy = "";
    if (e == cudaSuccess && count > 0) {
        return count;
    }
    cudaGetLastError(); /* this answer is dealt with here */
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (e == cudaErrorInsufficientDriver && driver > 0) {
        snprintf(why, why_size, "the NVIDIA driver knows CUDA up to %d.%d, this mixrun needs %d.%d", driver / 1000, driver % 1000 / 10,
                 runtime / 1000, runtime % 1000 / 10);
        *remedy = "update the driver, or use device: cpu";
    } else if (e == cudaErrorInsufficientDriver) {
        snprintf(why, why_size, "no NVIDIA driver here");
        *remedy = "install the driver of the GPU, or use device: cpu";
    } else if (e == cudaSuccess || e == cudaErrorNoDevice) {
        snprintf(why, why_size, "the driver shows no GPU");
        *remedy = "look at nvidia-smi and at CUDA_VISIBLE_DEVICES, or use device: cpu";
    } else {
        snprintf(why, why_size, "CUDA says: %s", cudaGetErrorString(e));
        *remedy = "look at nvidia-smi, or use device: cpu";
    }
    return 0;
}

int mx_cuda_architecture(const cudaDeviceProp *p) {
    return 10 * p->major + p->minor;
}

void mx_cuda_device_line(char *text, size_t size, const cudaDeviceProp *p) {
    snprintf(text, size, "%.60s, sm_%d, %.1f GiB", p->name, mx_cuda_architecture(p), (double)p->totalGlobalMem / (1 << 30));
}

int mx_cuda_probe(char *text, size_t size) {
    const char *remedy;
    char line[200];
    int driver = 0, usable = 0, count = count_devices(line, sizeof line, &remedy);
    size_t used;

    if (count == 0) {
        used = (size_t)snprintf(text, size, "built in; %s", line);
    } else {
        cudaDriverGetVersion(&driver);
        used = (size_t)snprintf(text, size, "built in; the driver knows CUDA up to %d.%d", driver / 1000, driver % 1000 / 10);
    }
    for (int i = 0; i < count && used < size; i++) {
        cudaDeviceProp p;

        if (cudaGetDeviceProperties(&p, i) != cudaSuccess) {
            cudaGetLastError();
            continue;
        }
        mx_cuda_device_line(line, sizeof line, &p);
        usable += mx_cuda_architecture(&p) >= OLDEST_ARCHITECTURE;
        used += (size_t)snprintf(text + used, size - used, "\ncuda:%d     %s%s", i, line,
                                 mx_cuda_architecture(&p) < OLDEST_ARCHITECTURE ? " (older than sm_80: cannot be used)" : "");
    }
    if (used < size) {
        mx_cuda_cublaslt_look(line, sizeof line);
        snprintf(text + used, size - used, "\ncublasLt   %s", line);
    }
    return usable;
}

bool mx_cuda_usable(char *text, size_t size) {
    const char *remedy;
    cudaDeviceProp p;

    if (count_devices(text, size, &remedy) == 0) {
        return false;
    }
    if (cudaGetDeviceProperties(&p, 0) != cudaSuccess) {
        snprintf(text, size, "CUDA says: %s", cudaGetErrorString(cudaGetLastError()));
        return false;
    }
    if (mx_cuda_architecture(&p) < OLDEST_ARCHITECTURE) {
        snprintf(text, size, "%.60s is sm_%d; sm_80 is the oldest that can be used", p.name, mx_cuda_architecture(&p));
        return false;
    }
    if (!mx_cuda_cublaslt_look(text, size)) {
        return false;
    }
    text[0] = '\0';
    return true;
}

/* ------------------------------------------------------------------ which one is meant */

/* The number behind "cuda" or "cuda:", or -1 when it is none. */
static int device_number(const char *device) {
    char *end;
    long n;

    if (strcmp(device, "cuda") == 0) {
        return 0;
    }
    n = strncmp(device, "cuda:", 5) == 0 ? strtol(device + 5, &end, 10) : -1;
    return n >= 0 && n < 1024 && *end == '\0' ? (int)n : -1;
}

mx_code mx_cuda_choose_device(const mx_backend_options *o, cudaDeviceProp *p, int *ret_number, mx_status *st) {
    const char *remedy;
    char why[200];
    int count = count_devices(why, sizeof why, &remedy), number = device_number(o->device);

    *ret_number = number;
    if (count == 0) {
        mx_fail(st, MX_E_DEVICE, nowhere, "device '%s': %s", o->device, why);
        mx_hint(st, "%s", remedy);
        return MX_E_DEVICE;
    }
    if (number < 0 || number >= count) {
        mx_fail(st, MX_E_DEVICE, nowhere, "device '%s': there %s %d GPU%s here", o->device, count == 1 ? "is" : "are", count,
                count == 1 ? "" : "s");
        mx_hint(st, count == 1 ? "use device: cuda" : "use cuda:0 to cuda:%d", count - 1);
        return MX_E_DEVICE;
    }
    cudaError_t e = cudaGetDeviceProperties(p, number);

    if (e == cudaSuccess && mx_cuda_architecture(p) < OLDEST_ARCHITECTURE) {
        mx_fail(st, MX_E_DEVICE, nowhere, "device '%s': %.60s is sm_%d; sm_80 (A100, RTX 30) is the oldest that can be used", o->device,
                p->name, mx_cuda_architecture(p));
        mx_hint(st, "use another GPU, or device: cpu");
        return MX_E_DEVICE;
    }
    if (e == cudaSuccess) {
        e = cudaSetDevice(number);
    }
    if (e != cudaSuccess) {
        mx_fail(st, MX_E_DEVICE, nowhere, "device '%s': CUDA says: %s", o->device, cudaGetErrorString(e));
        mx_hint(st, "look at nvidia-smi, or use device: cpu");
        return MX_E_DEVICE;
    }
    return MX_OK;
}

