/* memory.cu - the device's memory and what goes to and fro.
 *
 * Memory of a purpose lies in one arena when it was reserved, so that a plan of hundreds of matrices is one allocation; copies
 * to the device go through a ring of page-locked memory, so that the caller's memory is free at once and the stream is not
 * waited for. */
#include "kernels/cuda/memory.h"

static const mx_mark nowhere = {};

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

void mx_cuda_follow(mx_cuda *c, const char *what) {
    if (c->host_visible && !c->lost) {
        mx_cuda_check(c, cudaStreamSynchronize(c->stream), what);
    }
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
        return mx_cuda_tell_lost(c, st);
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

mx_code mx_cuda_reserve(mx_backend *b, mx_memory purpose, size_t bytes, mx_status *st) {
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

mx_code mx_cuda_alloc(mx_backend *b, mx_memory purpose, size_t bytes, void **ret, mx_status *st) {
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
    mx_cuda_follow(c, "clearing memory"); /* or it would clear what the host writes there next */
    return MX_OK;
}

void mx_cuda_release(mx_backend *b, mx_memory purpose, void *memory) {
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

size_t mx_cuda_used_bytes(const mx_backend *b, mx_memory purpose) {
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

void mx_cuda_write(mx_backend *b, void *to, const void *from_host, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    for (size_t at = 0; at < bytes && !c->lost; at += RING_PIECE) {
        size_t n = bytes - at < RING_PIECE ? bytes - at : RING_PIECE;
        unsigned char *staged = ring_take(c, n);

        memcpy(staged, static_cast<const unsigned char *>(from_host) + at, n);
        mx_cuda_check(c, cudaMemcpyAsync(static_cast<unsigned char *>(to) + at, staged, n, cudaMemcpyHostToDevice, c->stream),
                      "a copy to the device");
    }
    mx_cuda_follow(c, "a copy to the device");
}

static void wait_all(mx_cuda *c) {
    c->base.waits++;
    mx_cuda_check(c, cudaStreamSynchronize(c->stream), "the work before this point");
}

void mx_cuda_read(mx_backend *b, void *to_host, const void *from, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    if (!c->lost && bytes) {
        mx_cuda_check(c, cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, c->stream), "a copy from the device");
        wait_all(c);
    }
    if (c->lost) { /* the caller learns of it at its sync; until then it reads zeros, not what happened to lie there */
        memset(to_host, 0, bytes);
    }
}

void mx_cuda_zero(mx_backend *b, void *to, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    if (bytes && !c->lost) {
        mx_cuda_check(c, cudaMemsetAsync(to, 0, bytes, c->stream), "clearing memory");
        mx_cuda_follow(c, "clearing memory");
    }
}

mx_code mx_cuda_sync(mx_backend *b, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);

    if (!c->lost) {
        wait_all(c);
    }
    return mx_cuda_tell_lost(c, st);
}

mx_code mx_cuda_host_alloc(mx_backend *b, size_t bytes, void **ret, mx_status *st) {
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

void mx_cuda_host_release(mx_backend *b, void *memory) {
    mx_cuda *c = mx_cuda_of(b);

    if (memory) {
        c->base.allocations++;
        mx_cuda_check(c, cudaFreeHost(memory), "giving page-locked memory back");
    }
}

void mx_cuda_queue_read(mx_backend *b, void *to_host, const void *from, size_t bytes) {
    mx_cuda *c = mx_cuda_of(b);

    if (bytes && !c->lost) {
        mx_cuda_check(c, cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, c->stream), "a copy from the device");
    }
}

uint64_t mx_cuda_mark(mx_backend *b) {
    mx_cuda *c = mx_cuda_of(b);

    c->marks++;
    if (!c->lost) {
        mx_cuda_check(c, cudaEventRecord(c->event[c->marks % MX_MARKS], c->stream), "a mark");
    }
    return c->marks;
}

/* A mark whose event has been recorded again since is waited for a little longer than needed. */
mx_code mx_cuda_wait(mx_backend *b, uint64_t mark, mx_status *st) {
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
    return mx_cuda_tell_lost(c, st);
}

/* ------------------------------------------------------------------ opening and closing */

mx_code mx_cuda_memory_open(mx_cuda *c, mx_status *st) {
    void *ring = NULL;

    c->memory = static_cast<mx_cuda_memory *>(calloc(1, sizeof *c->memory));
    c->ring = static_cast<mx_cuda_write_ring *>(calloc(1, sizeof *c->ring));
    if (!c->memory || !c->ring) {
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory for the CUDA backend");
    }
    for (int i = 0; i < RING_PIECES && !c->lost; i++) {
        mx_cuda_check(c, cudaEventCreateWithFlags(&c->ring->event[i], cudaEventDisableTiming), "opening a mark");
    }
    if (!c->lost) {
        mx_cuda_check(c, cudaMallocHost(&ring, RING_PIECES * RING_PIECE), "taking page-locked memory");
        c->ring->memory = static_cast<unsigned char *>(ring);
    }
    return mx_cuda_tell_lost(c, st);
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

void mx_cuda_memory_close(mx_cuda *c) {
    close_ring(c);
    if (c->memory) {
        while (c->memory->regions > 0) { /* of a caller that fails half-way, or a test that ends */
            drop_region(c, c->memory->region[c->memory->regions - 1]);
        }
        free(c->memory->region);
        free(c->memory->block);
        free(c->memory);
    }
}
