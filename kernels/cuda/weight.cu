/* weight.cu - frozen matrices on the device.
 *
 * F32, F16 and BF16 become one dense matrix of activations when a group is opened: the file's bytes go up in pieces and are
 * converted and checked there. A group with a quantised matrix stays as the file has it, and each product first expands it
 * into a buffer that all such groups share: a 7B base in Q4_0 is 4 GB and needs 0.2 GB more, not 13. Expanding costs one pass
 * over the dense matrix, 2 bytes written for each value, against two FLOP for each value and row of the product behind it.
 *
 * Values are those of mx_file_type_decode to the bit (q d is exact in f32, so a fused multiply-add changes nothing), then
 * rounded once to the activations' type. */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/values.h"

#include <new>

static const mx_mark nowhere = {};

enum { BLOCK = 32 /* values of a quantised block */, PADDING = 64 };

static int64_t padded(int64_t n) {
    return (n + PADDING - 1) / PADDING * PADDING;
}
static bool in_blocks(mx_file_type type) {
    return mx_file_type_row_bytes(type, 1) == 0;
}

/* ------------------------------------------------------------------ decoding: file_type.c's formulas */

/* Device memory is aligned, and all blocks have an even number of bytes. */
MX_DEVICE uint32_t two_bytes(const unsigned char *p) {
    return *reinterpret_cast<const uint16_t *>(p);
}
MX_DEVICE float of_bits(uint32_t bits) {
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}
MX_DEVICE float of_half(uint32_t h) {
    uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, fraction = h & 0x3ffu;

    if (exponent == 0) {
        float magnitude = (float)fraction * 5.9604644775390625e-8f; /* 2^-24 */

        return sign ? -magnitude : magnitude;
    }
    return of_bits(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13);
}

/* Values `at`..`at` + 7 of a block, `at` a multiple of 8. `q`: its nibbles, low halves first; `fifth`: the fifth bits;
 * `below`: what the stored integers are above their meaning. */
MX_DEVICE void decode_nibbles(float v[8], const unsigned char *q, uint32_t fifth, int below, float d, float m, int at) {
    int shift = at < BLOCK / 2 ? 0 : 4;

#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        uint32_t pair = two_bytes(q + at % (BLOCK / 2) + j) >> shift, bits = fifth >> (at + j);
        int low = (int)(pair & 15u) | (int)(bits & 1u) << 4, high = (int)(pair >> 8 & 15u) | (int)(bits >> 1 & 1u) << 4;

        v[j] = (float)(low - below) * d + m;
        v[j + 1] = (float)(high - below) * d + m;
    }
}

MX_DEVICE void decode_block(float v[8], mx_file_type type, const unsigned char *b, int at) {
    float d = of_half(two_bytes(b));

    switch (type) {
    case MX_FILE_Q4_0:
        decode_nibbles(v, b + 2, 0, 8, d, -0.0f, at);
        return;
    case MX_FILE_Q4_1:
        decode_nibbles(v, b + 4, 0, 0, d, of_half(two_bytes(b + 2)), at);
        return;
    case MX_FILE_Q5_0:
        decode_nibbles(v, b + 6, two_bytes(b + 2) | two_bytes(b + 4) << 16, 16, d, -0.0f, at);
        return;
    case MX_FILE_Q5_1:
        decode_nibbles(v, b + 8, two_bytes(b + 4) | two_bytes(b + 6) << 16, 0, d, of_half(two_bytes(b + 2)), at);
        return;
    default: /* Q8_0 */
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            uint32_t pair = two_bytes(b + 2 + at + j);

            v[j] = (float)(int8_t)(pair & 0xffu) * d;
            v[j + 1] = (float)(int8_t)(pair >> 8) * d;
        }
    }
}

/* One value of a type that has no blocks. */
MX_DEVICE float decode_one(mx_file_type type, const unsigned char *values, int64_t i) {
    if (type == MX_FILE_F32) {
        return reinterpret_cast<const float *>(values)[i];
    }
    uint32_t bits = reinterpret_cast<const uint16_t *>(values)[i];

    return type == MX_FILE_F16 ? of_half(bits) : of_bits(bits << 16);
}

/* A matrix as the file has it, in device memory. */
struct stored {
    const unsigned char *bytes;
    int64_t row_bytes, out, in;
    int64_t head_rows; /* of a head whose rows are to be put back in order; 0: they lie in order */
    mx_file_type type;
    int block_bytes;   /* 0: no blocks */
};

/* Values `column`.. + 7 of a stored row, zeros past the row's end. `column` is a multiple of 8. */
MX_DEVICE void decode8(float v[8], const stored &s, int64_t row, int64_t column) {
    const unsigned char *bytes = s.bytes + row * s.row_bytes;

    if (column < s.in && s.block_bytes) {
        decode_block(v, s.type, bytes + column / BLOCK * s.block_bytes, (int)(column % BLOCK));
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        v[j] = column + j < s.in ? decode_one(s.type, bytes, column + j) : 0.0f;
    }
}

/* Where row `row` of the Hugging Face layout is stored: row i + h D/2 of a head at 2i + h. */
MX_DEVICE int64_t stored_row(const stored &s, int64_t row) {
    if (s.head_rows == 0) {
        return row;
    }
    int64_t within = row % s.head_rows, half = s.head_rows / 2;

    return row - within + 2 * (within % half) + within / half;
}
/* And the other way: hf_row of cpu/weight.c. */
MX_DEVICE int64_t ordered_row(int64_t head_rows, int64_t row) {
    if (head_rows == 0) {
        return row;
    }
    int64_t within = row % head_rows;

    return row - within + within / 2 + within % 2 * (head_rows / 2);
}

static stored stored_of(const mx_cuda_weights *g, int part) {
    stored s = {};

    s.bytes = static_cast<const unsigned char *>(g->raw[part]);
    s.type = g->type[part];
    s.out = g->part_out[part];
    s.in = g->in;
    s.row_bytes = (int64_t)mx_file_type_row_bytes(s.type, g->in);
    s.head_rows = g->unpermute_heads[part] > 0 ? s.out / g->unpermute_heads[part] : 0;
    s.block_bytes = in_blocks(s.type) ? (int)mx_file_type_row_bytes(s.type, BLOCK) : 0;
    return s;
}

/* ------------------------------------------------------------------ opening: dense */

template <class T> MX_DEVICE bool finite_as(float v) {
    float rounded = mx_float(mx_rounded<T>(v));
    uint32_t bits;

    memcpy(&bits, &rounded, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* `count` values from `first` on of a matrix (out, in), in order of the file, to where they belong; *bad: the least stored row
 * with one that is not finite. A thread's values are strided, so that a warp reads and writes neighbours. */
template <class T>
static __global__ void convert_kernel(T *to, int64_t ld, const unsigned char *bytes, mx_file_type type, int64_t first, int64_t count,
                                      int64_t in, int64_t head_rows, unsigned long long *bad) {
    int64_t stride = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        int64_t row = (first + i) / in, column = (first + i) % in;
        float v = decode_one(type, bytes, i);

        if (!finite_as<T>(v)) {
            atomicMin(bad, (unsigned long long)row);
        }
        to[ordered_row(head_rows, row) * ld + column] = mx_rounded<T>(v);
    }
}

static void convert(mx_cuda *c, void *to, int64_t ld, const void *bytes, const mx_weight_source *from, int64_t first, int64_t count) {
    int64_t head_rows = from->unpermute_heads > 0 ? from->out / from->unpermute_heads : 0;
    unsigned long long *bad = reinterpret_cast<unsigned long long *>(c->partials);
    unsigned blocks = mx_blocks(count, 256 * 8);
    const unsigned char *raw = static_cast<const unsigned char *>(bytes);

    if (mx_cuda_bf16(c)) {
        mx_launch(c, "convert a weight", convert_kernel<mx_bf16>, dim3(blocks), dim3(256), 0, static_cast<mx_bf16 *>(to), ld, raw,
                  from->type, first, count, from->in, head_rows, bad);
    } else {
        mx_launch(c, "convert a weight", convert_kernel<float>, dim3(blocks), dim3(256), 0, static_cast<float *>(to), ld, raw, from->type,
                  first, count, from->in, head_rows, bad);
    }
}

/* In pieces through the products' workspace: no product runs while weights are opened, and work is queued in order. */
static void fill_dense(mx_cuda *c, void *to, int64_t ld, const mx_weight_source *from) {
    size_t size = mx_file_type_row_bytes(from->type, 1), room;
    void *piece = mx_cuda_gemm_workspace(c, &room);
    int64_t values = from->out * from->in, most = (int64_t)(room / size);

    for (int64_t first = 0; first < values; first += most) {
        int64_t count = values - first < most ? values - first : most;

        c->base.write(&c->base, piece, static_cast<const char *>(from->bytes) + (size_t)first * size, (size_t)count * size);
        convert(c, to, ld, piece, from, first, count);
    }
}

/* ------------------------------------------------------------------ opening: as the file has it */

template <class T> static __global__ void check_kernel(stored s, unsigned chunks, unsigned long long *bad) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks);
    float v[8];
    bool fine = true;

    if (row < s.out && column < s.in) {
        decode8(v, s, row, column);
        for (int j = 0; j < 8; j++) {
            fine = fine && finite_as<T>(v[j]);
        }
        if (!fine) {
            atomicMin(bad, (unsigned long long)row);
        }
    }
}

static void check_values(mx_cuda *c, const stored &s) {
    mx_plane p = mx_plane_of(s.out, s.in);
    unsigned long long *bad = reinterpret_cast<unsigned long long *>(c->partials);

    if (mx_cuda_bf16(c)) {
        mx_launch(c, "check a weight", check_kernel<mx_bf16>, p.grid, p.block, 0, s, p.chunks, bad);
    } else {
        mx_launch(c, "check a weight", check_kernel<float>, p.grid, p.block, 0, s, p.chunks, bad);
    }
}

/* ------------------------------------------------------------------ sizes */

static bool stays_quantised(const mx_weight_source *from, int count) {
    for (int i = 0; i < count; i++) {
        if (in_blocks(from[i].type)) {
            return true;
        }
    }
    return false;
}

/* The group's shape; false when a size does not fit in memory's count. */
static bool shape_of(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, mx_cuda_weights *ret,
                     size_t *ret_dense_bytes, size_t *ret_raw_bytes) {
    bool overflow = false;

    memset(ret, 0, sizeof *ret);
    *ret_raw_bytes = 0;
    ret->in = from[0].in;
    ret->room = mx_weight_room{ padded(room.columns), padded(room.rows) };
    ret->dtype = mx_activation_type(b);
    ret->parts = ret->open = count;
    for (int i = 0; i < count; i++) {
        size_t raw;

        assert(from[i].in == ret->in && from[i].out > 0);
        assert(from[i].unpermute_heads <= 0 || from[i].out % (2 * from[i].unpermute_heads) == 0);
        ret->type[i] = from[i].type;
        ret->part_out[i] = from[i].out;
        ret->unpermute_heads[i] = from[i].unpermute_heads;
        overflow = overflow || __builtin_add_overflow(ret->out, from[i].out, &ret->out);
        overflow = overflow || __builtin_mul_overflow(mx_file_type_row_bytes(from[i].type, from[i].in), (size_t)from[i].out, &raw);
        overflow = overflow || __builtin_add_overflow(*ret_raw_bytes, raw, ret_raw_bytes);
    }
    ret->ld = padded(ret->in + ret->room.columns);
    ret->rows = ret->out + ret->room.rows;
    overflow = overflow || __builtin_mul_overflow((size_t)ret->ld * mx_dtype_bytes(ret->dtype), (size_t)ret->rows, ret_dense_bytes);
    return !overflow;
}

size_t mx_cuda_weights_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use) {
    mx_cuda_weights g;
    size_t dense, raw;

    (void)use;
    if (!shape_of(b, from, count, room, &g, &dense, &raw)) {
        return SIZE_MAX / 4;
    }
    return stays_quantised(from, count) ? raw : dense;
}

size_t mx_cuda_weights_shared_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use) {
    mx_cuda_weights g;
    size_t dense, raw;

    if (!(use & MX_USE_LINEAR) || !stays_quantised(from, count)) {
        return 0;
    }
    return shape_of(b, from, count, room, &g, &dense, &raw) ? dense : SIZE_MAX / 4;
}

/* ------------------------------------------------------------------ opening and closing */

/* The shared buffer lies in no arena: it grows a few times while a model is opened, and the smaller ones are to be gone. It is
 * taken as scratch and counted as weights. */
static mx_code grow_expanded(mx_cuda *c, size_t bytes, mx_status *st) {
    void *larger;

    if (bytes <= c->expanded_bytes) {
        return MX_OK;
    }
    c->base.release(&c->base, MX_MEMORY_WEIGHTS, c->expanded);
    c->expanded = NULL;
    c->expanded_bytes = 0;
    MX_TRY(c->base.alloc(&c->base, MX_MEMORY_SCRATCH, bytes, &larger, st));
    c->used[MX_MEMORY_SCRATCH] -= bytes;
    c->used[MX_MEMORY_WEIGHTS] += bytes;
    c->expanded = larger;
    c->expanded_bytes = bytes;
    return MX_OK;
}

static void drop_expanded(mx_cuda *c) {
    c->base.release(&c->base, MX_MEMORY_WEIGHTS, c->expanded);
    c->expanded = NULL;
    c->expanded_bytes = 0;
}

static void free_group(mx_cuda *c, mx_cuda_weights *g) {
    c->base.release(&c->base, MX_MEMORY_WEIGHTS, g->dense);
    for (int i = 0; i < MX_WEIGHT_GROUP; i++) {
        c->base.release(&c->base, MX_MEMORY_WEIGHTS, g->raw[i]);
    }
    if (g->expands && --c->expanding == 0) {
        drop_expanded(c);
    }
    free(g);
}

/* Memory for the group's values, and where they go. */
static mx_code take_memory(mx_cuda *c, mx_cuda_weights *g, bool quantised, size_t dense_bytes, unsigned use, mx_status *st) {
    if (!quantised) {
        g->bytes = dense_bytes;
        return c->base.alloc(&c->base, MX_MEMORY_WEIGHTS, dense_bytes, &g->dense, st);
    }
    for (int i = 0; i < g->parts; i++) {
        size_t bytes = mx_file_type_row_bytes(g->type[i], g->in) * (size_t)g->part_out[i];

        MX_TRY(c->base.alloc(&c->base, MX_MEMORY_WEIGHTS, bytes, &g->raw[i], st));
        g->bytes += bytes;
    }
    if (use & MX_USE_LINEAR) {
        g->expands = true;
        c->expanding++;
        return grow_expanded(c, dense_bytes, st);
    }
    return MX_OK;
}

/* Reads the values; MX_E_DATA names the first row of the file's with one that is not finite. */
static mx_code fill(mx_cuda *c, const mx_cuda_weights *g, const mx_weight_source *from, mx_status *st) {
    int64_t row = 0;

    for (int i = 0; i < g->parts; i++) {
        uint64_t bad = UINT64_MAX;

        c->base.write(&c->base, c->partials, &bad, sizeof bad);
        if (g->dense) {
            fill_dense(c, static_cast<char *>(g->dense) + (size_t)(row * g->ld) * mx_dtype_bytes(g->dtype), g->ld, &from[i]);
        } else {
            c->base.write(&c->base, g->raw[i], from[i].bytes, mx_file_type_row_bytes(g->type[i], g->in) * (size_t)g->part_out[i]);
            check_values(c, stored_of(g, i));
        }
        c->base.read(&c->base, &bad, c->partials, sizeof bad);
        if (!c->lost && bad != UINT64_MAX) {
            return mx_fail(st, MX_E_DATA, nowhere, "row %lld of the matrix holds a value that is not finite%s", (long long)bad,
                           g->dtype == MX_BF16 ? " (in bf16)" : "");
        }
        row += g->part_out[i];
    }
    return c->base.sync(&c->base, st);
}

static mx_code open_group(mx_cuda *c, const mx_weight_source *from, int count, mx_weight_room room, unsigned use, mx_cuda_weights **ret,
                          mx_status *st) {
    mx_cuda_weights *g = static_cast<mx_cuda_weights *>(calloc(1, sizeof *g));
    size_t dense, raw;
    mx_code code;

    if (!g) {
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory to read a matrix");
    }
    if (!shape_of(&c->base, from, count, room, g, &dense, &raw)) {
        free(g);
        return mx_fail(st, MX_E_MEMORY, nowhere, "a matrix of %lld x %lld does not fit in memory", (long long)from[0].out, (long long)from[0].in);
    }
    code = take_memory(c, g, stays_quantised(from, count), dense, use, st);
    code = code ? code : fill(c, g, from, st);
    if (code) {
        free_group(c, g);
        return code;
    }
    *ret = g;
    return MX_OK;
}

mx_code mx_cuda_weights_open(mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use,
                             mx_weight **ret, mx_status *st) {
    mx_cuda *c = mx_cuda_of(b);
    mx_cuda_weights *g = NULL;
    int64_t row = 0;
    bool whole = true;

    assert(count > 0 && count <= MX_WEIGHT_GROUP && (count == 1 || use == MX_USE_LINEAR));
    for (int i = 0; i < count; i++) {
        ret[i] = NULL;
    }
    MX_TRY(open_group(c, from, count, room, use, &g, st));
    for (int i = 0; i < count; i++) {
        ret[i] = new (std::nothrow) mx_weight{ g, i, row, from[i].out, from[i].in };
        whole = whole && ret[i];
        row += from[i].out;
    }
    if (whole) {
        return MX_OK;
    }
    for (int i = 0; i < count; i++) {
        delete ret[i];
        ret[i] = NULL;
    }
    free_group(c, g);
    return mx_fail(st, MX_E_MEMORY, nowhere, "no memory to read a matrix");
}

void mx_cuda_weight_close(mx_backend *b, mx_weight *w) {
    if (w && --w->group->open == 0) {
        free_group(mx_cuda_of(b), w->group);
    }
    delete w;
}

/* ------------------------------------------------------------------ expanding */

struct group_parts {
    stored part[MX_WEIGHT_GROUP];
    int64_t parts;
};

/* The whole of [[W_0 | room], [W_1 | room], .., [room]]; room and padding become zero. */
template <class T> static __global__ void expand_kernel(T *to, int64_t rows, int64_t ld, group_parts g, unsigned chunks) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks), first = 0;
    float v[8] = {};

    if (row >= rows || column >= ld) {
        return;
    }
    for (int i = 0; i < g.parts; i++) {
        const stored &s = g.part[i];

        if (row >= first && row < first + s.out && column < s.in) {
            decode8(v, s, stored_row(s, row - first), column);
        }
        first += s.out;
    }
    mx_store8(to + row * ld + column, v, 8, true); /* the buffer is aligned, ld a multiple of 64 */
}

void *mx_cuda_weights_dense(mx_cuda *c, const mx_cuda_weights *g) {
    group_parts parts = {};
    mx_plane p = mx_plane_of(g->rows, g->ld);

    if (g->dense) {
        return g->dense;
    }
    assert(g->expands);
    parts.parts = g->parts;
    for (int i = 0; i < g->parts; i++) {
        parts.part[i] = stored_of(g, i);
    }
    if (g->dtype == MX_BF16) {
        mx_launch(c, "expand a weight", expand_kernel<mx_bf16>, p.grid, p.block, 0, static_cast<mx_bf16 *>(c->expanded), g->rows, g->ld,
                  parts, p.chunks);
    } else {
        mx_launch(c, "expand a weight", expand_kernel<float>, p.grid, p.block, 0, static_cast<float *>(c->expanded), g->rows, g->ld, parts,
                  p.chunks);
    }
    return c->expanded;
}

/* ------------------------------------------------------------------ rows by number */

template <class T>
static __global__ void dense_rows_kernel(T *y, const T *w, int64_t ld, const int32_t *row, int64_t n, int64_t in, unsigned chunks,
                                         bool wide) {
    int64_t i = mx_plane_row(chunks), column = mx_plane_column(chunks);
    float v[8];

    if (i < n && column < in) {
        mx_load8(v, w + (int64_t)row[i] * ld + column, in - column, true); /* its lines are aligned */
        mx_store8(y + i * in + column, v, in - column, wide);
    }
}

template <class T>
static __global__ void stored_rows_kernel(T *y, stored s, const int32_t *row, int64_t n, unsigned chunks, bool wide) {
    int64_t i = mx_plane_row(chunks), column = mx_plane_column(chunks);
    float v[8];

    if (i < n && column < s.in) {
        decode8(v, s, stored_row(s, row[i]), column);
        mx_store8(y + i * s.in + column, v, s.in - column, wide);
    }
}

template <class T> static void rows_of(mx_cuda *c, const mx_weight *w, const int32_t *row, int64_t n, T *y) {
    const mx_cuda_weights *g = w->group;
    mx_plane p = mx_plane_of(n, w->in);
    bool wide = mx_wide(y, w->in);

    if (g->dense) {
        mx_launch(c, "rows of a weight", dense_rows_kernel<T>, p.grid, p.block, 0, y, static_cast<const T *>(g->dense) + w->first_row * g->ld,
                  g->ld, row, n, w->in, p.chunks, wide);
    } else {
        mx_launch(c, "rows of a weight", stored_rows_kernel<T>, p.grid, p.block, 0, y, stored_of(g, w->part), row, n, p.chunks, wide);
    }
}

void mx_cuda_weight_rows(mx_cuda *c, const mx_weight *w, const int32_t *row, int64_t n, void *y) {
    if (mx_cuda_bf16(c)) {
        rows_of(c, w, row, n, static_cast<mx_bf16 *>(y));
    } else {
        rows_of(c, w, row, n, static_cast<float *>(y));
    }
}
