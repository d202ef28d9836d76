/* linears_input.c - the last step of the linears' backward pass: the input's gradient.
 *
 *   dx = (dx +) sum over linears of dz W + mask . (p A)
 *
 * p A is as large as dx and its product thin (the rank), so it would be written, read, masked and added through memory
 * for longer than it takes to compute. Here 32 rows by 64 columns of it live and die in the first cache. Measured in
 * bf16 on one core, T 2048, rank 80, 1536 columns: 1.9 ms, by products of their own 6.5. */
#include "kernels/cpu/linears.h"

typedef struct strip {
    float low[MX_TILE_ROWS * MX_TILE_COLUMNS]; /* p A of 32 rows */
} strip;

static int64_t strips_of(const mx_linears *l) {
    return (l->in + MX_TILE_COLUMNS - 1) / MX_TILE_COLUMNS;
}

/* The depths of the groups whose first term comes before `index`'s group. */
static int64_t depth_before(const mx_linears *l, mx_dtype act, int64_t index) {
    int64_t count = mx_terms_count(l), sum = 0, column;
    bool first;
    mx_term_group self = index < count ? mx_terms_group(l, index, &first, &column) : (mx_term_group){ .begin = -1 };

    for (int64_t i = 0; i < count; i++) {
        mx_term_group g = mx_terms_group(l, i, &first, &column);

        if (g.begin == self.begin && g.end == self.end) {
            break;
        }
        sum += first ? mx_input_depth(act, &g) : 0;
    }
    return sum;
}

static int64_t padded_rows(const mx_linears *l) {
    return mx_tile_up(l->rows->rows, MX_TILE_ROWS);
}

size_t mx_input_p_offset(const mx_linears *l, mx_dtype act, int64_t index) {
    return (size_t)(padded_rows(l) * depth_before(l, act, index)) * mx_dtype_bytes(act);
}

size_t mx_input_p_bytes(const mx_linears *l, mx_dtype act) {
    return mx_input_p_offset(l, act, mx_terms_count(l));
}

static size_t packed_offset(const mx_linears *l, mx_dtype act, int64_t index) {
    return mx_tile_packed_bytes(act, depth_before(l, act, index), strips_of(l) * MX_TILE_COLUMNS);
}

/* All groups' A, packed strip by strip; and room for one strip's A's stacked in f32, for each strip. */
static size_t stacked_bytes(const mx_linears *l) {
    return sizeof(float) * (size_t)(mx_terms_rank(l) * strips_of(l) * MX_TILE_COLUMNS);
}

size_t mx_input_packed_bytes(const mx_linears *l, mx_dtype act) {
    return packed_offset(l, act, mx_terms_count(l)) + stacked_bytes(l);
}

/* One group's A of strip k: its terms' rows under one another, then packed. */
static void pack_strip(const mx_linears *l, mx_dtype act, const mx_term_group *g, int64_t k, float *stacked, void *to) {
    int64_t count = mx_terms_count(l), begin = k * MX_TILE_COLUMNS, depth = mx_input_depth(act, g);
    int64_t columns = l->in - begin < MX_TILE_COLUMNS ? l->in - begin : MX_TILE_COLUMNS, line = 0;

    for (int64_t i = 0; i < count; i++) {
        const mx_low_rank *t = mx_terms_at(l, i);

        for (int64_t r = 0; mx_term_in(l, t, g) && r < t->rank; r++) {
            memcpy(stacked + line++ * MX_TILE_COLUMNS, t->a + r * l->in + begin, sizeof *stacked * (size_t)columns);
        }
    }
    mx_tile_pack(act, to, depth, MX_TILE_COLUMNS, stacked, g->rank, columns, MX_TILE_COLUMNS, 1, 1.0f);
}

static void pack_all(const mx_linears *l, mx_dtype act, char *packed) {
    int64_t count = mx_terms_count(l), strips = strips_of(l), column;
    float *stacked = (float *)(packed + packed_offset(l, act, count));
    bool first;

    for (int64_t i = 0; i < count; i++) {
        mx_term_group g = mx_terms_group(l, i, &first, &column);
        size_t each = mx_tile_packed_bytes(act, mx_input_depth(act, &g), MX_TILE_COLUMNS);
        char *to = packed + packed_offset(l, act, i);

        if (!first) {
            continue;
        }
#pragma omp parallel for schedule(static)
        for (int64_t k = 0; k < strips; k++) {
            pack_strip(l, act, &g, k, stacked + k * mx_terms_rank(l) * MX_TILE_COLUMNS, to + (size_t)k * each);
        }
    }
}

/* p A of rows [row, row + 32) and strip k, summed over the groups that reach them. False when none does. */
static bool multiply(mx_tile_kind kind, const mx_linears *l, mx_dtype act, const char *p, const char *packed, int64_t row,
                     int64_t k, strip *s) {
    int64_t count = mx_terms_count(l), column;
    bool first, any = false;

    for (int64_t i = 0; i < count; i++) {
        mx_term_group g = mx_terms_group(l, i, &first, &column);
        int64_t depth = mx_input_depth(act, &g);

        if (!first || g.rank == 0 || g.end <= row || g.begin >= row + MX_TILE_ROWS) {
            continue;
        }
        mx_tile_product(kind, s->low, MX_TILE_COLUMNS,
                        p + mx_input_p_offset(l, act, i) + (size_t)(row * depth) * mx_dtype_bytes(act), depth,
                        packed + packed_offset(l, act, i) + (size_t)k * mx_tile_packed_bytes(act, depth, MX_TILE_COLUMNS),
                        MX_TILE_ROWS, MX_TILE_COLUMNS, depth, any);
        any = true;
    }
    return any;
}

MX_CLONES static void round_sum(uint16_t *to, const float *sum, const float *low, int64_t n, bool add) {
    if (add) {
        for (int64_t i = 0; i < n; i++) {
            to[i] = mx_bf16_round(mx_bf16_widen(to[i]) + sum[i] + low[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            to[i] = mx_bf16_round(sum[i] + low[i]);
        }
    }
}

MX_CLONES static void add_values(float *to, const float *low, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] += low[i];
    }
}

/* Rows [row, row + count), columns [begin, begin + n). The factor 1 / (1 - rate) is in p, so the mask only selects. */
static void finish_strip(const mx_linears *l, const float *sum, const uint8_t *bits, strip *s, int64_t row, int64_t count,
                         int64_t begin, int64_t n) {
    for (int64_t i = 0; i < count; i++) {
        char *to = (char *)mx_row_of(&l->dx, row + i) + (size_t)begin * mx_dtype_bytes(l->dx.dtype);
        float *low = s->low + i * MX_TILE_COLUMNS;

        if (bits) {
            mx_mask_row(bits + (row + i) * mx_dropout_row_bytes(l->in) + begin / 8, low, low, MX_F32, n);
        }
        if (l->dx.dtype == MX_BF16) {
            round_sum((uint16_t *)to, sum + (row + i) * l->in + begin, low, n, l->dx_adds);
        } else {
            add_values((float *)to, low, n);
        }
    }
}

static void finish_rows(mx_tile_kind kind, const mx_linears *l, const float *sum, const uint8_t *bits, const char *p,
                        const char *packed, int64_t row, strip *s) {
    int64_t count = l->rows->rows - row < MX_TILE_ROWS ? l->rows->rows - row : MX_TILE_ROWS;

    for (int64_t k = 0; k < strips_of(l); k++) {
        int64_t begin = k * MX_TILE_COLUMNS, n = l->in - begin < MX_TILE_COLUMNS ? l->in - begin : MX_TILE_COLUMNS;

        if (!p || !multiply(kind, l, l->dx.dtype, p, packed, row, k, s)) {
            if (l->dx.dtype == MX_F32) {
                continue;
            }
            memset(s, 0, sizeof *s);
        }
        finish_strip(l, sum, bits, s, row, count, begin, n);
    }
}

void mx_input_finish(mx_cpu *cpu, const mx_linears *l, const float *sum, const uint8_t *bits, const char *p, void *packed) {
    mx_dtype act = l->dx.dtype;
    mx_tile_kind kind = mx_tile_choose(act, cpu->plain_gemm);

    if (p) {
        pack_all(l, act, packed);
    } else if (act == MX_F32) {
        return;
    }
#pragma omp parallel
    {
        _Alignas(64) strip s;

        mx_tile_begin(kind);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < l->rows->rows; row += MX_TILE_ROWS) {
            finish_rows(kind, l, sum, p ? bits : NULL, p, packed, row, &s);
        }
        mx_tile_end(kind);
    }
}
