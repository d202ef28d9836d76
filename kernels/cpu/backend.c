/* backend.c - the CPU backend: opening, memory, and its table of ops. */
#include "kernels/cpu/backend.h"

#include <dnnl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    ALIGNMENT = 64, /* a cache line and a vector register */
    HUGE = 2 << 20  /* from twice this on, memory asks for huge pages: fewer TLB misses in the products */
};

/* What precedes each block that is handed out. */
typedef struct block_head {
    void *start; /* of the calloc'ed block */
    size_t bytes;
} block_head;
_Static_assert(sizeof(block_head) <= ALIGNMENT, "the head must fit before the first aligned byte");

static mx_code cpu_reserve(mx_backend *b, mx_memory purpose, size_t bytes, mx_status *st) {
    (void)b;
    (void)purpose;
    (void)bytes;
    (void)st;
    return MX_OK; /* the system's memory is taken when it is touched */
}

static mx_code cpu_alloc(mx_backend *b, mx_memory purpose, size_t bytes, void **ret, mx_status *st) {
    mx_cpu *cpu = mx_cpu_of(b);
    size_t whole;
    char *start;

    *ret = NULL;
    if (__builtin_add_overflow(bytes, 2 * ALIGNMENT, &whole) || !(start = calloc(1, whole))) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for another %zu bytes", bytes);
    }

    uintptr_t aligned = ((uintptr_t)start + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block_head *head = (block_head *)(aligned - sizeof(block_head));

    *head = (block_head){ .start = start, .bytes = bytes };
    if (bytes >= 2 * (size_t)HUGE) {
        uintptr_t first = (aligned + HUGE - 1) / HUGE * HUGE, last = (aligned + bytes) / HUGE * HUGE;

        madvise((void *)first, last - first, MADV_HUGEPAGE); /* advice: refusal changes nothing but speed */
    }
    cpu->used[purpose] += bytes;
    *ret = (void *)aligned;
    return MX_OK;
}

static void cpu_release(mx_backend *b, mx_memory purpose, void *memory) {
    if (memory) {
        block_head *head = (block_head *)((uintptr_t)memory - sizeof(block_head));

        mx_cpu_of(b)->used[purpose] -= head->bytes;
        free(head->start);
    }
}

static size_t cpu_used_bytes(const mx_backend *b, mx_memory purpose) {
    return mx_cpu_of_const(b)->used[purpose];
}

static void cpu_write(mx_backend *b, void *to, const void *from_host, size_t bytes) {
    (void)b;
    memcpy(to, from_host, bytes);
}

static void cpu_read(mx_backend *b, void *to_host, const void *from, size_t bytes) {
    (void)b;
    memcpy(to_host, from, bytes);
}

static void cpu_zero(mx_backend *b, void *to, size_t bytes) {
    (void)b;
    memset(to, 0, bytes);
}

static mx_code cpu_sync(mx_backend *b, mx_status *st) {
    mx_cpu *cpu = mx_cpu_of(b);

    if (cpu->lost) {
        return mx_fail(st, cpu->lost, MX_NOWHERE, "%s", cpu->lost_text);
    }
    return MX_OK;
}

static mx_code cpu_host_alloc(mx_backend *b, size_t bytes, void **ret, mx_status *st) {
    (void)b;
    *ret = calloc(1, bytes ? bytes : 1);
    return *ret ? MX_OK : mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for another %zu bytes", bytes);
}

static void cpu_host_release(mx_backend *b, void *memory) {
    (void)b;
    free(memory);
}

static uint64_t cpu_mark(mx_backend *b) {
    return ++mx_cpu_of(b)->marks;
}

static mx_code cpu_wait(mx_backend *b, uint64_t mark, mx_status *st) {
    assert(mark <= mx_cpu_of(b)->marks);
    (void)mark;
    return cpu_sync(b, st);
}

static void cpu_close(mx_backend *b) {
    mx_gemm_close(mx_cpu_of(b));
    mx_rope_table_close(mx_cpu_of(b)->rope);
    free(b);
}

static void cpu_scratch(mx_backend *b, void *memory, size_t bytes) {
    mx_cpu_of(b)->scratch = (mx_scratch){ .memory = memory, .bytes = bytes };
}

void mx_cpu_lose(mx_cpu *cpu, mx_code code, const char *fmt, ...) {
    va_list args;

    if (cpu->lost) {
        return;
    }
    cpu->lost = code;
    va_start(args, fmt);
    vsnprintf(cpu->lost_text, sizeof cpu->lost_text, fmt, args);
    va_end(args);
}

void *mx_scratch_take(mx_scratch *s, size_t bytes) {
    size_t at = s->used;

    s->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    s->most = s->used > s->most ? s->used : s->most;
    if (!s->memory) {
        assert(s->bytes == 0); /* counting; an op that runs has been given memory */
        return NULL;
    }
    assert(s->used <= s->bytes);
    return s->memory + at;
}

static const mx_ops cpu_ops = {
    .scratch = cpu_scratch,
    .embed = mx_cpu_embed,
    .rmsnorm_forward = mx_cpu_rmsnorm_forward,
    .rmsnorm_backward = mx_cpu_rmsnorm_backward,
    .rope = mx_cpu_rope,
    .linears_saved_bytes = mx_cpu_linears_saved_bytes,
    .linears_scratch_bytes = mx_cpu_linears_scratch_bytes,
    .linears_forward = mx_cpu_linears_forward,
    .linears_backward = mx_cpu_linears_backward,
    .attention_scratch_bytes = mx_cpu_attention_scratch_bytes,
    .attention_forward = mx_cpu_attention_forward,
    .attention_backward = mx_cpu_attention_backward,
    .swiglu_forward = mx_cpu_swiglu_forward,
    .swiglu_backward = mx_cpu_swiglu_backward,
    .add = mx_cpu_add,
    .jitter_forward = mx_cpu_jitter_forward,
    .jitter_backward = mx_cpu_jitter_backward,
    .router_scratch_bytes = mx_cpu_router_scratch_bytes,
    .router_forward = mx_cpu_router_forward,
    .router_backward = mx_cpu_router_backward,
    .router_losses = mx_cpu_router_losses,
    .experts_saved_bytes = mx_cpu_experts_saved_bytes,
    .experts_scratch_bytes = mx_cpu_experts_scratch_bytes,
    .experts_slow = mx_cpu_experts_slow,
    .experts_forward = mx_cpu_experts_forward,
    .experts_backward = mx_cpu_experts_backward,
    .gather_rows = mx_cpu_gather_rows,
    .scatter_rows = mx_cpu_scatter_rows,
    .head_scratch_bytes = mx_cpu_head_scratch_bytes,
    .head_loss = mx_cpu_head_loss,
    .head_logits = mx_cpu_head_logits,
    .objective = mx_cpu_objective,
    .adamw = mx_cpu_adamw,
    .row_norms = mx_cpu_row_norms,
    .dora_scratch_bytes = mx_cpu_dora_scratch_bytes,
    .dora_forward = mx_cpu_dora_forward,
    .dora_backward = mx_cpu_dora_backward,
};

bool mx_cpu_has_bf16(void) {
#if defined(__x86_64__)
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa(); /* oneDNN's own limit counts as well: ONEDNN_MAX_CPU_ISA */

    return __builtin_cpu_supports("avx512bf16") &&
           (isa == dnnl_cpu_isa_avx512_core_bf16 || isa == dnnl_cpu_isa_avx512_core_amx || isa == dnnl_cpu_isa_all);
#else
    return false;
#endif
}

static const char *instructions(void) {
    switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_all:
    case dnnl_cpu_isa_avx512_core_amx:
        return "amx_bf16";
    case dnnl_cpu_isa_avx512_core_bf16:
        return "avx512_bf16";
    case dnnl_cpu_isa_avx512_core:
    case dnnl_cpu_isa_avx512_core_vnni:
        return "avx512";
    case dnnl_cpu_isa_avx2:
    case dnnl_cpu_isa_avx2_vnni:
        return "avx2";
    default:
        return "no avx2";
    }
}

static void describe(mx_cpu *cpu) {
    const dnnl_version_t *v = dnnl_version();
    char products[64];

    snprintf(products, sizeof products, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    snprintf(cpu->base.description, sizeof cpu->base.description, "%d thread%s, %s, %s%s", cpu->threads,
             cpu->threads == 1 ? "" : "s", instructions(), cpu->plain_gemm ? "plain C products" : products,
             cpu->base.emulated_bf16 ? ", bf16 emulated" : "");
}

mx_code mx_cpu_open(const mx_backend_options *o, mx_backend **ret, mx_status *st) {
    mx_cpu *cpu = calloc(1, sizeof *cpu);

    *ret = NULL;
    if (!cpu) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for the CPU backend");
    }
    cpu->base = (mx_backend){
        .name = "cpu",
        .precision = o->precision,
        .emulated_bf16 = o->precision == MX_PRECISION_BF16 && !mx_cpu_has_bf16(),
        .ops = &cpu_ops,
        .reserve = cpu_reserve,
        .alloc = cpu_alloc,
        .release = cpu_release,
        .used_bytes = cpu_used_bytes,
        .write = cpu_write,
        .read = cpu_read,
        .zero = cpu_zero,
        .sync = cpu_sync,
        .host_alloc = cpu_host_alloc,
        .host_release = cpu_host_release,
        .queue_read = cpu_read,
        .mark = cpu_mark,
        .wait = cpu_wait,
        .weights_open = mx_cpu_weights_open,
        .weight_close = mx_cpu_weight_close,
        .weights_bytes = mx_cpu_weights_bytes,
        .weights_shared_bytes = mx_cpu_weights_shared_bytes,
        .close = cpu_close,
    };
    cpu->threads = o->threads > 0 ? o->threads : omp_get_num_procs();
    /* oneDNN's bf16 products want the instructions; without them it makes no such product. */
    cpu->plain_gemm = o->plain_gemm || cpu->base.emulated_bf16;
    omp_set_dynamic(0);
    omp_set_num_threads(cpu->threads);

    mx_code code = mx_gemm_open(cpu, st);

    if (code) {
        free(cpu);
        return code;
    }
    describe(cpu);
    *ret = &cpu->base;
    return MX_OK;
}
