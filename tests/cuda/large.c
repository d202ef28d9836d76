/* Tensors of more than 2^31 values: what ops do with their last rows is what they do with these rows alone, to the bit.
 *
 * On the shim the ops that touch few rows only (its threads would take hours for the rest); compiled with EVERY_VALUE, for a GPU
 * with 32 GB free, those that touch all as well. */
#include "tests/kernels/kit.h"

#include <sys/mman.h>

#ifndef ROWS
#define ROWS (((int64_t)1 << 31) / WIDTH + 3)
#endif
enum { WIDTH = 4096, TAIL = 5 };

static mx_backend *open_device(void) {
    mx_backend_options o = { .device = KIT_DEVICE, .precision = MX_PRECISION_BF16, .threads = 1 };
    mx_backend *b = NULL;
    mx_status st = { 0 };

    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    return b;
}

static void *row_of(const mx_tensor *t, int64_t row) {
    return (uint16_t *)t->data + row * WIDTH;
}

static void *bytes_on(mx_backend *b, size_t bytes) {
    void *p = NULL;
    mx_status st = { 0 };

    cr_assert_eq(b->alloc(b, MX_MEMORY_SAVED, bytes, &p, &st), MX_OK, "%s", st.text);
    return p;
}

/* Zeros, and `tail` (TAIL rows) at the end. */
static mx_tensor tensor_on(mx_backend *b, int64_t rows, const uint16_t *tail) {
    mx_tensor t = mx_tensor_2d(bytes_on(b, (size_t)(rows * WIDTH) * sizeof *tail), MX_BF16, rows, WIDTH);

    if (tail) {
        b->write(b, row_of(&t, rows - TAIL), tail, TAIL * WIDTH * sizeof *tail);
    }
    return t;
}

static uint16_t *values(const char *name) {
    uint16_t *p = kit_hold(malloc(TAIL * WIDTH * sizeof *p));
    mx_rng r;

    mx_rng_init(&r, 7, name);
    for (int64_t i = 0; i < TAIL * WIDTH; i++) {
        float v = (float)kit_coarse(2 * mx_rng_uniform(&r) - 1);
        uint32_t bits;

        memcpy(&bits, &v, sizeof bits);
        p[i] = (uint16_t)(bits >> 16);
    }
    return p;
}

static void same_row(mx_backend *b, const mx_tensor *t, int64_t row, const uint16_t *expected, const char *what) {
    uint16_t got[WIDTH];

    b->read(b, got, row_of(t, row), sizeof got);
    for (int64_t i = 0; i < WIDTH; i++) {
        cr_assert_eq(got[i], expected[i], "%s: row %lld, column %lld: %04x instead of %04x", what, (long long)row, (long long)i, got[i],
                     expected[i]);
    }
}

static int32_t *rows_on(mx_backend *b, const int32_t *row, int64_t n) {
    int32_t *p = bytes_on(b, sizeof *p * (size_t)n);

    b->write(b, p, row, sizeof *p * (size_t)n);
    return p;
}

Test(large, rows_are_gathered_from_the_end_and_scattered_there) {
    static const uint16_t zero[WIDTH];
    mx_backend *b = open_device();
    uint16_t *x = values("x");
    const int32_t row[] = { (int32_t)ROWS - 1, 0, (int32_t)ROWS - TAIL };
    int32_t *index = rows_on(b, row, 3);
    mx_tensor large = tensor_on(b, ROWS, x), few = mx_tensor_2d(bytes_on(b, 3 * WIDTH * 2), MX_BF16, 3, WIDTH);
    const float ones[] = { 1, 1, 1 };
    float *scale = bytes_on(b, sizeof ones);

    b->ops->gather_rows(b, few, large, index, 3);
    same_row(b, &few, 0, x + (TAIL - 1) * WIDTH, "gathered");
    same_row(b, &few, 1, zero, "gathered");
    same_row(b, &few, 2, x, "gathered");

    b->write(b, scale, ones, sizeof ones);
    b->ops->scatter_rows(b, large, few, scale, index, 3);
    same_row(b, &large, ROWS - 1, x + (TAIL - 1) * WIDTH, "scattered");
    same_row(b, &large, ROWS - TAIL, x, "scattered");
    same_row(b, &large, ROWS - 2, zero, "where nothing is scattered to");
    same_row(b, &large, 0, zero, "scattered");
    kit_sync(b);
    b->close(b);
}

Test(large, a_vocabulary_is_read_at_its_end) {
    mx_backend *b = open_device();
    uint16_t *x = values("table");
    size_t bytes = (size_t)(ROWS * WIDTH) * sizeof *x;
    uint16_t *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const int32_t tokens[] = { (int32_t)ROWS - 1, (int32_t)ROWS - TAIL };
    mx_rows rows = { .rows = 2, .live = 2, .token = rows_on(b, tokens, 2) };
    mx_tensor y = mx_tensor_2d(bytes_on(b, 2 * WIDTH * 2), MX_BF16, 2, WIDTH);
    mx_weight *w = NULL;
    mx_status st = { 0 };

    cr_assert(table != MAP_FAILED);
    memcpy(table + (ROWS - TAIL) * WIDTH, x, TAIL * WIDTH * sizeof *x);
    mx_weight_source source = { .type = MX_FILE_BF16, .bytes = table, .out = ROWS, .in = WIDTH };

    cr_assert_eq(mx_weight_open(b, &source, MX_USE_EMBEDDING, &w, &st), MX_OK, "%s", st.text);
    b->ops->embed(b, y, w, &rows);
    same_row(b, &y, 0, x + (TAIL - 1) * WIDTH, "embedded");
    same_row(b, &y, 1, x, "embedded");
    kit_sync(b);
    b->weight_close(b, w);
    b->close(b);
    munmap(table, bytes);
}

#ifdef EVERY_VALUE
/* The last rows of `large` are the rows of `alone`. */
static void same_tail(mx_backend *b, const mx_tensor *large, const mx_tensor *alone, const char *what) {
    uint16_t row[WIDTH];

    for (int64_t i = 0; i < TAIL; i++) {
        b->read(b, row, row_of(alone, i), sizeof row);
        same_row(b, large, large->dim[0] - TAIL + i, row, what);
    }
}

typedef struct pair {
    mx_tensor large, alone;
} pair;

static pair pair_on(mx_backend *b, const char *name) {
    uint16_t *tail = name ? values(name) : NULL;

    return (pair){ tensor_on(b, ROWS, tail), tensor_on(b, TAIL, tail) };
}

static void pair_drop(mx_backend *b, pair p) {
    b->release(b, MX_MEMORY_SAVED, p.large.data);
    b->release(b, MX_MEMORY_SAVED, p.alone.data);
}

Test(large, elements_and_norms_reach_the_end) {
    mx_backend *b = open_device();
    pair g = pair_on(b, "g"), u = pair_on(b, "u"), h = pair_on(b, NULL);
    float w[WIDTH], *weight = bytes_on(b, sizeof w), *rstd = bytes_on(b, sizeof *rstd * (size_t)ROWS);
    float *rstd_alone = bytes_on(b, sizeof *rstd * TAIL);

    for (int i = 0; i < WIDTH; i++) {
        w[i] = 1 + (float)(i % 7) / 8;
    }
    b->write(b, weight, w, sizeof w);
    b->ops->swiglu_forward(b, h.large, g.large, u.large);
    b->ops->swiglu_forward(b, h.alone, g.alone, u.alone);
    same_tail(b, &h.large, &h.alone, "SwiGLU");
    b->ops->add(b, h.large, g.large, u.large);
    b->ops->add(b, h.alone, g.alone, u.alone);
    same_tail(b, &h.large, &h.alone, "sum");
    b->ops->rmsnorm_forward(b, h.large, rstd, g.large, weight, 1e-5f);
    b->ops->rmsnorm_forward(b, h.alone, rstd_alone, g.alone, weight, 1e-5f);
    same_tail(b, &h.large, &h.alone, "RMSNorm");
    b->ops->rmsnorm_backward(b, h.large, u.large, g.large, rstd, weight);
    b->ops->rmsnorm_backward(b, h.alone, u.alone, g.alone, rstd_alone, weight);
    same_tail(b, &h.large, &h.alone, "RMSNorm's gradient");
    kit_sync(b);
    pair_drop(b, g);
    pair_drop(b, u);
    pair_drop(b, h);
    b->close(b);
}

Test(large, heads_are_rotated_to_the_end) {
    enum { HEAD_DIM = 128 };
    mx_backend *b = open_device();
    pair x = pair_on(b, "x");
    int32_t *position = kit_hold(calloc((size_t)ROWS, sizeof *position));
    float inverse[HEAD_DIM / 2], *frequency = bytes_on(b, sizeof inverse);

    for (int i = 0; i < TAIL; i++) {
        position[ROWS - TAIL + i] = 100 + i;
    }
    for (int i = 0; i < HEAD_DIM / 2; i++) {
        inverse[i] = (float)pow(10000, -2.0 * i / HEAD_DIM);
    }
    b->write(b, frequency, inverse, sizeof inverse);
    mx_rows all = { .rows = ROWS, .live = ROWS, .position = rows_on(b, position, ROWS) };
    mx_rows few = { .rows = TAIL, .live = TAIL, .position = rows_on(b, position + ROWS - TAIL, TAIL) };

    b->ops->rope(b, x.large, WIDTH / HEAD_DIM, HEAD_DIM, &all, frequency, false);
    b->ops->rope(b, x.alone, WIDTH / HEAD_DIM, HEAD_DIM, &few, frequency, false);
    same_tail(b, &x.large, &x.alone, "rotated");
    kit_sync(b);
    pair_drop(b, x);
    b->close(b);
}
#endif
