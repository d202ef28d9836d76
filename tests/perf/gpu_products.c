/* gpu_products.c - bare products: the run's ceiling, the linears of a 7B LLaMA, and the thin products of low-rank terms.
 *
 * W is kept as the model keeps it, (out, in), with room for B's columns behind and A's rows under it (kernels/backend.h): a
 * linear with its terms is one product over in + room, its backward pass one over out + room. What the room costs is seen
 * here, what the ops make of it in gpu_blocks.c. */
#include "tests/perf/gpu.h"

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/measure.h"

#include <assert.h>

typedef struct product {
    int64_t m, n, k;
    mx_measured_matrix a, b, y;
} product;

static mx_factor factor_of(const mx_measured_matrix *m) {
    return (mx_factor){ .data = m->data, .dtype = m->dtype, .ld = m->ld, .transposed = m->transposed };
}

static void multiply(perf *p, void *what) {
    const product *x = what;

    if (p->cuda) {
        mx_cuda_measure_product(p->b, x->m, x->n, x->k, x->a, x->b, x->y);
    } else {
        mx_gemm(mx_cpu_of(p->b), x->m, x->n, x->k, factor_of(&x->a), factor_of(&x->b),
                mx_product_of((void *)(uintptr_t)x->y.data, x->y.dtype, x->y.ld), false);
    }
}

static mx_measured_matrix matrix(mx_tensor t, int64_t ld, bool transposed) {
    return (mx_measured_matrix){ .data = t.data, .dtype = t.dtype, .ld = ld, .transposed = transposed };
}

/* ------------------------------------------------------------------ ceilings */

static void measure_product(perf *p) {
    const int64_t n = p->quick ? 48 : 8192;
    product x = { .m = n, .n = n, .k = n, .a = matrix(perf_tensor(p, n, n, 1), n, false), .b = matrix(perf_tensor(p, n, n, 1), n, true),
                  .y = matrix(perf_tensor(p, n, n, 1), n, false) };
    double flops = 2.0 * (double)n * (double)n * (double)n, burst = perf_measure(p, multiply, &x).seconds, sustained = burst;
    int calls = p->quick ? 1 : (int)(2 / burst);
    mx_status st = { 0 };

    for (int i = 0; i < 2; i++) { /* the second time the chip is warm: what power allows for longer */
        sustained = perf_now();
        for (int c = 0; c < calls; c++) {
            multiply(p, &x);
        }
        if (i == 1 && !p->quick) {
            perf_clocks(p, "under load"); /* most of the queue is still to come */
        }
        if (p->b->sync(p->b, &st)) {
            perf_die("the large product", &st);
        }
        sustained = (perf_now() - sustained) / calls;
    }
    p->product = flops / burst;
    printf("  product %lld^3: %.1f TFLOP/s, for two seconds %.1f\n", (long long)n, p->product / 1e12, flops / sustained / 1e12);
    json_object_set_new(p->report, "product_flops", json_real(p->product));
    json_object_set_new(p->report, "product_flops_sustained", json_real(flops / sustained));
    perf_release(p);
}

typedef struct copy {
    mx_tensor from, to;
    const int32_t *row;
} copy;

static void add(perf *p, void *what) {
    const copy *c = what;

    p->b->ops->add(p->b, c->to, c->to, c->from);
}

static void gather(perf *p, void *what) {
    const copy *c = what;

    p->b->ops->gather_rows(p->b, c->to, c->from, c->row, c->from.dim[0]);
}

/* Two ops that only move: one reads two tensors and writes one, the other reads and writes one. */
static void measure_copy(perf *p) {
    const int64_t rows = p->quick ? 64 : 32768, columns = p->quick ? 64 : 4096;
    mx_rows packed = perf_rows(p, rows, rows, 2);
    copy c = { .from = perf_tensor(p, rows, columns, 1), .to = perf_tensor(p, rows, columns, 1), .row = packed.position };
    double bytes = (double)mx_tensor_bytes(&c.from), added = 3 * bytes / perf_measure(p, add, &c).seconds,
           gathered = 2 * bytes / perf_measure(p, gather, &c).seconds;

    p->copy = added > gathered ? added : gathered;
    printf("  read and written: add %.0f GB/s, gather %.0f GB/s\n", added / 1e9, gathered / 1e9);
    json_object_set_new(p->report, "copy_bytes", json_real(p->copy));
    perf_release(p);
}

void perf_ceilings(perf *p) {
    perf_title("ceilings of this run");
    measure_product(p);
    measure_copy(p);
    perf_save(p);
}

/* ------------------------------------------------------------------ a linear's two products */

typedef struct linear_shape {
    const char *name;
    int64_t out, in;
} linear_shape;

typedef struct extension {
    int64_t columns, padding; /* multiplied along; between the rows, not multiplied */
} extension;

static const extension EXTENSIONS[] = { { 0, 0 }, { 0, 64 }, { 64, 0 }, { 128, 0 }, { 256, 0 } };
enum { EXTENSION_COUNT = sizeof EXTENSIONS / sizeof EXTENSIONS[0], MOST = 256 };

/* One way of a linear, plain and extended; what the extensions cost on a line of their own. */
static void tell_linear(perf *p, const linear_shape *s, int64_t rows, bool backward, mx_tensor x, mx_tensor w, mx_tensor y) {
    double seconds[EXTENSION_COUNT];

    for (int e = 0; e < EXTENSION_COUNT; e++) {
        int64_t more = EXTENSIONS[e].columns, ld = s->in + more + EXTENSIONS[e].padding;
        product forward = { rows, s->out, s->in + more, matrix(x, ld, false), matrix(w, ld, true), matrix(y, s->out, false) };
        product back = { rows, s->in, s->out + more, matrix(y, s->out + more, false), matrix(w, ld, false), matrix(x, s->in, false) };
        product *way = backward ? &back : &forward;
        char name[100], room[20] = "";

        if (more || EXTENSIONS[e].padding) {
            snprintf(room, sizeof room, more ? " +%lld" : " ld +%lld", (long long)(more + EXTENSIONS[e].padding));
        }
        snprintf(name, sizeof name, "%s %s T %lld%s", s->name, backward ? "backward" : "forward", (long long)rows, room);
        seconds[e] = perf_tell(p, "products", name, multiply, way, 2.0 * (double)way->m * (double)way->n * (double)way->k, 0);
    }
    printf("  %46s", "over the plain one:");
    for (int e = 1; e < EXTENSION_COUNT; e++) {
        printf(EXTENSIONS[e].columns ? "  +%lld %.3f" : "  ld +%lld %.3f", (long long)(EXTENSIONS[e].columns + EXTENSIONS[e].padding),
               seconds[e] / seconds[0]);
    }
    printf("\n");
}

static void measure_linear(perf *p, const linear_shape *s) {
    int64_t wide = s->in > s->out ? s->in : s->out;

    if (!perf_wants(p, "products", s->name)) {
        return;
    }
    mx_tensor x = perf_tensor(p, p->rows[0], wide + MOST, 1), w = perf_tensor(p, s->out + MOST, s->in + MOST, 0.02),
              y = perf_tensor(p, p->rows[0], wide + MOST, 1);

    for (int i = 0; i < 2; i++) {
        tell_linear(p, s, p->rows[i], false, x, w, y);
        tell_linear(p, s, p->rows[i], true, x, w, y);
    }
    perf_release(p);
}

/* ------------------------------------------------------------------ thin ones */

/* u = x A^T with so many rows of A, and the gradient of A, a sum over the rows in f32. */
static void measure_thin(perf *p, int64_t rank, int64_t in) {
    int64_t rows = p->rows[0];
    double act = (double)mx_dtype_bytes(p->act), flops = 2.0 * (double)rows * (double)rank * (double)in;
    char name[100];

    snprintf(name, sizeof name, "thin %lld of %lld", (long long)rank, (long long)in);
    if (!perf_wants(p, "products", name)) {
        return;
    }
    mx_tensor x = perf_tensor(p, rows, in, 1), a = perf_tensor(p, rank, in, 0.02), u = perf_tensor(p, rows, rank, 1);
    mx_tensor da = mx_tensor_2d(perf_floats(p, rank * in, 0), MX_F32, rank, in);
    product up = { rows, rank, in, matrix(x, in, false), matrix(a, in, true), matrix(u, rank, false) };
    product gradient = { rank, in, rows, matrix(u, rank, true), matrix(x, in, false), matrix(da, in, false) };
    double moved = act * (double)(rows * in + rows * rank);

    snprintf(name, sizeof name, "thin %lld of %lld, T %lld: x A'", (long long)rank, (long long)in, (long long)rows);
    perf_tell(p, "products", name, multiply, &up, flops, moved + act * (double)(rank * in));
    snprintf(name, sizeof name, "thin %lld of %lld, T %lld: u' x", (long long)rank, (long long)in, (long long)rows);
    perf_tell(p, "products", name, multiply, &gradient, flops, moved + 4.0 * (double)(rank * in));
    perf_release(p);
}

void perf_products(perf *p) {
    const perf_shape *s = &p->shape[0];
    const int64_t wide = s->heads * s->head_dim, narrow = s->kv_heads * s->head_dim;
    const linear_shape linears[] = {
        { "q,k,v", wide + 2 * narrow, s->hidden }, { "o", s->hidden, wide },      { "gate,up", 2 * s->inner, s->hidden },
        { "down", s->hidden, s->inner },           { "head", s->vocab, s->hidden },
    };
    static const int64_t RANKS[] = { 16, 48, 128, 264 };

    perf_title("products, against this run's largest");
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        measure_linear(p, &linears[i]);
    }
    for (size_t i = 0; i < sizeof RANKS / sizeof RANKS[0]; i++) {
        measure_thin(p, RANKS[i], s->hidden);
    }
    perf_save(p);
}
