/* machine.h - the inside of the shim: workers, fibers, warps, and how one fiber hands over to the next. For shim.cc and warp.cc.
 *
 * What is inline here runs at every wait of every CUDA thread; nothing of it is ever compiled for a sanitizer. */
#ifndef KERNELS_CUDA_SHIM_MACHINE_H
#define KERNELS_CUDA_SHIM_MACHINE_H

#include "kernels/cuda/shim/shim.h"

#include <atomic>
#include <vector>

/* There when the program is linked with the sanitizer, else null. */
extern "C" {
void *__tsan_get_current_fiber(void) __attribute__((weak));
void *__tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_switch_to_fiber(void *fiber, unsigned flags) __attribute__((weak));
void __tsan_acquire(void *address) __attribute__((weak));
void __tsan_release(void *address) __attribute__((weak));
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size) __attribute__((weak));
void __asan_poison_memory_region(const volatile void *p, size_t size) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *p, size_t size) __attribute__((weak));
/* Keeps what the ABI asks a function to keep on this stack, its end in *save, and goes on where `to` was left. */
void shim_switch(void **save, void *to);
}

namespace shim {

enum { WARP = 32, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / WARP, MOST_SHARED = 232448, GUARD = 64 };
enum { STACK_BYTES = 256 * 1024, PAGE = 4096 };
enum { TSAN_NO_SYNC = 1 };

/* Linked with them? ThreadSanitizer wants one stack and one fiber for each CUDA thread, and blocks that nothing orders. */
extern const bool tsan, asan;

/* A stack and where it was left. */
struct context {
    void *sp = nullptr;
    void *tsan_fiber = nullptr;
    void *fake_stack = nullptr;
    const void *bottom = nullptr;
    size_t bytes = 0;
    char *top = nullptr;
};

enum thread_state : uint8_t { NEW, READY, AT_BARRIER, IN_WARP, DONE };
enum warp_op : uint8_t { OP_SYNC, OP_SHUFFLE, OP_BALLOT, OP_MATCH, OP_MMA, OP_LDMATRIX };
inline const char *const OP_NAMES[] = { "__syncwarp", "a shuffle", "a ballot", "a match", "mma", "ldmatrix" };

struct fiber { /* a CUDA thread */
    context *on = nullptr;
    uint3 index;
    short number, lane;
    thread_state state;
    place at; /* where it waits */
};

/* What it has copying: from `landed` on, not yet in its place. */
struct copies {
    std::vector<copy> issued;
    size_t landed = 0;
    unsigned group = 0; /* the open one */
};

/* The lanes that wait for each other in one warp function: those of `mask`. */
struct meeting {
    unsigned mask = 0, arrived = 0, generation = 0;
    warp_op op = OP_SYNC;
    place at = {};
    char order[2]; /* addresses for ThreadSanitizer */
};
/* By lane: what it brings to a warp function and takes from it. */
struct warp {
    unsigned exists, returned, waiting; /* sets of lanes */
    uint64_t brings[WARP], takes[WARP];
    int source[WARP]; /* of a shuffle; whether transposed, of ldmatrix */
    void *d[WARP];
    const void *a[WARP], *b[WARP], *c[WARP];
    meeting met[WARP];
};

struct job {
    const char *name = nullptr;
    dim3 grid, block;
    size_t shared_bytes = 0;
    void (*call)(void *) = nullptr;
    void *body = nullptr;
    uint64_t blocks = 0, seed = 0, stride = 1, shift = 0;
    unsigned workers = 1;
    std::atomic<uint64_t> next{ 0 };
    char begin, end[MOST_WARPS]; /* addresses for ThreadSanitizer: end, of each worker */
};
extern job work; /* the launch that runs: one at a time */

inline uint64_t mixed(uint64_t v) { /* splitmix64 */
    v += 0x9e3779b97f4a7c15u;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

/* What one host thread has to run blocks with. */
struct worker {
    context main;
    std::vector<context *> contexts, idle;
    std::vector<fiber> fibers{ MOST_THREADS };
    std::vector<copies> copying{ MOST_THREADS };
    warp warps[MOST_WARPS];
    fiber *ring[2 * MOST_THREADS]; /* those that can go on: [head, tail), indices modulo the size */
    unsigned head = 0, tail = 0;
    fiber *running = nullptr;
    int threads = 0, returned = 0, arrived = 0;
    bool copied = false; /* some thread of this block uses cp.async */
    unsigned generation = 0;
    int sums[2];
    place barrier_at = {};
    char order[2], begun, ended; /* addresses for ThreadSanitizer */
    uint64_t random = 0;
    unsigned char *dynamic = nullptr;
    size_t dynamic_room = 0, static_bytes = 0;
    unsigned char *thread_locals = nullptr;

    worker();
    ~worker();
};

extern __thread worker *mine; /* of the host thread; deleted when it ends */

inline void release(void *address) {
    if (tsan) {
        __tsan_release(address);
    }
}
inline void acquire(void *address) {
    if (tsan) {
        __tsan_acquire(address);
    }
}

/* ------------------------------------------------------------------ who goes next */

inline uint64_t draw(worker *w) {
    return w->random = mixed(w->random);
}

inline void put_last(worker *w, fiber *f) {
    w->ring[w->tail++ % (2 * MOST_THREADS)] = f;
}
inline void put_first(worker *w, fiber *f) {
    w->ring[--w->head % (2 * MOST_THREADS)] = f;
}

/* Nobody can go on: says who waits where. */
[[noreturn]] void tell_deadlock(worker *w);

inline fiber *take_next(worker *w) {
    if (__builtin_expect(w->head == w->tail, 0)) {
        tell_deadlock(w);
    }
    if (__builtin_expect(now.shuffled, 0)) {
        unsigned other = w->head + (unsigned)(draw(w) % (w->tail - w->head));
        fiber *f = w->ring[other % (2 * MOST_THREADS)];

        w->ring[other % (2 * MOST_THREADS)] = w->ring[w->head % (2 * MOST_THREADS)];
        w->ring[w->head % (2 * MOST_THREADS)] = f;
    }
    return w->ring[w->head++ % (2 * MOST_THREADS)];
}

/* By halves: both are in registers, and one store of 16 bytes would wait for them to reach memory first. */
inline void set_place(place *to, place at) {
    *const_cast<const char *volatile *>(&to->file) = at.file;
    *const_cast<volatile int *>(&to->line) = at.line;
}

inline void set_running(worker *w, fiber *f) {
    w->running = f;
    f->state = READY;
    now.thread = f->index;
    now.lane = f->lane;
}

/* Gives a thread that has not begun a stack. */
void prepare(worker *w, fiber *f);
/* The same between two announcements to a sanitizer. */
void switch_announced(context *from, context *to, bool for_good);

inline void switch_context(context *from, context *to, bool for_good) {
    if (__builtin_expect(tsan || asan, 0)) {
        switch_announced(from, to, for_good);
    } else {
        shim_switch(&from->sp, to->sp);
    }
}

inline void go_to(worker *w, context *from, fiber *f, bool for_good) {
    if (f->state == NEW) {
        prepare(w, f);
    }
    set_running(w, f);
    switch_context(from, f->on, for_good);
}

/* The running thread waits; returns when it has been made ready and its turn has come. */
inline void wait(worker *w, thread_state state) {
    fiber *me = w->running, *f;

    me->state = state;
    f = take_next(w);
    if (f != me) {
        go_to(w, me->on, f, false);
    } else {
        set_running(w, me);
    }
}

}

#endif
