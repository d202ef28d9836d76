/* shim.cc - the scheduler: stacks, blocks of fibers, workers, launches, and what is told to the sanitizers. */
#include "kernels/cuda/shim/machine.h"

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

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64 (shim_switch)"
#endif

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
__thread worker *mine;
job work;
const bool tsan = __tsan_switch_to_fiber != nullptr;
const bool asan = __sanitizer_start_switch_fiber != nullptr && __asan_poison_memory_region != nullptr;
constexpr size_t POISON_EVERY_BLOCK = 16384; /* more static shared memory than this is poisoned once a launch, not once a block */

/* ------------------------------------------------------------------ last words */

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

/* ------------------------------------------------------------------ workers' memory */

namespace {

struct worker_holder {
    ~worker_holder() {
        delete mine;
        mine = nullptr;
    }
};
thread_local worker_holder holder;

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

static context *new_context(worker *w) {
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

void switch_announced(context *from, context *to, bool for_good) {
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

/* ------------------------------------------------------------------ threads */

static void check_return(worker *w, fiber *f) {
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

[[noreturn]] static void run_threads() {
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

/* On a fiber's own stack: its body, then those of others that have not begun, as long as nobody who has can go on. */
static void enter() {
    if (asan) {
        __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    }
    run_threads();
}

void prepare(worker *w, fiber *f) {
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

namespace {

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
