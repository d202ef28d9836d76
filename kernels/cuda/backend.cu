/* backend.cu - the CUDA backend: failures, opening, and the table of ops.
 *
 * One stream, in order. The host waits where `base.waits` counts and nowhere else. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/memory.h"

extern "C" {
#include "kernels/cuda/probe.h"
}

#include <cstdarg>

static const mx_mark nowhere = {};

/* ------------------------------------------------------------------ failures */

void mx_cuda_lose(mx_cuda *c, mx_code code, const char *fmt, ...) {
    va_list args;

    if (c->lost) {
        return;
    }
    c->lost = code;
    va_start(args, fmt);
    vsnprintf(c->lost_text, sizeof c->lost_text, fmt, args);
    va_end(args);
}

void mx_cuda_check(mx_cuda *c, cudaError_t e, const char *what) {
    if (e != cudaSuccess) {
        mx_cuda_lose(c, e == cudaErrorMemoryAllocation ? MX_E_MEMORY : MX_E_DEVICE, "the GPU failed in %s: %s (%s)", what,
                     cudaGetErrorString(e), cudaGetErrorName(e));
    }
}

mx_code mx_cuda_tell_lost(const mx_cuda *c, mx_status *st) {
    if (!c->lost) {
        return MX_OK;
    }
    mx_fail(st, c->lost, nowhere, "%s", c->lost_text);
    mx_hint(st, "nothing on the device can be trusted after this; start again, or go on from the last checkpoint with mixrun resume");
    return c->lost;
}

/* ------------------------------------------------------------------ opening */

static void cuda_scratch(mx_backend *b, void *memory, size_t bytes) {
    mx_cuda_of(b)->scratch = mx_cuda_scratch{ static_cast<unsigned char *>(memory), bytes, 0, 0 };
}

static void cuda_close(mx_backend *b) {
    mx_cuda *c = mx_cuda_of(b);

    if (c->stream) {
        cudaStreamSynchronize(c->stream);
        mx_cuda_gemm_close(c);
        for (int i = 0; i < MX_MARKS; i++) {
            if (c->event[i]) {
                cudaEventDestroy(c->event[i]);
            }
        }
        cudaFree(c->partials);
        mx_cuda_memory_close(c);
        cudaStreamDestroy(c->stream);
    }
    free(c);
}

static const mx_ops cuda_ops = {
    .scratch = cuda_scratch,
    .embed = mx_cuda_embed,
    .rmsnorm_forward = mx_cuda_rmsnorm_forward,
    .rmsnorm_backward = mx_cuda_rmsnorm_backward,
    .rope = mx_cuda_rope,
    .linears_saved_bytes = mx_cuda_linears_saved_bytes,
    .linears_scratch_bytes = mx_cuda_linears_scratch_bytes,
    .linears_forward = mx_cuda_linears_forward,
    .linears_backward = mx_cuda_linears_backward,
    .attention_scratch_bytes = mx_cuda_attention_scratch_bytes,
    .attention_forward = mx_cuda_attention_forward,
    .attention_backward = mx_cuda_attention_backward,
    .swiglu_forward = mx_cuda_swiglu_forward,
    .swiglu_backward = mx_cuda_swiglu_backward,
    .add = mx_cuda_add,
    .jitter_forward = mx_cuda_jitter_forward,
    .jitter_backward = mx_cuda_jitter_backward,
    .router_scratch_bytes = mx_cuda_router_scratch_bytes,
    .router_forward = mx_cuda_router_forward,
    .router_backward = mx_cuda_router_backward,
    .router_losses = mx_cuda_router_losses,
    .experts_saved_bytes = mx_cuda_experts_saved_bytes,
    .experts_scratch_bytes = mx_cuda_experts_scratch_bytes,
    .experts_slow = mx_cuda_experts_slow,
    .experts_forward = mx_cuda_experts_forward,
    .experts_backward = mx_cuda_experts_backward,
    .gather_rows = mx_cuda_gather_rows,
    .scatter_rows = mx_cuda_scatter_rows,
    .head_scratch_bytes = mx_cuda_head_scratch_bytes,
    .head_loss = mx_cuda_head_loss,
    .head_logits = mx_cuda_head_logits,
    .objective = mx_cuda_objective,
    .adamw = mx_cuda_adamw,
    .row_norms = mx_cuda_row_norms,
    .dora_scratch_bytes = mx_cuda_dora_scratch_bytes,
    .dora_forward = mx_cuda_dora_forward,
    .dora_backward = mx_cuda_dora_backward,
};

/* Stream, marks, memory: what the backend itself needs of the device. */
static mx_code open_queue(mx_cuda *c, mx_status *st) {
    void *partials = NULL;

    mx_cuda_check(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "opening a stream");
    for (int i = 0; i < MX_MARKS && !c->lost; i++) {
        mx_cuda_check(c, cudaEventCreateWithFlags(&c->event[i], cudaEventDisableTiming), "opening a mark");
    }
    if (!c->lost) {
        mx_cuda_check(c, cudaMalloc(&partials, MX_CUDA_PARTIALS * sizeof(double)), "taking memory");
        c->partials = static_cast<double *>(partials);
    }
    MX_TRY(mx_cuda_tell_lost(c, st));
    return mx_cuda_memory_open(c, st);
}

static void describe(mx_cuda *c, const cudaDeviceProp *p) {
    char device[100], products[240];

    mx_cuda_device_line(device, sizeof device, p);
    mx_cuda_gemm_describe(c, products, sizeof products);
    snprintf(c->base.description, sizeof c->base.description, "%.70s, %.239s", device, products);
}

mx_code mx_cuda_open(const mx_backend_options *o, mx_backend **ret, mx_status *st) {
    mx_cuda *c;
    cudaDeviceProp p;
    mx_code code;
    int number;

    *ret = NULL;
    MX_TRY(mx_cuda_choose_device(o, &p, &number, st));
    c = static_cast<mx_cuda *>(calloc(1, sizeof *c));
    if (!c) {
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory for the CUDA backend");
    }
    c->device = number;
    c->architecture = mx_cuda_architecture(&p);
    c->multiprocessors = p.multiProcessorCount;
    c->shared_bytes = (int)p.sharedMemPerBlockOptin;
    c->host_visible = o->host_visible;
    c->base.name = "cuda";
    c->base.precision = o->precision;
    c->base.ops = &cuda_ops;
    c->base.reserve = mx_cuda_reserve;
    c->base.alloc = mx_cuda_alloc;
    c->base.release = mx_cuda_release;
    c->base.used_bytes = mx_cuda_used_bytes;
    c->base.write = mx_cuda_write;
    c->base.read = mx_cuda_read;
    c->base.zero = mx_cuda_zero;
    c->base.sync = mx_cuda_sync;
    c->base.host_alloc = mx_cuda_host_alloc;
    c->base.host_release = mx_cuda_host_release;
    c->base.queue_read = mx_cuda_queue_read;
    c->base.mark = mx_cuda_mark;
    c->base.wait = mx_cuda_wait;
    c->base.weights_open = mx_cuda_weights_open;
    c->base.weight_close = mx_cuda_weight_close;
    c->base.weights_bytes = mx_cuda_weights_bytes;
    c->base.weights_shared_bytes = mx_cuda_weights_shared_bytes;
    c->base.close = cuda_close;
    code = open_queue(c, st);
    if (!code) {
        code = mx_cuda_gemm_open(c, st);
    }
    if (!code && cudaMemGetInfo(&c->base.free_bytes, &c->base.device_bytes) != cudaSuccess) {
        mx_cuda_check(c, cudaGetLastError(), "asking for its memory");
        code = mx_cuda_tell_lost(c, st);
    }
    if (code) {
        cuda_close(&c->base);
        return code;
    }
    describe(c, &p);
    *ret = &c->base;
    return MX_OK;
}
