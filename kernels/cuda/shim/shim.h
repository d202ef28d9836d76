/* shim.h - CUDA C for a host C++ compiler: the words our .cu files use, and launch, which runs a kernel on the CPU.
 *
 * Every CUDA thread is a fiber with a stack of its own. A worker (a host thread) runs one block at a time: its threads one
 * after the other, each until it waits at a barrier or for its warp, or returns. So a block's threads interleave only where
 * they wait, the most that a correct kernel may count on; MIXRUN_SHIM_SEED shuffles who goes first.
 *
 * What is wrong shows as follows.
 *   - Memory not yet written: shared memory (static and dynamic) holds 0xff bytes when a block starts, device memory when it
 *     is allocated: NaN as a float, -1 as an integer.
 *   - A barrier or warp function that not all threads reach, reach in another place, or reach after one has returned: the
 *     program aborts with the kernel's name, the block, the threads and the lines they wait at.
 *   - cp.async: the destination holds 0xff bytes from the issue until the wait for its group.
 *   - Data races: the .cu files compiled with -fsanitize=thread. Every CUDA thread is announced to ThreadSanitizer as a fiber.
 *     What orders them is __syncthreads, __syncwarp and __threadfence (shuffles, ballots, mma and ldmatrix do not: CUDA promises no
 *     memory order for them), and blocks are dealt at random to several workers that nothing orders.
 *   - Reads and writes outside of memory: -fsanitize=address. Device memory, dynamic shared memory and static shared arrays
 *     all have guarded ends.
 * shim.cc (the scheduler) and warp.cc (what threads do with one another) are compiled without sanitizers and find out at run time
 * which one is there.
 *
 * The environment: MIXRUN_SHIM_SEED (0: every time the same order), MIXRUN_SHIM_WORKERS (the machine's cores, up to 4; one under
 * AddressSanitizer, 3 under ThreadSanitizer), and the device's own, in runtime.h.
 *
 * Rules for kernels that portable.h does not tell: a function that declares __shared__ arrays is static. */
#ifndef KERNELS_CUDA_SHIM_SHIM_H
#define KERNELS_CUDA_SHIM_SHIM_H

#include "kernels/cuda/shim/runtime.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define SHIM_ADDRESS 1
#else
#define SHIM_ADDRESS 0
#endif

/* ------------------------------------------------------------------ words */
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* One copy for each worker, which shim.cc finds by name to poison it. AddressSanitizer guards only what is not thread_local;
 * there is one worker then, and no poison. */
#if SHIM_ADDRESS
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
#define MX_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(shim::now.dynamic_shared)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
    unsigned x, y, z;
};
#define SHIM_VECTORS(type, name)                                                      \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                           \
    struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };                     \
    static inline name##2 make_##name##2(type x, type y) { return name##2{ x, y }; }   \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return name##4{ x, y, z, w }; }
SHIM_VECTORS(float, float)
SHIM_VECTORS(unsigned, uint)
#undef SHIM_VECTORS

#define threadIdx (shim::now.thread)
#define blockIdx (shim::now.block)
#define blockDim (shim::now.block_dim)
#define gridDim (shim::now.grid_dim)

namespace shim {

/* Where a thread waits, for messages and to tell one barrier from another. */
struct place {
    const char *file;
    int line;
};
#define SHIM_HERE shim::place at = { __builtin_FILE(), __builtin_LINE() }

/* Of the CUDA thread that runs on this host thread. */
struct current {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
    int lane;
    bool shuffled; /* MIXRUN_SHIM_SEED is not 0 */
    void *dynamic_shared;
};
extern __thread current now;

/* Runs body once for every thread of every block, and returns when all have. */
void launch_call(const char *name, dim3 grid, dim3 block, size_t shared_bytes, void (*call)(void *body), void *body);
template <class F> static inline void launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, F body) {
    launch_call(name, grid, block, shared_bytes, [](void *b) { (*static_cast<F *>(b))(); }, &body);
}

/* MIXRUN_SHIM_SEED from here on: the same seed and launches, the same schedules. */
void reseed(uint64_t seed);

/* Aborts with the kernel's name, block and thread. */
[[noreturn]] void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

int barrier(int predicate, place at);
void warp_wait(unsigned mask, place at);
/* The value that the warp's lane `source` brings; 0xff bytes from a lane that the mask does not name. */
uint64_t warp_shuffle(unsigned mask, uint64_t value, int source, place at);
unsigned warp_ballot(unsigned mask, bool predicate, place at);
unsigned warp_match(unsigned mask, uint64_t value, place at);
void warp_mma_bf16(float *d, const uint32_t *a, const uint32_t *b, const float *c, place at);
void warp_ldmatrix(uint32_t *r, const uint4 *row, bool transposed, place at);
void fence();
void yield();
/* Lets others go first, sometimes. */
static inline void maybe_yield() {
    if (now.shuffled) {
        yield();
    }
}

/* A copy on its way: `value` goes to `to`. */
struct copy {
    uint4 *to, value;
    unsigned group;
};
void copy_issue(copy c);
void copy_commit();
const copy *copy_landing(int pending); /* the next that must have landed, or NULL */

template <class T> static inline T shuffle(unsigned mask, T value, int source, place at) {
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    uint64_t bits = 0;

    memcpy(&bits, &value, sizeof value);
    bits = warp_shuffle(mask, bits, source, at);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ------------------------------------------------------------------ portable.h's own */
/* What reads or writes memory that threads share stands here, not in warp.cc, so that the sanitizers see it. */
static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4], SHIM_HERE) {
    warp_mma_bf16(d, a, b, c, at);
}
static inline void ldmatrix_x4(uint32_t r[4], const void *row, bool transposed, SHIM_HERE) {
    if (reinterpret_cast<uintptr_t>(row) % 16) {
        die("ldmatrix at %s:%d: the row at %p is not 16-byte aligned", at.file, at.line, row);
    }
    uint4 mine = *static_cast<const uint4 *>(row);

    warp_ldmatrix(r, &mine, transposed, at);
}
static inline void cp_async16(void *shared, const void *global, int bytes, SHIM_HERE) {
    uint4 *to = static_cast<uint4 *>(shared);
    copy c = { to, { 0, 0, 0, 0 }, 0 };

    if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16 || bytes < 0 || bytes > 16) {
        die("cp.async at %s:%d: %d bytes from %p to %p, not 16-byte aligned", at.file, at.line, bytes, global, shared);
    }
    if (bytes > 0) {
        memcpy(&c.value, global, (size_t)bytes);
    }
    *to = uint4{ ~0u, ~0u, ~0u, ~0u };
    copy_issue(c);
}
static inline void cp_async_commit() {
    copy_commit();
}
static inline void cp_async_wait(int pending) {
    while (const copy *c = copy_landing(pending)) {
        *c->to = c->value;
    }
}

}

/* ------------------------------------------------------------------ threads among themselves */
static inline void __syncthreads(SHIM_HERE) {
    shim::barrier(0, at);
}
static inline int __syncthreads_count(int predicate, SHIM_HERE) {
    return shim::barrier(predicate != 0, at);
}
static inline int __syncthreads_or(int predicate, SHIM_HERE) {
    return shim::barrier(predicate != 0, at) != 0;
}
static inline int __syncthreads_and(int predicate, SHIM_HERE) {
    return shim::barrier(predicate == 0, at) == 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, SHIM_HERE) {
    shim::warp_wait(mask, at);
}
/* Source lanes as in the CUDA C++ programming guide: `width` cuts the warp into parts, a lane outside of its own gets its own. */
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32, SHIM_HERE) {
    return shim::shuffle(mask, v, (shim::now.lane & ~(width - 1)) | (lane & (width - 1)), at);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, SHIM_HERE) {
    int from = shim::now.lane ^ bits;

    return shim::shuffle(mask, v, from < (shim::now.lane & ~(width - 1)) + width ? from : shim::now.lane, at);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, SHIM_HERE) {
    int from = shim::now.lane + (int)by;

    return shim::shuffle(mask, v, from < (shim::now.lane & ~(width - 1)) + width ? from : shim::now.lane, at);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, SHIM_HERE) {
    int from = shim::now.lane - (int)by;

    return shim::shuffle(mask, v, from >= (shim::now.lane & ~(width - 1)) ? from : shim::now.lane, at);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, SHIM_HERE) {
    return shim::warp_ballot(mask, predicate != 0, at);
}
static inline int __any_sync(unsigned mask, int predicate, SHIM_HERE) {
    return shim::warp_ballot(mask, predicate != 0, at) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, SHIM_HERE) {
    return shim::warp_ballot(mask, predicate == 0, at) == 0;
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T v, SHIM_HERE) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "4 or 8 bytes are matched");
    uint64_t bits = 0;

    memcpy(&bits, &v, sizeof v);
    return shim::warp_match(mask, bits, at);
}
static inline void __threadfence() {
    shim::fence();
}

/* ------------------------------------------------------------------ atomics */
/* Relaxed, as the device's are. */
#define SHIM_ATOMICS(type)                                                                   \
    static inline type atomicAdd(type *p, type v) {                                           \
        shim::maybe_yield();                                                                  \
        return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);                                    \
    }                                                                                         \
    static inline type atomicOr(type *p, type v) {                                            \
        shim::maybe_yield();                                                                  \
        return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);                                     \
    }                                                                                         \
    static inline type atomicCAS(type *p, type expected, type v) {                            \
        shim::maybe_yield();                                                                  \
        __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
        return expected;                                                                      \
    }                                                                                         \
    static inline type atomicMax(type *p, type v) {                                           \
        shim::maybe_yield();                                                                  \
        type old = __atomic_load_n(p, __ATOMIC_RELAXED);                                      \
        while (old < v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} \
        return old;                                                                           \
    }                                                                                         \
    static inline type atomicMin(type *p, type v) {                                           \
        shim::maybe_yield();                                                                  \
        type old = __atomic_load_n(p, __ATOMIC_RELAXED);                                      \
        while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} \
        return old;                                                                           \
    }
SHIM_ATOMICS(int)
SHIM_ATOMICS(unsigned)
SHIM_ATOMICS(unsigned long long)
#undef SHIM_ATOMICS

static inline float atomicAdd(float *p, float v) {
    uint32_t *bits = reinterpret_cast<uint32_t *>(p), old = __atomic_load_n(bits, __ATOMIC_RELAXED), sum;
    float before, after;

    shim::maybe_yield();
    do {
        memcpy(&before, &old, sizeof before);
        after = before + v;
        memcpy(&sum, &after, sizeof sum);
    } while (!__atomic_compare_exchange_n(bits, &old, sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}

/* ------------------------------------------------------------------ arithmetic */
static inline int __popc(unsigned v) {
    return __builtin_popcount(v);
}
static inline int __ffs(int v) {
    return __builtin_ffs(v);
}
static inline float __uint_as_float(unsigned v) {
    float r;

    memcpy(&r, &v, sizeof r);
    return r;
}
#define __expf expf
/* Nothing for a divisor beyond 2^126, as there. */
static inline float __fdividef(float a, float b) {
    return fabsf(b) > 0x1p126f ? a * 0.0f : a / b;
}

#endif
