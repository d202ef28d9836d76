/* shim.cc - blocks of fibers: the scheduler, barriers, warps, and what is told to the sanitizers. */
#include "kernels/cuda/shim/shim.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <link.h>
#include <mutex>
#include <numeric>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64 (shim_switch)"
#endif

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
__asm__(".text\n"
        ".globl shim_switch\n"
        ".hidden shim_switch\n"
        ".type shim_switch, @function\n"
        "shim_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size shim_switch, .-shim_switch\n");

namespace shim {

__thread current now = {};

namespace {

enum { WARP = 32, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / WARP, MOST_SHARED = 232448, GUARD = 64 };
enum { STACK_BYTES = 256 * 1024, PAGE = 4096 };
enum { TSAN_NO_SYNC = 1 };
constexpr size_t POISON_EVERY_BLOCK = 16384; /* more static shared memory than this is poisoned once a launch, not once a block */

/* ThreadSanitizer wants one stack and one fiber for each CUDA thread, and blocks that nothing orders. */
const bool tsan = __tsan_switch_to_fiber != nullptr;
const bool asan = __sanitizer_start_switch_fiber != nullptr && __asan_poison_memory_region != nullptr;

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
const char *const OP_NAMES[] = { "__syncwarp", "a shuffle", "a ballot", "a match", "mma", "ldmatrix" };

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
job work;

uint64_t mixed(uint64_t v) { /* splitmix64 */
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

thread_local worker *mine; /* of the host thread; deleted when it ends */

struct worker_holder {
    ~worker_holder() {
        delete mine;
        mine = nullptr;
    }
};
thread_local worker_holder holder;

void release(void *address) {
    if (tsan) {
        __tsan_release(address);
    }
}
void acquire(void *address) {
    if (tsan) {
        __tsan_acquire(address);
    }
}

/* Where the __shared__ arrays lie in the program's thread-local memory: bytes [at, at + size). */
struct shared_array {
    size_t at, size;
};

/* The program's symbols say so: a thread-local variable inside a C++ function ("_ZZ...") is one. (A section of their own would
 * be simpler, but GCC before 14 forgets the attribute within templates, its bug 41091.) */
std::vector<shared_array> find_shared_arrays() {
    std::vector<shared_array> found;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st = {};
    void *memory = file >= 0 && fstat(file, &st) == 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;

    if (file >= 0) {
        close(file);
    }
    if (memory == MAP_FAILED) {
        return found;
    }
    const char *base = static_cast<const char *>(memory);
    const Elf64_Ehdr *header = static_cast<const Elf64_Ehdr *>(memory);
    const Elf64_Shdr *section = reinterpret_cast<const Elf64_Shdr *>(base + header->e_shoff);

    for (int i = 0; i < header->e_shnum; i++) {
        if (section[i].sh_type != SHT_SYMTAB) {
            continue;
        }
        const Elf64_Sym *symbol = reinterpret_cast<const Elf64_Sym *>(base + section[i].sh_offset);
        const char *names = base + section[section[i].sh_link].sh_offset;

        for (size_t j = 0; j < section[i].sh_size / sizeof *symbol; j++) {
            if (ELF64_ST_TYPE(symbol[j].st_info) == STT_TLS && strncmp(names + symbol[j].st_name, "_ZZ", 3) == 0) {
                found.push_back(shared_array{ symbol[j].st_value, symbol[j].st_size });
            }
        }
    }
    munmap(memory, (size_t)st.st_size);
    return found;
}

/* This host thread's own memory of the program (the first that is listed). */
int find_thread_local(dl_phdr_info *info, size_t, void *to) {
    *static_cast<unsigned char **>(to) = static_cast<unsigned char *>(info->dlpi_tls_data);
    return 1;
}

const std::vector<shared_array> &shared_arrays() {
    static const std::vector<shared_array> *all = new std::vector<shared_array>(find_shared_arrays());

    return *all;
}

worker::worker() {
    if (asan) {
        pthread_attr_t attributes;
        void *bottom;

        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &bottom, &main.bytes);
        pthread_attr_destroy(&attributes);
        main.bottom = bottom;
    }
    if (tsan) {
        main.tsan_fiber = __tsan_get_current_fiber();
    }
    dl_iterate_phdr(find_thread_local, &thread_locals);
    for (const shared_array &a : shared_arrays()) {
        static_bytes += a.size;
    }
}

worker::~worker() {
    for (context *c : contexts) {
        munmap(const_cast<void *>(c->bottom), c->bytes + PAGE);
        delete c;
    }
    if (dynamic && asan) {
        __asan_unpoison_memory_region(dynamic, dynamic_room);
    }
    free(dynamic);
}

/* ------------------------------------------------------------------ stacks */

context *new_context(worker *w) {
    context *c = new context;
    void *memory = mmap(NULL, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED || mprotect(memory, PAGE, PROT_NONE) != 0) { /* a stack that runs over faults */
        die("no memory for a thread's stack");
    }
    c->bottom = memory;
    c->bytes = STACK_BYTES;
    /* Not all tops in the same sets of the cache. */
    c->top = static_cast<char *>(memory) + STACK_BYTES + PAGE - w->contexts.size() % 61 * 192;
    c->top -= reinterpret_cast<uintptr_t>(c->top) % 64;
    c->tsan_fiber = tsan ? __tsan_create_fiber(0) : nullptr;
    w->contexts.push_back(c);
    return c;
}

/* The same between two announcements. */
__attribute__((noinline)) void switch_announced(context *from, context *to, bool for_good) {
    if (tsan) {
        __tsan_switch_to_fiber(to->tsan_fiber, TSAN_NO_SYNC);
    }
    if (asan) {
        __sanitizer_start_switch_fiber(for_good ? nullptr : &from->fake_stack, to->bottom, to->bytes);
    }
    shim_switch(&from->sp, to->sp);
    if (asan) {
        __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
    }
}

inline void switch_context(context *from, context *to, bool for_good) {
    if (__builtin_expect(tsan || asan, 0)) {
        switch_announced(from, to, for_good);
    } else {
        shim_switch(&from->sp, to->sp);
    }
}

/* ------------------------------------------------------------------ who goes next */

uint64_t draw(worker *w) {
    return w->random = mixed(w->random);
}

void put_last(worker *w, fiber *f) {
    w->ring[w->tail++ % (2 * MOST_THREADS)] = f;
}
void put_first(worker *w, fiber *f) {
    w->ring[--w->head % (2 * MOST_THREADS)] = f;
}

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

void run_threads();

/* On a fiber's own stack: its body, then those of others that have not begun, as long as nobody who has can go on. */
void enter() {
    if (asan) {
        __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    }
    run_threads();
    __builtin_unreachable();
}

__attribute__((noinline)) void prepare(worker *w, fiber *f) {
    context *c;

    if (tsan) {
        c = w->contexts[(size_t)f->number];
    } else if (w->idle.empty()) {
        c = new_context(w);
    } else {
        c = w->idle.back();
        w->idle.pop_back();
    }
    void **sp = reinterpret_cast<void **>(c->top);

    *--sp = nullptr; /* enter's return address: it has none */
    *--sp = reinterpret_cast<void *>(enter);
    for (int i = 0; i < 6; i++) {
        *--sp = nullptr;
    }
    c->sp = sp;
    f->on = c;
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

inline void check_return(worker *w, fiber *f) {
    warp *its = &w->warps[f->number / WARP];

    if (w->arrived > 0) {
        die("returns while %d threads wait at the barrier at %s:%d", w->arrived, w->barrier_at.file, w->barrier_at.line);
    }
    its->returned |= 1u << f->lane;
    for (int i = 0; its->waiting && i < WARP; i++) {
        if (its->met[i].arrived && (its->met[i].mask >> f->lane & 1)) {
            die("returns while lanes %08x wait for it in %s at %s:%d", its->met[i].arrived, OP_NAMES[its->met[i].op],
                its->met[i].at.file, its->met[i].at.line);
        }
    }
}

void run_threads() {
    for (;;) {
        worker *w = mine;
        fiber *me = w->running, *f;
        context *on = me->on;

        acquire(&w->begun);
        work.call(work.body);
        release(&w->ended);
        w = mine;
        check_return(w, me);
        me->state = DONE;
        me->on = nullptr;
        if (!tsan) {
            w->idle.push_back(on); /* this stack: nobody else uses it before the switch below */
        }
        if (++w->returned == w->threads) {
            switch_context(on, &w->main, true);
        }
        f = take_next(w);
        if (f->state == NEW && !tsan) {
            w->idle.pop_back();
            f->on = on;
            set_running(w, f);
        } else {
            go_to(w, on, f, true);
        }
    }
}

/* ------------------------------------------------------------------ blocks */

void poison(worker *w, bool first) {
    if (first || w->static_bytes <= POISON_EVERY_BLOCK) {
        for (const shared_array &a : shared_arrays()) {
            memset(w->thread_locals + a.at, 0xff, a.size);
        }
    }
    memset(w->dynamic, 0xff, work.shared_bytes);
}

void prepare_dynamic(worker *w) {
    size_t bytes = work.shared_bytes, room = (bytes + GUARD + 127) / 128 * 128;

    if (asan && w->dynamic) {
        __asan_unpoison_memory_region(w->dynamic, w->dynamic_room);
    }
    if (room > w->dynamic_room) {
        free(w->dynamic);
        w->dynamic = static_cast<unsigned char *>(aligned_alloc(128, room));
        w->dynamic_room = room;
        if (!w->dynamic) {
            die("no memory for %zu bytes of shared memory", bytes);
        }
    }
    memset(w->dynamic + bytes, 0xa5, GUARD);
    if (asan) {
        __asan_poison_memory_region(w->dynamic + bytes, w->dynamic_room - bytes);
    }
    now.dynamic_shared = w->dynamic;
}

void check_dynamic(worker *w) {
    const unsigned char *guard = w->dynamic + work.shared_bytes;

    for (int i = 0; !asan && i < GUARD; i++) {
        if (guard[i] != 0xa5) {
            w->running = nullptr;
            die("has written byte %d behind its %zu bytes of dynamic shared memory", i, work.shared_bytes);
        }
    }
}

void run_block(worker *w, uint64_t number, bool first) {
    const dim3 b = work.block;
    int n = 0;

    now.block.x = (unsigned)(number % work.grid.x);
    now.block.y = (unsigned)(number / work.grid.x % work.grid.y);
    now.block.z = (unsigned)(number / work.grid.x / work.grid.y);
    w->returned = w->arrived = 0;
    w->sums[0] = w->sums[1] = 0;
    w->head = w->tail = 0;
    poison(w, first);
    for (unsigned z = 0; z < b.z; z++) {
        for (unsigned y = 0; y < b.y; y++) {
            for (unsigned x = 0; x < b.x; x++) {
                fiber *f = &w->fibers[(size_t)n];

                f->index = uint3{ x, y, z };
                f->number = (short)n++;
                f->lane = f->number % WARP;
                f->state = NEW;
                put_last(w, f);
            }
        }
    }
    w->threads = n;
    while (tsan && w->contexts.size() < (size_t)n) { /* here, where what they need belongs to nobody's thread */
        new_context(w);
    }
    for (int i = 0; w->copied && i < n; i++) {
        w->copying[(size_t)i].issued.clear();
        w->copying[(size_t)i].landed = 0;
        w->copying[(size_t)i].group = 0;
    }
    w->copied = false;
    for (int i = 0; i * WARP < n; i++) {
        w->warps[i].exists = n - i * WARP >= WARP ? 0xffffffffu : (1u << (n - i * WARP)) - 1;
        w->warps[i].returned = w->warps[i].waiting = 0;
    }
    release(&w->begun);
    go_to(w, &w->main, take_next(w), false);
    acquire(&w->ended);
    w->running = nullptr;
    check_dynamic(w);
}

void run_blocks(unsigned which) {
    if (!mine) {
        mine = new worker;
        (void)&holder;
    }
    worker *w = mine;
    bool first = true;

    acquire(&work.begin);
    now.block_dim = work.block;
    now.grid_dim = work.grid;
    now.shuffled = work.seed != 0;
    w->random = mixed(work.seed + which);
    prepare_dynamic(w);
    for (;;) {
        uint64_t i = work.next.fetch_add(tsan ? 0 : 1, std::memory_order_relaxed);

        if (i >= work.blocks) {
            break;
        }
        if (!tsan) {
            run_block(w, (i * work.stride + work.shift) % work.blocks, first);
            first = false;
            continue;
        }
        /* Dealt out beforehand: which blocks share a worker is then up to the seed, not to how fast each is. */
        for (uint64_t b = 0; b < work.blocks; b++) {
            if (mixed(work.seed ^ mixed(b)) % work.workers == which) {
                run_block(w, (b * work.stride + work.shift) % work.blocks, first);
                first = false;
            }
        }
        break;
    }
    release(&work.end[which]);
}

/* ------------------------------------------------------------------ workers */

/* Threads that wait for work. They are woken and waited for through futexes that ThreadSanitizer does not see, so that only the
 * tokens in `work` order what they do. */
struct pool {
    std::atomic<uint32_t> round{ 0 }, left{ 0 };
    std::vector<std::thread> threads;
    unsigned most = 1;
    uint64_t seed = 0, launches = 0;

    pool() {
        const char *workers = getenv("MIXRUN_SHIM_WORKERS"), *order = getenv("MIXRUN_SHIM_SEED");
        unsigned cores = std::thread::hardware_concurrency();

        most = tsan ? 3 : cores > 4 ? 4 : cores ? cores : 1;
        if (workers && atoi(workers) > 0) {
            most = (unsigned)atoi(workers);
        }
        most = asan ? 1 : most > (unsigned)MOST_WARPS ? (unsigned)MOST_WARPS : most;
        seed = order ? strtoull(order, NULL, 0) : 0;
    }
    void serve(unsigned which, uint32_t seen) {
        for (;;) {
            round.wait(seen, std::memory_order_acquire);
            seen = round.load(std::memory_order_acquire);
            if (which < work.workers) {
                run_blocks(which);
            }
            if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                left.notify_one();
            }
        }
    }
    void start(unsigned workers) {
        while (threads.size() + 1 < workers) {
            threads.emplace_back([this, which = (unsigned)threads.size() + 1, seen = round.load()] { serve(which, seen); });
        }
    }
};

pool &the_pool() {
    static pool *p = new pool; /* its threads never end */

    return *p;
}
std::mutex launching;

/* Block i of a launch is the i stride + shift-th: all of them once, when stride and their number share no factor. */
void shuffle_blocks(uint64_t seed) {
    work.shift = mixed(seed) % work.blocks;
    work.stride = mixed(seed + 1) % work.blocks + 1;
    while (std::gcd(work.stride, work.blocks) != 1) {
        work.stride++;
    }
}

} /* namespace */

/* ------------------------------------------------------------------ what a kernel calls */

void die(const char *fmt, ...) {
    char text[400];
    va_list args;
    worker *w = mine;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fflush(stdout);
    if (w && w->running) {
        fprintf(stderr, "cuda shim: kernel %s, block (%u,%u,%u), thread %d: %s\n", work.name, now.block.x, now.block.y, now.block.z,
                w->running->number, text);
    } else {
        fprintf(stderr, "cuda shim: kernel %s, block (%u,%u,%u): %s\n", work.name ? work.name : "(none)", now.block.x, now.block.y,
                now.block.z, text);
    }
    abort();
}

namespace {
/* Nobody can go on: who waits where. */
void tell_deadlock(worker *w) {
    fprintf(stderr, "cuda shim: kernel %s, block (%u,%u,%u): no thread can go on\n", work.name, now.block.x, now.block.y, now.block.z);
    for (int i = 0, lines = 0; i < w->threads && lines < 16; i++) {
        const fiber &f = w->fibers[(size_t)i];
        int same = 0;

        if (f.state == DONE) {
            continue;
        }
        for (int j = 0; j < w->threads; j++) {
            const fiber &g = w->fibers[(size_t)j];

            if (g.state == f.state && g.at.line == f.at.line && strcmp(g.at.file, f.at.file) == 0) {
                same = j < i ? -w->threads : same + 1;
            }
        }
        if (same > 0) {
            fprintf(stderr, "    %d threads, the first is thread %d, wait %s at %s:%d\n", same, i,
                    f.state == AT_BARRIER ? "at a barrier" : "for their warp", f.at.file, f.at.line);
            lines++;
        }
    }
    w->running = nullptr;
    die("divergent barrier or warp function");
}
}

int barrier(int predicate, place at) {
    worker *w = mine;
    fiber *me = w->running;
    unsigned parity = w->generation & 1;

    set_place(&me->at, at);
    if (w->returned > 0) {
        die("reaches the barrier at %s:%d after %d threads of its block have returned", at.file, at.line, w->returned);
    }
    if (w->arrived == 0) {
        w->barrier_at = at;
    } else if (at.line != w->barrier_at.line || (at.file != w->barrier_at.file && strcmp(at.file, w->barrier_at.file) != 0)) {
        die("divergent barrier: waits at %s:%d, others at %s:%d", at.file, at.line, w->barrier_at.file, w->barrier_at.line);
    }
    w->sums[parity] += predicate;
    release(&w->order[parity]);
    if (++w->arrived < w->threads) {
        wait(w, AT_BARRIER);
        w = mine;
    } else {
        w->arrived = 0;
        w->sums[++w->generation & 1] = 0; /* of the barrier before: everybody has read it, having arrived here */
        for (int i = 0; i < w->threads; i++) {
            fiber *f = &w->fibers[(size_t)i];

            if (f->state == AT_BARRIER) {
                f->state = READY;
                put_last(w, f);
            }
        }
        if (now.shuffled) {
            yield();
        }
    }
    acquire(&w->order[parity]);
    return w->sums[parity];
}

namespace {

float bf16_float(uint32_t bits) {
    float f;

    bits <<= 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* d = a b + c of a whole warp (portable.h tells where the values lie): products and sums in f32, k upwards. */
void multiply(const warp *its) {
    float a[16][16], b[16][8], c[16][8];

    for (int lane = 0; lane < WARP; lane++) {
        const uint32_t *x = static_cast<const uint32_t *>(its->a[lane]), *y = static_cast<const uint32_t *>(its->b[lane]);
        const float *z = static_cast<const float *>(its->c[lane]);
        int g = lane / 4, t = lane % 4;

        for (int i = 0; i < 4; i++) {
            int row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);

            a[row][column] = bf16_float(x[i] & 0xffffu);
            a[row][column + 1] = bf16_float(x[i] >> 16);
            c[g + 8 * (i / 2)][2 * t + i % 2] = z[i];
        }
        for (int i = 0; i < 2; i++) {
            b[2 * t + 8 * i][g] = bf16_float(y[i] & 0xffffu);
            b[2 * t + 8 * i + 1][g] = bf16_float(y[i] >> 16);
        }
    }
    for (int row = 0; row < 16; row++) {
        for (int k = 0; k < 16; k++) {
            for (int column = 0; column < 8; column++) {
                c[row][column] += a[row][k] * b[k][column];
            }
        }
    }
    for (int lane = 0; lane < WARP; lane++) {
        float *d = static_cast<float *>(its->d[lane]);

        for (int i = 0; i < 4; i++) {
            d[i] = c[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
        }
    }
}

/* Lane l brings row l % 8 of matrix l / 8, eight values of 16 bits. */
void load_matrices(const warp *its) {
    uint16_t m[4][8][8];

    for (int lane = 0; lane < WARP; lane++) {
        memcpy(m[lane / 8][lane % 8], its->a[lane], 16);
    }
    for (int lane = 0; lane < WARP; lane++) {
        uint32_t *r = static_cast<uint32_t *>(its->d[lane]);
        int row = lane / 4, column = 2 * (lane % 4);

        for (int i = 0; i < 4; i++) {
            uint16_t low = its->source[lane] ? m[i][column][row] : m[i][row][column];
            uint16_t high = its->source[lane] ? m[i][column + 1][row] : m[i][row][column + 1];

            r[i] = (uint32_t)low | (uint32_t)high << 16;
        }
    }
}

/* Everybody has arrived: what each takes away, worked out at once. */
void complete(warp_op op, unsigned mask, warp *its) {
    uint64_t ballot = 0;

    for (int i = 0; op == OP_BALLOT && i < WARP; i++) {
        ballot |= mask >> i & 1 && its->brings[i] ? 1u << i : 0;
    }
    for (int i = 0; (op == OP_SHUFFLE || op == OP_BALLOT || op == OP_MATCH) && i < WARP; i++) {
        if (!(mask >> i & 1)) {
            continue;
        }
        if (op == OP_SHUFFLE) {
            its->takes[i] = mask >> its->source[i] & 1 ? its->brings[its->source[i]] : ~(uint64_t)0;
        } else if (op == OP_BALLOT) {
            its->takes[i] = ballot;
        } else {
            its->takes[i] = 0;
            for (int j = 0; j < WARP; j++) {
                its->takes[i] |= mask >> j & 1 && its->brings[j] == its->brings[i] ? 1u << j : 0;
            }
        }
    }
    if (op == OP_MMA) {
        multiply(its);
    } else if (op == OP_LDMATRIX) {
        load_matrices(its);
    }
}

/* Why a lane cannot be let into a warp function. */
[[noreturn]] void refuse_meeting(warp_op op, unsigned mask, const fiber *me, const warp *its, const meeting *m, place at) {
    if (!(mask >> me->lane & 1)) {
        die("%s at %s:%d: lane %d is not in its own mask %08x", OP_NAMES[op], at.file, at.line, me->lane, mask);
    }
    if (mask & its->returned) {
        die("%s at %s:%d names lanes %08x, which have returned", OP_NAMES[op], at.file, at.line, mask & its->returned);
    }
    if (op >= OP_MMA && its->exists != 0xffffffffu) {
        die("%s at %s:%d in a warp that is not whole", OP_NAMES[op], at.file, at.line);
    }
    die("divergent warp: %s with mask %08x at %s:%d, while lanes %08x are in %s with the same mask at %s:%d", OP_NAMES[op], mask,
        at.file, at.line, m->arrived, OP_NAMES[m->op], m->at.file, m->at.line);
}

/* The lanes of that mask that have come so far, or a free place for them. Lanes 0..11 may meet while the others wait for the
 * whole warp. */
inline meeting *meeting_of(warp *its, unsigned mask) {
    meeting *free = nullptr;

    for (int i = 0; i < WARP; i++) {
        meeting *m = &its->met[i];

        if (m->arrived && m->mask == mask) {
            return m;
        }
        free = free || m->arrived ? free : m;
        if (!its->waiting) {
            break;
        }
    }
    return free; /* every meeting holds a lane that waits, and the one that asks does not */
}

/* Until all lanes of `mask` have come, the running one with what it brings; the last to come does the work for all. */
inline __attribute__((always_inline)) void meet(warp_op op, unsigned mask, worker *w, fiber *me, warp *its, place at) {
    meeting *m = meeting_of(its, mask & its->exists);
    unsigned bit = 1u << me->lane, parity;

    bool odd = !(mask & bit) || (mask & its->returned) || (op >= OP_MMA && its->exists != 0xffffffffu) ||
               (m->arrived && m->op != op);

    if (__builtin_expect(odd, 0)) {
        refuse_meeting(op, mask, me, its, m, at);
    }
    mask &= its->exists;
    set_place(&me->at, at);
    set_place(&m->at, at);
    m->op = op;
    m->mask = mask;
    m->arrived |= bit;
    parity = m->generation & 1;
    if (op == OP_SYNC) {
        release(&m->order[parity]);
    }
    if (m->arrived != mask) {
        its->waiting |= bit;
        wait(w, IN_WARP);
    } else {
        fiber *lanes = me - me->lane;

        m->arrived = 0;
        m->generation++;
        its->waiting &= ~mask;
        complete(op, mask, its);
        for (unsigned others = mask & ~bit; others;) { /* the warp stays together: its lanes go before other warps' */
            int last = 31 - __builtin_clz(others);

            others &= ~(1u << last);
            lanes[last].state = READY;
            put_first(w, &lanes[last]);
        }
        if (now.shuffled) {
            yield();
        }
    }
    if (op == OP_SYNC) {
        acquire(&m->order[parity]);
    }
}

warp *warp_of(worker *w, const fiber *f) {
    return &w->warps[f->number / WARP];
}

}

void warp_wait(unsigned mask, place at) {
    worker *w = mine;

    meet(OP_SYNC, mask, w, w->running, warp_of(w, w->running), at);
}
uint64_t warp_shuffle(unsigned mask, uint64_t value, int source, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->brings[me->lane] = value;
    its->source[me->lane] = source & 31;
    meet(OP_SHUFFLE, mask, w, me, its, at);
    return its->takes[me->lane];
}
unsigned warp_ballot(unsigned mask, bool predicate, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->brings[me->lane] = predicate;
    meet(OP_BALLOT, mask, w, me, its, at);
    return (unsigned)its->takes[me->lane];
}
unsigned warp_match(unsigned mask, uint64_t value, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->brings[me->lane] = value;
    meet(OP_MATCH, mask, w, me, its, at);
    return (unsigned)its->takes[me->lane];
}
void warp_mma_bf16(float *d, const uint32_t *a, const uint32_t *b, const float *c, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->d[me->lane] = d;
    its->a[me->lane] = a;
    its->b[me->lane] = b;
    its->c[me->lane] = c;
    meet(OP_MMA, 0xffffffffu, w, me, its, at);
}
void warp_ldmatrix(uint32_t *r, const uint4 *row, bool transposed, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->d[me->lane] = r;
    its->a[me->lane] = row;
    its->source[me->lane] = transposed;
    meet(OP_LDMATRIX, 0xffffffffu, w, me, its, at);
}

void yield() {
    worker *w = mine;
    fiber *me = w->running;

    if (w->head != w->tail && draw(w) % 4 == 0) {
        put_last(w, me);
        wait(w, READY);
    }
}

char fence_order;
void fence() {
    acquire(&fence_order);
    release(&fence_order);
}

static copies *its_copies() {
    worker *w = mine;

    w->copied = true;
    return &w->copying[(size_t)w->running->number];
}
void copy_issue(copy c) {
    copies *its = its_copies();

    c.group = its->group;
    its->issued.push_back(c);
}
void copy_commit() {
    its_copies()->group++;
}
const copy *copy_landing(int pending) {
    copies *its = its_copies();

    if (its->landed < its->issued.size() && its->issued[its->landed].group + (unsigned)pending < its->group) {
        return &its->issued[its->landed++];
    }
    if (its->landed == its->issued.size()) {
        its->issued.clear();
        its->landed = 0;
    }
    return nullptr;
}

/* ------------------------------------------------------------------ launches */

void reseed(uint64_t seed) {
    std::lock_guard<std::mutex> hold(launching);

    the_pool().seed = seed;
    the_pool().launches = 0;
}

void launch_call(const char *name, dim3 grid, dim3 block, size_t shared_bytes, void (*call)(void *), void *body) {
    std::lock_guard<std::mutex> hold(launching);
    pool &p = the_pool();
    uint64_t threads = (uint64_t)block.x * block.y * block.z, blocks = (uint64_t)grid.x * grid.y * grid.z;

    work.name = name;
    if (threads == 0 || threads > MOST_THREADS || block.z > 64 || shared_bytes > MOST_SHARED || grid.x > 0x7fffffffu ||
        grid.y > 65535 || grid.z > 65535 || blocks == 0) {
        die("cannot be launched: grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of shared memory", grid.x, grid.y, grid.z, block.x,
            block.y, block.z, shared_bytes);
    }
    device_access access;

    if (!runtime_launches()) {
        return;
    }
    work.grid = grid;
    work.block = block;
    work.shared_bytes = shared_bytes;
    work.call = call;
    work.body = body;
    work.blocks = blocks;
    work.seed = p.seed ? mixed(p.seed + mixed(p.launches++)) | 1 : 0;
    work.stride = 1;
    work.shift = 0;
    if (work.seed) {
        shuffle_blocks(work.seed);
    }
    work.next.store(0, std::memory_order_relaxed);
    /* Waking a thread takes longer than a small launch. */
    work.workers = tsan || blocks * threads >= 8192 ? p.most : 1;
    if (work.workers > blocks) {
        work.workers = (unsigned)blocks;
    }
    release(&work.begin);
    if (work.workers > 1) {
        p.start(p.most);
        p.left.store((uint32_t)p.threads.size(), std::memory_order_relaxed);
        p.round.fetch_add(1, std::memory_order_acq_rel);
        p.round.notify_all();
    }
    run_blocks(0);
    if (work.workers > 1) {
        for (uint32_t left = p.left.load(std::memory_order_acquire); left; left = p.left.load(std::memory_order_acquire)) {
            p.left.wait(left, std::memory_order_acquire);
        }
    }
    for (unsigned i = 0; i < work.workers; i++) {
        acquire(&work.end[i]);
    }
}
}
