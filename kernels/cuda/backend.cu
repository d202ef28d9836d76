/* backend.cu - the CUDA backend: what is there, opening, memory, copies, marks, and the table of ops.
 *
 * One stream, in order. The host waits where `base.waits` counts and nowhere else. Memory of a purpose lies in one arena when
 * it was reserved, so that a plan of hundreds of matrices is one allocation; copies to the device go through a ring of
 * page-locked memory, so that the caller's memory is free at once and the stream is not waited for. */
#include "kernels/cuda/cuda.h"

extern "C" {
#include "kernels/cuda/probe.h"
}

#include <cstdarg>
#include <new>

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

static int architecture_of(const cudaDeviceProp *p) {
    return 10 * p->major + p->minor;
}

static void device_line(char *text, size_t size, const cudaDeviceProp *p) {
    snprintf(text, size, "%.60s, sm_%d, %.1f GiB", p->name, architecture_of(p), (double)p->totalGlobalMem / (1 << 30));
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
        device_line(line, sizeof line, &p);
        usable += architecture_of(&p) >= OLDEST_ARCHITECTURE;
        used += (size_t)snprintf(text + used, size - used, "\ncuda:%d     %s%s", i, line,
                                 architecture_of(&p) < OLDEST_ARCHITECTURE ? " (older than sm_80: cannot be used)" : "");
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
    if (architecture_of(&p) < OLDEST_ARCHITECTURE) {
        snprintf(text, size, "%.60s is sm_%d; sm_80 is the oldest that can be used", p.name, architecture_of(&p));
        return false;
    }
    if (!mx_cuda_cublaslt_look(text, size)) {
        return false;
    }
    text[0] = '\0';
    return true;
}

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

static mx_code tell_lost(const mx_cuda *c, mx_status *st) {
    if (!c->lost) {
        return MX_OK;
    }
    mx_fail(st, c->lost, nowhere, "%s", c->lost_text);
    mx_hint(st, "nothing on the device can be trusted after this; start again, or go on from the last checkpoint with mixrun resume");
    return c->lost;
}

/* ------------------------------------------------------------------ memory */

/* One allocation of the device: a reserved arena, or a block by itself. */
struct mx_cuda_region {
    unsigned char *memory;
    size_t bytes, used; /* handed out so far; an arena's blocks are not given back one by one */
    int64_t blocks;     /* handed out and not yet released */
    mx_memory purpose;
    bool arena;
};
struct mx_cuda_block {
    void *memory;
    size_t bytes;
    mx_cuda_region *region;
};
struct mx_cuda_memory {
    mx_cuda_region **region;
    mx_cuda_block *block;
    int64_t regions, blocks, region_room, block_room;
};

static size_t aligned(size_t bytes) {
    return (bytes + MX_CUDA_ALIGNMENT - 1) / MX_CUDA_ALIGNMENT * MX_CUDA_ALIGNMENT;
}

/* The array grown so that one more fits; false when there is no host memory. */
template <class V> static bool grow(V **array, int64_t count, int64_t *room) {
    if (count < *room) {
        return true;
    }
    int64_t wider = *room ? 2 * *room : 64;
    V *more = static_cast<V *>(realloc(*array, sizeof(V) * (size_t)wider));

    if (!more) {
        return false;
    }
    *array = more;
    *room = wider;
    return true;
}

static mx_code no_room(mx_cuda *c, size_t bytes, mx_status *st) {
    size_t free_bytes = 0, all_bytes = 0;

    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &all_bytes);
    mx_fail(st, MX_E_MEMORY, nowhere, "the GPU has no room for another %.2f GiB: %.2f of its %.2f GiB are free",
            (double)bytes / (1 << 30), (double)free_bytes / (1 << 30), (double)all_bytes / (1 << 30));
    mx_hint(st, "lower train.micro_batch_tokens, set train.gradient_checkpointing: true, or see who else uses the GPU (nvidia-smi)");
    (void)c;
    return MX_E_MEMORY;
}

static mx_code take_region(mx_cuda *c, mx_memory purpose, size_t bytes, bool arena, mx_cuda_region **ret, mx_status *st) {
    mx_cuda_memory *m = c->memory;
    mx_cuda_region *r = static_cast<mx_cuda_region *>(calloc(1, sizeof *r));
    void *memory = NULL;
    cudaError_t e;

    *ret = NULL;
    if (!r || !grow(&m->region, m->regions, &m->region_room)) {
        free(r);
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory to note a block of the device");
    }
    c->base.allocations++;
    c->base.waits++;
    e = c->host_visible ? cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal) : cudaMalloc(&memory, bytes);
    if (e != cudaSuccess) {
        free(r);
        if (e == cudaErrorMemoryAllocation) {
            return no_room(c, bytes, st);
        }
        mx_cuda_check(c, e, "an allocation");
        return tell_lost(c, st);
    }
    r->memory = static_cast<unsigned char *>(memory);
    r->bytes = bytes;
    r->purpose = purpose;
    r->arena = arena;
    m->region[m->regions++] = r;
    *ret = r;
    return MX_OK;
}

static void drop_region(mx_cuda *c, mx_cuda_region *r) {
    mx_cuda_memory *m = c->memory;

    c->base.allocations++;
    c->base.waits++;
    mx_cuda_check(c, cudaFree(r->memory), "giving memory back");
    for (int64_t i = 0; i < m->regions; i++) {
        if (m->region[i] == r) {
            m->region[i] = m->region[--m->regions];
            break;
        }
    }
    free(r);
}

static mx_code cuda_reserve(mx_backend *b, mx_memory purpose, size_t bytes, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);
    mx_cuda_region *r;

    return bytes ? take_region(c, purpose, aligned(bytes), true, &r, st) : MX_OK;
}

static mx_cuda_region *arena_with(const mx_cuda *c, mx_memory purpose, size_t bytes) {
    for (int64_t i = 0; i < c->memory->regions; i++) {
        mx_cuda_region *r = c->memory->region[i];

        if (r->arena && r->purpose == purpose && r->bytes - r->used >= bytes) {
            return r;
        }
    }
    return NULL;
}

static mx_code cuda_alloc(mx_backend *b, mx_memory purpose, size_t bytes, void **ret, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);
    mx_cuda_memory *m = c->memory;
    size_t whole = aligned(bytes ? bytes : 1);
    mx_cuda_region *r;

    *ret = NULL;
    if (bytes > SIZE_MAX / 2) {
        return no_room(c, bytes, st);
    }
    if (!grow(&m->block, m->blocks, &m->block_room)) {
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory to note a block of the device");
    }
    r = arena_with(c, purpose, whole);
    if (!r) {
        MX_TRY(take_region(c, purpose, whole, false, &r, st));
    }
    *ret = r->memory + r->used;
    r->used += whole;
    r->blocks++;
    m->block[m->blocks++] = mx_cuda_block{ *ret, bytes, r };
    c->used[purpose] += bytes;
    mx_cuda_check(c, cudaMemsetAsync(*ret, 0, whole, c->stream), "clearing memory");
    return MX_OK;
}

static void cuda_release(mx_backend *b, mx_memory purpose, void *memory) {
    mx_cuda *c = mx_cuda_of(b);
    mx_cuda_memory *m = c->memory;

    for (int64_t i = m->blocks - 1; memory && i >= 0; i--) {
        if (m->block[i].memory == memory) {
            mx_cuda_region *r = m->block[i].region;

            c->used[purpose] -= m->block[i].bytes;
            m->block[i] = m->block[--m->blocks];
            if (--r->blocks == 0) {
                drop_region(c, r);
            }
            return;
        }
    }
    assert(!memory); /* not one of ours */
}

static size_t cuda_used_bytes(const mx_backend *b, mx_memory purpose) {
    return mx_cuda_of(b)->used[purpose];
}

/* ------------------------------------------------------------------ copies */

enum { RING_PIECES = 4 };
static const size_t RING_PIECE = (size_t)2 << 20;

struct mx_cuda_write_ring {
    unsigned char *memory; /* RING_PIECES of RING_PIECE */
    cudaEvent_t event[RING_PIECES]; /* behind the last copy out of a piece */
    bool pending[RING_PIECES];
    int piece;
    size_t used;
};

/* Room for `bytes` (at most a piece) of page-locked memory that no copy on its way still reads. */
static unsigned char *ring_take(mx_cuda *c, size_t bytes) {
    mx_cuda_write_ring *r = c->ring;

    if (r->used + bytes > RING_PIECE) {
        mx_cuda_check(c, cudaEventRecord(r->event[r->piece], c->stream), "a copy to the device");
        r->pending[r->piece] = true;
        r->piece = (r->piece + 1) % RING_PIECES;
        r->used = 0;
        if (r->pending[r->piece]) {
            if (cudaEventQuery(r->event[r->piece]) != cudaSuccess) {
                cudaGetLastError();
                c->base.waits++;
                mx_cuda_check(c, cudaEventSynchronize(r->event[r->piece]), "a copy to the device");
            }
            r->pending[r->piece] = false;
        }
    }
    unsigned char *at = r->memory + (size_t)r->piece * RING_PIECE + r->used;

    r->used += (bytes + 15) / 16 * 16;
    r->used = r->used > RING_PIECE ? RING_PIECE : r->used;
    return at;
}

static void cuda_write(mx_backend *b, void *to, const void *from_host, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    for (size_t at = 0; at < bytes && !c->lost; at += RING_PIECE) {
        size_t n = bytes - at < RING_PIECE ? bytes - at : RING_PIECE;
        unsigned char *staged = ring_take(c, n);

        memcpy(staged, static_cast<const unsigned char *>(from_host) + at, n);
        mx_cuda_check(c, cudaMemcpyAsync(static_cast<unsigned char *>(to) + at, staged, n, cudaMemcpyHostToDevice, c->stream),
                      "a copy to the device");
    }
}

static void wait_all(mx_cuda *c) {
    c->base.waits++;
    mx_cuda_check(c, cudaStreamSynchronize(c->stream), "the work before this point");
}

static void cuda_read(mx_backend *b, void *to_host, const void *from, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    if (!c->lost && bytes) {
        mx_cuda_check(c, cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, c->stream), "a copy from the device");
        wait_all(c);
    }
    if (c->lost) { /* the caller learns of it at its sync; until then it reads zeros, not what happened to lie there */
        memset(to_host, 0, bytes);
    }
}

static void cuda_zero(mx_backend *b, void *to, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    if (bytes && !c->lost) {
        mx_cuda_check(c, cudaMemsetAsync(to, 0, bytes, c->stream), "clearing memory");
    }
}

static mx_code cuda_sync(mx_backend *b, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);

    if (!c->lost) {
        wait_all(c);
    }
    return tell_lost(c, st);
}

static mx_code cuda_host_alloc(mx_backend *b, size_t bytes, void **ret, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);

    *ret = NULL;
    c->base.allocations++;
    if (cudaMallocHost(ret, bytes ? bytes : 1) != cudaSuccess) {
        cudaGetLastError();
        *ret = NULL;
        return mx_fail(st, MX_E_MEMORY, nowhere, "no page-locked memory for another %zu bytes", bytes);
    }
    memset(*ret, 0, bytes);
    return MX_OK;
}

static void cuda_host_release(mx_backend *b, void *memory) {
    mx_cuda *c = mx_cuda_of(b);

    if (memory) {
        c->base.allocations++;
        mx_cuda_check(c, cudaFreeHost(memory), "giving page-locked memory back");
    }
}

static void cuda_queue_read(mx_backend *b, void *to_host, const void *from, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    if (bytes && !c->lost) {
        mx_cuda_check(c, cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, c->stream), "a copy from the device");
    }
}

static uint64_t cuda_mark(mx_backend *b) {
    mx_cuda *c = mx_cuda_of(b);

    c->marks++;
    if (!c->lost) {
        mx_cuda_check(c, cudaEventRecord(c->event[c->marks % MX_MARKS], c->stream), "a mark");
    }
    return c->marks;
}

/* A mark whose event has been recorded again since is waited for a little longer than needed. */
static mx_code cuda_wait(mx_backend *b, uint64_t mark, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);
    cudaEvent_t event = c->event[mark % MX_MARKS];

    assert(mark > 0 && mark <= c->marks);
    if (!c->lost) {
        cudaError_t e = cudaEventQuery(event);

        if (e == cudaErrorNotReady) {
            cudaGetLastError();
            c->base.waits++;
            e = cudaEventSynchronize(event);
        }
        mx_cuda_check(c, e, "the work before this point");
    }
    return tell_lost(c, st);
}

/* ------------------------------------------------------------------ opening */

static void cuda_scratch(mx_backend *b, void *memory, size_t bytes) {
    mx_cuda_of(b)->scratch = mx_cuda_scratch{ static_cast<unsigned char *>(memory), bytes, 0, 0 };
}

static void close_ring(mx_cuda *c) {
    for (int i = 0; c->ring && i < RING_PIECES; i++) {
        if (c->ring->event[i]) {
            cudaEventDestroy(c->ring->event[i]);
        }
    }
    if (c->ring && c->ring->memory) {
        cudaFreeHost(c->ring->memory);
    }
    free(c->ring);
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
        close_ring(c);
        cudaFree(c->partials);
        cudaStreamDestroy(c->stream);
    }
    if (c->memory) {
        while (c->memory->regions > 0) { /* of a caller that fails half-way, or a test that ends */
            drop_region(c, c->memory->region[c->memory->regions - 1]);
        }
        free(c->memory->region);
        free(c->memory->block);
        free(c->memory);
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

/* Chooses the device and checks that it can be used at all. */
static mx_code choose_device(const mx_backend_options *o, cudaDeviceProp *p, int *ret_number, mx_status *st) {
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

    if (e == cudaSuccess && architecture_of(p) < OLDEST_ARCHITECTURE) {
        mx_fail(st, MX_E_DEVICE, nowhere, "device '%s': %.60s is sm_%d; sm_80 (A100, RTX 30) is the oldest that can be used", o->device,
                p->name, architecture_of(p));
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

/* Stream, marks, ring: what the backend itself needs of the device. */
static mx_code open_queue(mx_cuda *c, mx_status *st) {
    void *partials = NULL;
    void *ring = NULL;

    mx_cuda_check(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "opening a stream");
    for (int i = 0; i < MX_MARKS && !c->lost; i++) {
        mx_cuda_check(c, cudaEventCreateWithFlags(&c->event[i], cudaEventDisableTiming), "opening a mark");
    }
    for (int i = 0; i < RING_PIECES && !c->lost; i++) {
        mx_cuda_check(c, cudaEventCreateWithFlags(&c->ring->event[i], cudaEventDisableTiming), "opening a mark");
    }
    if (!c->lost) {
        mx_cuda_check(c, cudaMallocHost(&ring, RING_PIECES * RING_PIECE), "taking page-locked memory");
        c->ring->memory = static_cast<unsigned char *>(ring);
    }
    if (!c->lost) {
        mx_cuda_check(c, cudaMalloc(&partials, MX_CUDA_PARTIALS * sizeof(double)), "taking memory");
        c->partials = static_cast<double *>(partials);
    }
    return tell_lost(c, st);
}

static void describe(mx_cuda *c, const cudaDeviceProp *p) {
    char device[100], products[100];

    device_line(device, sizeof device, p);
    mx_cuda_gemm_describe(c, products, sizeof products);
    snprintf(c->base.description, sizeof c->base.description, "%.70s, %.85s", device, products);
}

mx_code mx_cuda_open(const mx_backend_options *o, mx_backend **ret, mx_status *st) {
    mx_cuda *c;
    cudaDeviceProp p;
    mx_code code;
    int number;

    *ret = NULL;
    MX_TRY(choose_device(o, &p, &number, st));
    c = static_cast<mx_cuda *>(calloc(1, sizeof *c));
    if (c) {
        c->memory = static_cast<mx_cuda_memory *>(calloc(1, sizeof *c->memory));
        c->ring = static_cast<mx_cuda_write_ring *>(calloc(1, sizeof *c->ring));
    }
    if (!c || !c->memory || !c->ring) {
        code = mx_fail(st, MX_E_MEMORY, nowhere, "no memory for the CUDA backend");
        goto done;
    }
    c->device = number;
    c->architecture = architecture_of(&p);
    c->multiprocessors = p.multiProcessorCount;
    c->shared_bytes = (int)p.sharedMemPerBlockOptin;
    c->host_visible = o->host_visible;
    c->base.name = "cuda";
    c->base.precision = o->precision;
    c->base.ops = &cuda_ops;
    c->base.reserve = cuda_reserve;
    c->base.alloc = cuda_alloc;
    c->base.release = cuda_release;
    c->base.used_bytes = cuda_used_bytes;
    c->base.write = cuda_write;
    c->base.read = cuda_read;
    c->base.zero = cuda_zero;
    c->base.sync = cuda_sync;
    c->base.host_alloc = cuda_host_alloc;
    c->base.host_release = cuda_host_release;
    c->base.queue_read = cuda_queue_read;
    c->base.mark = cuda_mark;
    c->base.wait = cuda_wait;
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
        code = tell_lost(c, st);
    }
    if (!code) {
        describe(c, &p);
        *ret = &c->base;
        c = NULL;
    }
done:
    if (c && c->memory) {
        cuda_close(&c->base);
    } else {
        free(c);
    }
    return code;
}
