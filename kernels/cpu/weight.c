/* weight.c - a frozen matrix: read once from a file's bytes, row-major in the activations' type.
 *
 * One copy serves both directions. oneDNN's own layouts were measured (2 cores with AMX, 2,000 rows, the shapes of a
 * 135 M model): 3 to 10 % faster forward, up to 40 % backward, but each direction wants its own, so twice the
 * memory of the base; a MixLoRA run would no longer fit in 1.6 GiB. */
#include "kernels/cpu/backend.h"

#include <stdlib.h>

size_t mx_cpu_weights_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use) {
    size_t bytes = 0;

    (void)room; /* a product with low-rank terms copies its factors: linears.c */
    (void)use;
    for (int i = 0; i < count; i++) {
        bytes += (size_t)from[i].out * (size_t)from[i].in * mx_dtype_bytes(mx_activation_type(b));
    }
    return bytes;
}

size_t mx_cpu_weights_shared_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room,
                                   unsigned use) {
    (void)b;
    (void)from;
    (void)count;
    (void)room;
    (void)use;
    return 0;
}

/* Stored row 2i + h of a head of D rows is row i + h D/2 (convert_hf_to_gguf.py, LlamaModel.permute). */
static int64_t hf_row(int64_t stored, int64_t head_rows) {
    int64_t head = stored / head_rows, within = stored % head_rows;

    return head * head_rows + within / 2 + (within % 2) * (head_rows / 2);
}

MX_CLONES static bool all_finite(const float *x, int64_t n) {
    uint32_t worst = 0;

    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7f800000u;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7f800000u;
}

/* Reads all rows; the first row with a value that is not finite (after rounding), or -1. */
static int64_t read_rows(mx_weight *w, const mx_weight_source *from, float *row_of_thread) {
    size_t row_bytes = mx_file_type_row_bytes(from->type, from->in), held = mx_dtype_bytes(w->dtype);
    int64_t head_rows = from->unpermute_heads > 0 ? from->out / from->unpermute_heads : 0, bad = INT64_MAX;

#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t o = 0; o < from->out; o++) {
        float *row = row_of_thread + (int64_t)mx_cpu_thread() * from->in;
        char *to = (char *)w->rows + (size_t)(head_rows ? hf_row(o, head_rows) : o) * (size_t)from->in * held;

        mx_file_type_decode(from->type, (const char *)from->bytes + (size_t)o * row_bytes, from->in, row);
        mx_values_convert(to, w->dtype, row, MX_F32, from->in);
        mx_values_convert(row, MX_F32, to, w->dtype, from->in);
        if (!all_finite(row, from->in) && o < bad) {
            bad = o;
        }
    }
    return bad == INT64_MAX ? -1 : bad;
}

static mx_code open_one(mx_backend *b, const mx_weight_source *from, mx_weight **ret, mx_status *st) {
    mx_cpu *cpu = mx_cpu_of(b);
    mx_weight *w = NULL;
    float *row_of_thread = NULL;
    size_t values, bytes;
    mx_code code = MX_OK;

    *ret = NULL;
    assert(from->out > 0 && mx_file_type_row_bytes(from->type, from->in) > 0);
    assert(from->unpermute_heads <= 0 || from->out % (2 * from->unpermute_heads) == 0);
    if (__builtin_mul_overflow((size_t)from->out, (size_t)from->in, &values) ||
        __builtin_mul_overflow(values, mx_dtype_bytes(mx_activation_type(b)), &bytes)) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "a matrix of %lld x %lld does not fit in memory",
                       (long long)from->out, (long long)from->in);
    }
    w = calloc(1, sizeof *w);
    row_of_thread = malloc(sizeof *row_of_thread * (size_t)from->in * (size_t)cpu->threads);
    if (!w || !row_of_thread) {
        code = mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory to read a matrix of %lld x %lld",
                       (long long)from->out, (long long)from->in);
        goto done;
    }
    *w = (mx_weight){ .out = from->out, .in = from->in, .dtype = mx_activation_type(b), .bytes = bytes };
    code = b->alloc(b, MX_MEMORY_WEIGHTS, bytes, &w->rows, st);
    if (code) {
        goto done;
    }

    int64_t bad = read_rows(w, from, row_of_thread);

    if (bad >= 0) {
        code = mx_fail(st, MX_E_DATA, MX_NOWHERE, "row %lld of the matrix holds a value that is not finite%s",
                       (long long)bad, w->dtype == MX_BF16 ? " (in bf16)" : "");
    }
done:
    free(row_of_thread);
    if (code) {
        mx_cpu_weight_close(b, w);
        w = NULL;
    }
    *ret = w;
    return code;
}

mx_code mx_cpu_weights_open(mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use,
                            mx_weight **ret, mx_status *st) {
    (void)room;
    (void)use; /* row-major serves a product and a look-up alike */
    for (int i = 0; i < count; i++) {
        mx_code code = open_one(b, &from[i], &ret[i], st);

        if (code) {
            while (i-- > 0) {
                mx_cpu_weight_close(b, ret[i]);
                ret[i] = NULL;
            }
            return code;
        }
    }
    return MX_OK;
}

void mx_cpu_weight_close(mx_backend *b, mx_weight *w) {
    if (w) {
        b->release(b, MX_MEMORY_WEIGHTS, w->rows);
        free(w);
    }
}

void mx_weight_gemm(mx_cpu *cpu, const mx_weight *w, bool backward, int64_t rows, mx_factor x, mx_product y, bool add) {
    mx_factor b = backward ? mx_factor_of(w->rows, w->dtype, w->in) : mx_factor_transposed(w->rows, w->dtype, w->in);

    if (backward) {
        mx_gemm(cpu, rows, w->in, w->out, x, b, y, add);
    } else {
        mx_gemm(cpu, rows, w->out, w->in, x, b, y, add);
    }
}
