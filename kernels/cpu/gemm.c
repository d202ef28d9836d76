/* gemm.c - matrix products by oneDNN's matmul, and the only file (beside the description in backend.c) that
 * knows oneDNN.
 *
 * Making a primitive takes 0.3 to 2 ms (it compiles code for exactly these sizes), as long as a product itself, and
 * one with sizes left open runs at half the speed. So primitives are kept, and the sizes that vary, numbers of rows,
 * are cut into a multiple of 64 and a rest that is copied into 16, 32 or 64 rows padded with zeros. */
#include "kernels/cpu/cpu.h"

#include <dnnl.h>
#include <stdlib.h>

enum {
    GRAIN = 64,          /* rows of a whole piece */
    SETS = 32, WAYS = 8, /* primitives kept, some 170 KiB of code each: the least recently used of a set gives way. A
                            micro-batch of one size needs about 40. */
};

typedef struct product_key {
    int64_t m, n, k, a_ld, b_ld, c_ld;
    int32_t a_transposed, b_transposed, in_type, out_type, add, unused;
} product_key;

typedef struct product {
    product_key key;
    dnnl_primitive_t primitive; /* NULL: empty */
    dnnl_memory_t a, b, c, scratch;
    size_t scratch_bytes;
    uint64_t used_at;
} product;

typedef struct region {
    void *memory;
    size_t bytes;
} region;

struct mx_gemm_engine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t clock;
    region scratch;      /* oneDNN's own, shared by all primitives */
    region rest_a, rest_b, rest_c;
    product kept[SETS][WAYS];
};

mx_code mx_gemm_open(mx_cpu *cpu, mx_status *st) {
    mx_gemm_engine *g = calloc(1, sizeof *g);

    if (!g) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for the CPU backend");
    }
    cpu->gemm = g;
    if (dnnl_engine_create(&g->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&g->stream, g->engine, dnnl_stream_default_flags) != dnnl_success) {
        mx_gemm_close(cpu);
        return mx_fail(st, MX_E_DEVICE, MX_NOWHERE, "oneDNN does not start");
    }
    dnnl_set_primitive_cache_capacity(0); /* ours is the one that is bounded by what is used together */
    return MX_OK;
}

static void forget(product *p) {
    if (p->primitive) {
        dnnl_primitive_destroy(p->primitive);
    }
    dnnl_memory_t memories[] = { p->a, p->b, p->c, p->scratch };

    for (size_t i = 0; i < sizeof memories / sizeof memories[0]; i++) {
        if (memories[i]) {
            dnnl_memory_destroy(memories[i]);
        }
    }
    *p = (product){ 0 };
}

void mx_gemm_close(mx_cpu *cpu) {
    mx_gemm_engine *g = cpu->gemm;

    if (!g) {
        return;
    }
    for (int set = 0; set < SETS; set++) {
        for (int way = 0; way < WAYS; way++) {
            forget(&g->kept[set][way]);
        }
    }
    region *regions[] = { &g->scratch, &g->rest_a, &g->rest_b, &g->rest_c };

    for (size_t i = 0; i < sizeof regions / sizeof regions[0]; i++) {
        cpu->base.release(&cpu->base, MX_MEMORY_SCRATCH, regions[i]->memory);
    }
    if (g->stream) {
        dnnl_stream_destroy(g->stream);
    }
    if (g->engine) {
        dnnl_engine_destroy(g->engine);
    }
    free(g);
    cpu->gemm = NULL;
}

static void lose(mx_cpu *cpu, mx_code code, const char *what, int64_t m, int64_t n, int64_t k) {
    mx_cpu_lose(cpu, code, "%s for a product of %lld x %lld x %lld", what, (long long)m, (long long)n, (long long)k);
}

static void *grow(mx_cpu *cpu, region *r, size_t bytes) {
    if (bytes > r->bytes) {
        mx_status st = { 0 };

        cpu->base.release(&cpu->base, MX_MEMORY_SCRATCH, r->memory);
        *r = (region){ 0 };
        if (cpu->base.alloc(&cpu->base, MX_MEMORY_SCRATCH, bytes, &r->memory, &st) == MX_OK) {
            r->bytes = bytes;
        }
    }
    return r->memory;
}

static dnnl_data_type_t type_of(int32_t dtype) {
    return dtype == MX_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* A matrix (rows, columns) described by the line stride of its storage. */
static dnnl_status_t describe(dnnl_memory_desc_t *ret, int64_t rows, int64_t columns, int32_t dtype, int64_t ld,
                              bool transposed) {
    dnnl_dims_t dims = { rows, columns };
    dnnl_dims_t strides = { transposed ? 1 : ld, transposed ? ld : 1 };

    return dnnl_memory_desc_init_by_strides(ret, 2, dims, type_of(dtype), strides);
}

static dnnl_status_t make_primitive(mx_gemm_engine *g, const dnnl_matmul_desc_t *desc, bool add, product *p) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t sum = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s;

    if ((s = dnnl_primitive_attr_create(&attr)) != dnnl_success ||
        (s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user)) != dnnl_success) {
        goto done;
    }
    if (add && ((s = dnnl_post_ops_create(&sum)) != dnnl_success ||
                (s = dnnl_post_ops_append_sum(sum, 1.0f)) != dnnl_success ||
                (s = dnnl_primitive_attr_set_post_ops(attr, sum)) != dnnl_success)) {
        goto done;
    }
    if ((s = dnnl_primitive_desc_create(&pd, desc, attr, g->engine, NULL)) != dnnl_success ||
        (s = dnnl_primitive_create(&p->primitive, pd)) != dnnl_success) {
        goto done;
    }

    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);

    p->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    s = dnnl_memory_create(&p->scratch, scratch, g->engine, DNNL_MEMORY_NONE);
done:
    if (pd) {
        dnnl_primitive_desc_destroy(pd);
    }
    if (sum) {
        dnnl_post_ops_destroy(sum);
    }
    if (attr) {
        dnnl_primitive_attr_destroy(attr);
    }
    return s;
}

static dnnl_status_t make(mx_gemm_engine *g, const product_key *key, product *p) {
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_status_t s;

    p->key = *key;
    if ((s = describe(&a, key->m, key->k, key->in_type, key->a_ld, key->a_transposed)) != dnnl_success ||
        (s = describe(&b, key->k, key->n, key->in_type, key->b_ld, key->b_transposed)) != dnnl_success ||
        (s = describe(&c, key->m, key->n, key->out_type, key->c_ld, false)) != dnnl_success ||
        (s = dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c)) != dnnl_success ||
        (s = make_primitive(g, &desc, key->add, p)) != dnnl_success ||
        (s = dnnl_memory_create(&p->a, &a, g->engine, DNNL_MEMORY_NONE)) != dnnl_success ||
        (s = dnnl_memory_create(&p->b, &b, g->engine, DNNL_MEMORY_NONE)) != dnnl_success) {
        return s;
    }
    return dnnl_memory_create(&p->c, &c, g->engine, DNNL_MEMORY_NONE);
}

/* FNV-1a over the key's bytes; its fields leave no holes. */
static uint64_t hash_of(const product_key *key) {
    const unsigned char *byte = (const unsigned char *)key;
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < sizeof *key; i++) {
        h = (h ^ byte[i]) * 1099511628211u;
    }
    return h ^ h >> 32;
}
_Static_assert(sizeof(product_key) == 6 * sizeof(int64_t) + 6 * sizeof(int32_t), "padding would be hashed");

static product *find(mx_cpu *cpu, const product_key *key) {
    mx_gemm_engine *g = cpu->gemm;
    product *set = g->kept[hash_of(key) % SETS], *oldest = set;

    for (int way = 0; way < WAYS; way++) {
        if (set[way].primitive && memcmp(&set[way].key, key, sizeof *key) == 0) {
            set[way].used_at = ++g->clock;
            return &set[way];
        }
        if (set[way].used_at < oldest->used_at) {
            oldest = &set[way];
        }
    }
    forget(oldest);
    if (make(g, key, oldest) != dnnl_success) {
        forget(oldest);
        lose(cpu, MX_E_DEVICE, "oneDNN has no primitive", key->m, key->n, key->k);
        return NULL;
    }
    oldest->used_at = ++g->clock;
    return oldest;
}

/* One primitive for exactly these sizes. */
static void run(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    mx_gemm_engine *g = cpu->gemm;
    product_key key = {
        .m = m, .n = n, .k = k, .a_ld = a.ld, .b_ld = b.ld, .c_ld = c.ld, .a_transposed = a.transposed,
        .b_transposed = b.transposed, .in_type = (int32_t)a.dtype, .out_type = (int32_t)c.dtype, .add = add,
    };
    product *p = find(cpu, &key);

    if (!p) {
        return;
    }
    if (p->scratch_bytes > 0 && !grow(cpu, &g->scratch, p->scratch_bytes)) {
        lose(cpu, MX_E_MEMORY, "no memory", m, n, k);
        return;
    }

    dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, p->a },
                               { DNNL_ARG_WEIGHTS, p->b },
                               { DNNL_ARG_DST, p->c },
                               { DNNL_ARG_SCRATCHPAD, p->scratch } };

    /* oneDNN's handles are not const, but it only reads its sources. */
    if (dnnl_memory_set_data_handle(p->a, (void *)(uintptr_t)a.data) != dnnl_success ||
        dnnl_memory_set_data_handle(p->b, (void *)(uintptr_t)b.data) != dnnl_success ||
        dnnl_memory_set_data_handle(p->c, c.data) != dnnl_success ||
        dnnl_memory_set_data_handle(p->scratch, g->scratch.memory) != dnnl_success ||
        dnnl_primitive_execute(p->primitive, g->stream, 4, args) != dnnl_success ||
        dnnl_stream_wait(g->stream) != dnnl_success) {
        lose(cpu, MX_E_DEVICE, "oneDNN failed", m, n, k);
    }
}

static const void *value_at(const void *data, mx_dtype dtype, int64_t values) {
    return (const char *)data + (size_t)values * mx_dtype_bytes(dtype);
}

/* rows lines of `width` values, copied into `padded` lines without gaps, zeros below. NULL when there is no memory. */
static void *pad(mx_cpu *cpu, region *to, const void *from, mx_dtype dtype, int64_t ld, int64_t rows, int64_t width,
                 int64_t padded) {
    size_t line = (size_t)width * mx_dtype_bytes(dtype);
    char *copy = grow(cpu, to, (size_t)padded * line);

    if (!copy) {
        return NULL;
    }
    for (int64_t i = 0; i < rows; i++) {
        memcpy(copy + (size_t)i * line, value_at(from, dtype, i * ld), line);
    }
    memset(copy + (size_t)rows * line, 0, (size_t)(padded - rows) * line);
    return copy;
}

static int64_t padded_rows(int64_t rest) {
    return rest <= 16 ? 16 : rest <= 32 ? 32 : GRAIN;
}

/* The last rows of C: m < GRAIN. */
static void run_rest_of_m(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    mx_gemm_engine *g = cpu->gemm;
    int64_t padded = padded_rows(m);
    size_t line = (size_t)n * mx_dtype_bytes(c.dtype);
    void *a_copy = pad(cpu, &g->rest_a, a.data, a.dtype, a.ld, m, k, padded);
    void *c_copy = pad(cpu, &g->rest_c, c.data, c.dtype, c.ld, add ? m : 0, n, padded);

    if (!a_copy || !c_copy) {
        lose(cpu, MX_E_MEMORY, "no memory", m, n, k);
        return;
    }
    run(cpu, padded, n, k, mx_factor_of(a_copy, a.dtype, k), b, mx_product_of(c_copy, c.dtype, n), add);
    for (int64_t i = 0; i < m; i++) {
        memcpy((char *)c.data + (size_t)(i * c.ld) * mx_dtype_bytes(c.dtype), (char *)c_copy + (size_t)i * line, line);
    }
}

/* to (m, width) = from (k, m) transposed, columns k .. width - 1 zero; lines of `from` are ld apart. */
MX_CLONES static void transpose_lines(char *to, const char *from, int64_t ld, int64_t k, int64_t width, int64_t begin,
                                      int64_t end, size_t size) {
    enum { SIDE = 32 };

    for (int64_t p = 0; p < width; p += SIDE) {
        for (int64_t i = begin; i < end; i++) {
            for (int64_t q = p; q < width && q < p + SIDE; q++) {
                if (size == sizeof(uint16_t)) {
                    ((uint16_t *)to)[i * width + q] = q < k ? ((const uint16_t *)from)[q * ld + i] : 0;
                } else {
                    ((uint32_t *)to)[i * width + q] = q < k ? ((const uint32_t *)from)[q * ld + i] : 0;
                }
            }
        }
    }
}

static void *transpose(mx_cpu *cpu, region *to, mx_factor a, int64_t m, int64_t k, int64_t width) {
    size_t size = mx_dtype_bytes(a.dtype);
    char *copy = grow(cpu, to, (size_t)(m * width) * size);

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < m; i += 16) {
        if (copy) {
            transpose_lines(copy, a.data, a.ld, k, width, i, m - i < 16 ? m : i + 16, size);
        }
    }
    return copy;
}

/* C (+)= A B with A stored (k, m) and B (k, n). oneDNN takes A as rows up to three times faster, so it is turned. */
static void run_turned(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, int64_t padded, mx_factor a, mx_factor b,
                       mx_product c, bool add) {
    void *turned = transpose(cpu, &cpu->gemm->rest_a, a, m, k, padded);

    if (!turned) {
        lose(cpu, MX_E_MEMORY, "no memory", m, n, k);
        return;
    }
    run(cpu, m, n, padded, mx_factor_of(turned, a.dtype, padded), b, c, add);
}

/* The last rows that are summed over: k < GRAIN; both factors lie with k along their lines' number. */
static void run_rest_of_k(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    int64_t padded = padded_rows(k);
    void *b_copy = pad(cpu, &cpu->gemm->rest_b, b.data, b.dtype, b.ld, k, n, padded);

    if (!b_copy) {
        lose(cpu, MX_E_MEMORY, "no memory", m, n, k);
        return;
    }
    run_turned(cpu, m, n, k, padded, a, mx_factor_of(b_copy, b.dtype, n), c, add);
}

static void run_by_m(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    int64_t whole = m == 16 || m == 32 ? m : m / GRAIN * GRAIN;

    if (whole > 0) {
        run(cpu, whole, n, k, a, b, c, add);
    }
    if (whole < m) {
        a.data = value_at(a.data, a.dtype, whole * a.ld);
        c.data = (char *)c.data + (size_t)(whole * c.ld) * mx_dtype_bytes(c.dtype);
        run_rest_of_m(cpu, m - whole, n, k, a, b, c, add);
    }
}

static void run_by_k(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    int64_t whole = k / GRAIN * GRAIN;

    if (whole > 0) {
        run_turned(cpu, m, n, whole, whole, a, b, c, add);
    }
    if (whole < k) {
        a.data = value_at(a.data, a.dtype, whole * a.ld);
        b.data = value_at(b.data, b.dtype, whole * b.ld);
        run_rest_of_k(cpu, m, n, k - whole, a, b, c, add || whole > 0);
    }
}

void mx_gemm(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    assert(m >= 0 && n >= 0 && k >= 0 && a.dtype == b.dtype && (a.dtype == MX_F32 || a.dtype == MX_BF16));
    assert(c.dtype == MX_F32 || (c.dtype == MX_BF16 && a.dtype == MX_BF16));
    if (m == 0 || n == 0 || (k == 0 && add)) {
        return;
    }
    if (cpu->plain_gemm || k == 0) {
        mx_gemm_plain(m, n, k, a, b, c, add);
    } else if (!a.transposed) {
        run_by_m(cpu, m, n, k, a, b, c, add);
    } else if (!b.transposed && c.dtype == MX_F32) {
        run_by_k(cpu, m, n, k, a, b, c, add);
    } else {
        run(cpu, m, n, k, a, b, c, add); /* sizes of adapters and weights only, so few */
    }
}
