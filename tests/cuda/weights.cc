/* Frozen matrices on the device: what is multiplied and looked up is what the file holds, to the bit, whatever its type. */
#include "kernels/cuda/cuda.h"

extern "C" {
#include "base/rng.h"
}

#include <criterion/criterion.h>

#include <vector>

namespace {

enum { PARTS = 3, IN = 96, HEADS = 2 };
const int64_t OUT[PARTS] = { 24, 8, 40 };

mx_backend *open_backend(mx_precision precision) {
    mx_backend_options o = {};
    mx_backend *b = NULL;
    mx_status st = {};

    o.device = "cuda";
    o.precision = precision;
    o.host_visible = true;
    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    return b;
}

void finish(mx_backend *b) {
    mx_status st = {};

    cr_assert_eq(b->sync(b, &st), MX_OK, "%s", st.text);
}

/* A matrix as a file has it, one byte off any alignment, and its values in the Hugging Face layout. */
struct source {
    std::vector<uint8_t> bytes;
    std::vector<float> value;
    mx_weight_source from; /* points into bytes: sources are moved, never copied */

    source() = default;
    source(source &&) = default;
    source(const source &) = delete;
};

void put16(uint8_t *to, uint16_t v) {
    memcpy(to, &v, sizeof v);
}

void random_bytes(source &s, mx_file_type type, int64_t out, int64_t in, mx_rng *r) {
    size_t row = mx_file_type_row_bytes(type, in), n = row * (size_t)out;
    size_t block = mx_file_type_row_bytes(type, 1) ? 0 : mx_file_type_row_bytes(type, 32);

    s.bytes.assign(n + 1, 0);
    for (size_t i = 0; i < n; i++) {
        s.bytes[1 + i] = (uint8_t)mx_rng_u32(r);
    }
    for (size_t i = 0; block && i < n; i += block) { /* scales and minima: finite; some subnormal, some zero */
        uint8_t *b = &s.bytes[1 + i];

        b[1] &= i / block % 5 == 0 ? 0x83 : 0xbb;
        b[3] &= type == MX_FILE_Q4_1 || type == MX_FILE_Q5_1 ? 0xbb : 0xff;
        if (i / block % 17 == 0) {
            b[0] = b[1] = 0;
        }
    }
    for (size_t i = 0; type == MX_FILE_F32 && i < n; i += 4) {
        float v = (float)mx_rng_normal(r);

        memcpy(&s.bytes[1 + i], &v, sizeof v);
    }
    for (size_t i = 0; (type == MX_FILE_F16 || type == MX_FILE_BF16) && i < n; i += 2) { /* no exponent of ones; subnormals too */
        put16(&s.bytes[1 + i], (uint16_t)((s.bytes[1 + i] | s.bytes[2 + i] << 8) & (i % 7 == 0 ? 0x83ff : 0xbbff)));
    }
}

source make(mx_file_type type, int64_t out, int64_t in, int64_t heads, uint64_t seed) {
    source s;
    mx_rng r;
    size_t row = mx_file_type_row_bytes(type, in);

    mx_rng_init(&r, seed, "weights");
    random_bytes(s, type, out, in, &r);
    s.value.resize((size_t)(out * in));
    for (int64_t o = 0; o < out; o++) {
        int64_t head_rows = heads ? out / heads : out, within = o % head_rows;
        int64_t to = heads ? o - within + within / 2 + within % 2 * (head_rows / 2) : o;

        mx_file_type_decode(type, &s.bytes[1 + (size_t)o * row], in, &s.value[(size_t)(to * in)]);
    }
    s.from = mx_weight_source{ type, &s.bytes[1], out, in, heads };
    return s;
}

bool equal(const mx_backend *b, const void *values, int64_t i, float expected) {
    if (b->precision == MX_PRECISION_BF16) {
        return static_cast<const uint16_t *>(values)[i] == mx_bf16_bits(expected);
    }
    return memcmp(static_cast<const float *>(values) + i, &expected, sizeof expected) == 0;
}
bool zero(const mx_backend *b, const void *values, int64_t i) {
    return equal(b, values, i, 0.0f);
}

/* [[W_0 | room], [W_1 | room], .., [room]] with room and padding of zeros. */
void check_dense(mx_backend *b, mx_weight *const *w, const std::vector<source> &s) {
    mx_cuda *c = reinterpret_cast<mx_cuda *>(b);
    const mx_cuda_weights *g = w[0]->group;
    const void *dense = mx_cuda_weights_dense(c, g);

    finish(b);
    for (size_t k = 0; k < s.size(); k++) {
        for (int64_t o = 0; o < s[k].from.out; o++) {
            for (int64_t i = 0; i < g->ld; i++) {
                int64_t at = (w[k]->first_row + o) * g->ld + i;

                cr_assert(i < g->in ? equal(b, dense, at, s[k].value[(size_t)(o * g->in + i)]) : zero(b, dense, at), "%s, matrix %d (%ld,%ld)",
                          mx_file_type_name(s[k].from.type), (int)k, (long)o, (long)i);
            }
        }
    }
    for (int64_t at = g->out * g->ld; at < g->rows * g->ld; at++) {
        cr_assert(zero(b, dense, at), "room");
    }
}

std::vector<mx_weight_source> sources_of(const std::vector<source> &s) {
    std::vector<mx_weight_source> from;

    for (const source &one : s) {
        from.push_back(one.from);
    }
    return from;
}

/* Opens, checks and closes a group of these types; what is held must be what was planned. */
void check_group(mx_backend *b, const std::vector<mx_file_type> &types, mx_weight_room room, int64_t heads, int64_t in = IN) {
    std::vector<source> s;
    std::vector<mx_weight *> w(types.size());
    mx_status st = {};

    for (size_t i = 0; i < types.size(); i++) {
        s.push_back(make(types[i], OUT[i], in, i < 2 ? heads : 0, 10 + i));
    }
    std::vector<mx_weight_source> from = sources_of(s);
    int count = (int)from.size();
    size_t planned = mx_cuda_weights_bytes(b, from.data(), count, room, MX_USE_LINEAR) +
                     mx_cuda_weights_shared_bytes(b, from.data(), count, room, MX_USE_LINEAR);

    cr_assert_eq(b->weights_open(b, from.data(), count, room, MX_USE_LINEAR, w.data(), &st), MX_OK, "%s", st.text);
    const mx_cuda_weights *g = w[0]->group;

    cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), planned);
    cr_assert(g->ld % 64 == 0 && g->ld >= g->in + room.columns && g->rows >= g->out + room.rows && g->room.columns >= room.columns);
    check_dense(b, w.data(), s);
    for (mx_weight *one : w) {
        b->weight_close(b, one);
    }
    cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), 0);
}

} // namespace

Test(weights, every_type_becomes_the_files_values_to_the_bit) {
    for (mx_precision precision : { MX_PRECISION_F32, MX_PRECISION_BF16 }) {
        mx_backend *b = open_backend(precision);

        for (int type = 0; type < MX_FILE_TYPES; type++) {
            mx_file_type one = (mx_file_type)type;

            check_group(b, { one }, mx_weight_room{ 0, 0 }, 0);
            check_group(b, { one, one, one }, mx_weight_room{ 20, 48 }, 0);
            check_group(b, { one, one }, mx_weight_room{ 64, 1 }, HEADS);
        }
        check_group(b, { MX_FILE_F16, MX_FILE_Q4_0, MX_FILE_F32 }, mx_weight_room{ 5, 5 }, HEADS); /* as some files mix them */
        check_group(b, { MX_FILE_BF16, MX_FILE_F16 }, mx_weight_room{ 5, 5 }, 0, 37);
        b->close(b);
    }
}

/* More values than one piece of the way up holds. */
Test(weights, large_matrices_go_up_in_pieces) {
    mx_backend *b = open_backend(MX_PRECISION_F32);
    std::vector<source> s;
    mx_weight *w;
    mx_status st = {};

    s.push_back(make(MX_FILE_F32, 70, 611, 0, 3));
    cr_assert_eq(mx_weight_open(b, &s[0].from, MX_USE_LINEAR, &w, &st), MX_OK, "%s", st.text);
    check_dense(b, &w, s);
    b->weight_close(b, w);
    b->close(b);
}

Test(weights, rows_by_number_are_the_files) {
    const int32_t numbers[] = { 3, 0, 39, 3, 17 };
    enum { N = 5 };

    for (mx_precision precision : { MX_PRECISION_F32, MX_PRECISION_BF16 }) {
        for (int type = 0; type < MX_FILE_TYPES; type++) {
            mx_backend *b = open_backend(precision);
            mx_cuda *c = reinterpret_cast<mx_cuda *>(b);
            int64_t in = type == MX_FILE_F16 ? 37 : IN;
            source s = make((mx_file_type)type, 40, in, type == MX_FILE_Q4_1 ? HEADS : 0, 4);
            mx_weight *w;
            mx_status st = {};
            void *row, *y;

            cr_assert_eq(mx_weight_open(b, &s.from, MX_USE_EMBEDDING, &w, &st), MX_OK, "%s", st.text);
            cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), b->weights_bytes(b, &s.from, 1, mx_weight_room{ 0, 0 }, MX_USE_EMBEDDING));
            cr_assert_eq(mx_cuda_weights_shared_bytes(b, &s.from, 1, mx_weight_room{ 0, 0 }, MX_USE_EMBEDDING), 0);
            cr_assert_eq(b->alloc(b, MX_MEMORY_BATCH, sizeof numbers, &row, &st), MX_OK);
            cr_assert_eq(b->alloc(b, MX_MEMORY_SAVED, sizeof(float) * N * (size_t)in, &y, &st), MX_OK);
            b->write(b, row, numbers, sizeof numbers);
            mx_cuda_weight_rows(c, w, static_cast<const int32_t *>(row), N, y);
            finish(b);
            for (int n = 0; n < N; n++) {
                for (int64_t i = 0; i < in; i++) {
                    cr_assert(equal(b, y, n * in + i, s.value[(size_t)(numbers[n] * in + i)]), "%s, row %d, column %d",
                              mx_file_type_name((mx_file_type)type), n, (int)i);
                }
            }
            b->weight_close(b, w);
            b->close(b);
        }
    }
}

Test(weights, quantised_groups_share_one_buffer_that_grows_and_goes) {
    mx_backend *b = open_backend(MX_PRECISION_BF16);
    std::vector<source> s[3];
    mx_weight_room none = { 0, 0 };
    mx_weight *w[3];
    mx_status st = {};
    size_t own = 0, shared = 0;

    s[0].push_back(make(MX_FILE_Q4_0, 24, 64, 0, 1));
    s[1].push_back(make(MX_FILE_Q8_0, 40, 96, 0, 2));
    s[2].push_back(make(MX_FILE_Q4_1, 8, 32, 0, 3));
    for (int i = 0; i < 3; i++) {
        size_t more = mx_cuda_weights_shared_bytes(b, &s[i][0].from, 1, none, MX_USE_LINEAR);

        cr_assert_eq(mx_weight_open(b, &s[i][0].from, MX_USE_LINEAR, &w[i], &st), MX_OK, "%s", st.text);
        own += b->weights_bytes(b, &s[i][0].from, 1, none, MX_USE_LINEAR);
        shared = more > shared ? more : shared;
        cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), own + shared);
    }
    for (int i : { 0, 1, 2, 1, 0 }) { /* each time what another left there */
        check_dense(b, &w[i], s[i]);
    }
    for (mx_weight *one : w) {
        b->weight_close(b, one);
    }
    cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), 0);
    b->close(b);
}

Test(weights, values_that_are_not_finite_are_refused_by_row) {
    static const struct {
        mx_file_type type;
        float value;
        mx_precision precision;
        bool refused;
    } cases[] = { { MX_FILE_F32, NAN, MX_PRECISION_F32, true },        { MX_FILE_F32, -INFINITY, MX_PRECISION_BF16, true },
                  { MX_FILE_F32, 3.4e38f, MX_PRECISION_F32, false },   { MX_FILE_F32, 3.4e38f, MX_PRECISION_BF16, true },
                  { MX_FILE_Q8_0, INFINITY, MX_PRECISION_F32, true },  { MX_FILE_Q4_1, NAN, MX_PRECISION_BF16, true },
                  { MX_FILE_BF16, INFINITY, MX_PRECISION_BF16, true }, { MX_FILE_F16, NAN, MX_PRECISION_F32, true } };

    for (const auto &one : cases) {
        mx_backend *b = open_backend(one.precision);
        source good = make(one.type, 24, 64, 0, 5), s = make(one.type, 24, 64, HEADS, 6);
        size_t row = mx_file_type_row_bytes(one.type, 64);
        mx_weight *w[2];
        mx_status st = {};

        for (size_t at : { 7 * row, 20 * row }) { /* a block's scale, or a value: the first of the stored rows 7 and 20 */
            if (one.type == MX_FILE_F32) {
                memcpy(&s.bytes[1 + at], &one.value, sizeof one.value);
            } else {
                put16(&s.bytes[1 + at], one.type == MX_FILE_BF16 ? (uint16_t)0x7f80 : std::isnan(one.value) ? (uint16_t)0x7e00 : (uint16_t)0x7c00);
                s.bytes[1 + at + (one.type == MX_FILE_Q4_1 ? 4 : 2)] |= 1; /* inf times 0 would be a NaN all the same */
            }
        }
        mx_weight_source from[2] = { good.from, s.from };
        mx_code code = b->weights_open(b, from, 2, mx_weight_room{ 8, 8 }, MX_USE_LINEAR, w, &st);

        if (one.refused) {
            cr_assert_eq(code, MX_E_DATA);
            cr_assert(strstr(st.text, "row 7 of the matrix holds a value that is not finite") && !w[0] && !w[1], "%s", st.text);
            cr_assert_eq(strstr(st.text, "(in bf16)") != NULL, one.precision == MX_PRECISION_BF16);
        } else {
            cr_assert_eq(code, MX_OK);
            b->weight_close(b, w[0]);
            b->weight_close(b, w[1]);
        }
        cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), 0);
        b->close(b);
    }
}
