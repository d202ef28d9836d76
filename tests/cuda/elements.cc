/* What other ops of the CUDA backend build on: dropout's masks word by word, and changes of type, over every alignment of
 * lines and ends. */
#include "kernels/cuda/cuda.h"

extern "C" {
#include "kernels/cuda/probe.h"
}

#include <criterion/criterion.h>

#include <vector>

namespace {

mx_cuda *open_device(mx_precision precision) {
    mx_backend_options o = {};
    mx_backend *b = nullptr;
    mx_status st = {};

    o.device = "cuda";
    o.precision = precision;
    o.host_visible = true;
    cr_assert_eq(mx_cuda_open(&o, &b, &st), MX_OK, "%s", st.text);
    return mx_cuda_of(b);
}

/* n values of device memory that the host can follow. */
template <class V> V *device_memory(mx_cuda *c, size_t n) {
    void *p = nullptr;
    mx_status st = {};

    cr_assert_eq(c->base.alloc(&c->base, MX_MEMORY_SAVED, sizeof(V) * n, &p, &st), MX_OK, "%s", st.text);
    return static_cast<V *>(p);
}

/* A matrix of lines `ld` apart that begins `shift` values into its memory, on both sides of which stands what nobody may touch. */
template <class T> struct matrix {
    mx_cuda *c;
    size_t values;
    T *memory, *at;
    std::vector<float> before; /* all of the memory, as it began */
    int64_t rows, columns, ld;

    matrix(mx_cuda *c_, int64_t rows_, int64_t columns_, int64_t ld_, int64_t shift)
        : c(c_), values((size_t)(rows_ * ld_ + shift + 16)), memory(device_memory<T>(c_, values)), at(memory + 8 + shift), rows(rows_),
          columns(columns_), ld(ld_) {
        for (size_t i = 0; i < values; i++) {
            memory[i] = mx_rounded<T>((float)((int)(i * 37 % 251) - 125) / 64.0f);
            before.push_back(mx_float(memory[i]));
        }
    }
    matrix(const matrix &) = delete;
    matrix &operator=(const matrix &) = delete;
    ~matrix() {
        c->base.release(&c->base, MX_MEMORY_SAVED, memory);
    }
    /* Everything outside of the matrix is what it was. */
    void check_outside() const {
        for (size_t i = 0; i < values; i++) {
            int64_t inside = &memory[i] - at;

            if (inside < 0 || inside >= rows * ld || inside % ld >= columns) {
                cr_assert_eq(mx_float(memory[i]), before[i], "value %zu", i);
            }
        }
    }
};

struct layout {
    int64_t rows, columns, ld, shift;
};
const layout LAYOUTS[] = { { 1, 1, 1, 0 }, { 5, 8, 8, 0 }, { 3, 64, 64, 0 }, { 4, 24, 40, 0 }, { 4, 24, 40, 1 }, { 7, 13, 13, 0 }, { 7, 13, 17, 3 },
                           { 2, 2051, 2056, 0 }, { 300, 6, 8, 0 }, { 0, 8, 8, 0 } };

template <class D, class S> void check_convert(mx_cuda *c, mx_dtype to, mx_dtype from) {
    for (const layout &l : LAYOUTS) {
        for (const layout &other : LAYOUTS) {
            if (l.rows != other.rows || l.columns != other.columns) {
                continue;
            }
            for (float scale : { 1.0f, -2.5f }) {
                matrix<D> dst(c, l.rows, l.columns, l.ld, l.shift);
                matrix<S> src(c, l.rows, l.columns, other.ld, other.shift);

                mx_cuda_convert(c, dst.at, to, l.ld, src.at, from, other.ld, l.rows, l.columns, scale);
                for (int64_t i = 0; i < l.rows * l.columns; i++) {
                    float wanted = mx_float(mx_rounded<D>(mx_float(src.at[i / l.columns * other.ld + i % l.columns]) * scale));

                    cr_assert_eq(mx_float(dst.at[i / l.columns * l.ld + i % l.columns]), wanted);
                }
                dst.check_outside();
            }
        }
    }
}

Test(elements, convert_moves_every_value_and_nothing_else) {
    mx_cuda *c = open_device(MX_PRECISION_BF16);

    check_convert<float, float>(c, MX_F32, MX_F32);
    check_convert<float, mx_bf16>(c, MX_F32, MX_BF16);
    check_convert<mx_bf16, float>(c, MX_BF16, MX_F32);
    check_convert<mx_bf16, mx_bf16>(c, MX_BF16, MX_BF16);
    c->base.close(&c->base);
}

/* base/rng.h's scheme. */
bool kept(const mx_noise &n, uint32_t site, int32_t question, int32_t position, int64_t column) {
    uint32_t counter[4] = { (uint32_t)(column / 8), (uint32_t)position, (uint32_t)question, site }, word[4];

    mx_rng_draw(mx_rng_make_key(n.seed, n.step), counter, word);
    uint32_t half = column % 2 ? word[column % 8 / 2] >> 16 : word[column % 8 / 2] & 0xffffu;

    return half >= (uint32_t)lround((double)n.rate * 65536);
}

template <class T> void check_dropout(mx_cuda *c, float rate) {
    for (const layout &l : LAYOUTS) {
        mx_noise noise = { 11, UINT64_C(1234567890123), 5, rate };
        int32_t *question = device_memory<int32_t>(c, (size_t)l.rows + 1), *position = device_memory<int32_t>(c, (size_t)l.rows + 1);
        matrix<T> x(c, l.rows, l.columns, l.ld, l.shift), y(c, l.rows, l.columns, l.ld, l.shift);
        mx_rows rows = {};

        for (int64_t i = 0; i < l.rows; i++) {
            question[i] = i == 1 ? -1 : (int32_t)(100 + i / 3);
            position[i] = i == 2 ? INT32_MAX : (int32_t)(i % 3);
        }
        rows.rows = rows.live = l.rows;
        rows.question = question;
        rows.position = position;
        mx_cuda_dropout(c, &noise, 2, &rows, l.columns, x.at, l.ld, y.at, l.ld, 1.5f);
        for (int64_t i = 0; i < l.rows * l.columns; i++) {
            int64_t t = i / l.columns, column = i % l.columns;
            bool in = rate == 0 || kept(noise, 7, question[t], position[t], column);
            float wanted = in ? mx_float(mx_rounded<T>(mx_float(x.at[t * l.ld + column]) * 1.5f)) : 0.0f;

            cr_assert_eq(mx_float(y.at[t * l.ld + column]), wanted, "rate %g, row %d, column %d", (double)rate, (int)t, (int)column);
        }
        y.check_outside();
        c->base.release(&c->base, MX_MEMORY_SAVED, question);
        c->base.release(&c->base, MX_MEMORY_SAVED, position);
    }
}

Test(elements, dropout_is_the_generators_words) {
    mx_cuda *f32 = open_device(MX_PRECISION_F32), *bf16 = open_device(MX_PRECISION_BF16);

    for (float rate : { 0.0f, 0.05f, 0.5f, 0.999999f, 0.000001f }) {
        check_dropout<float>(f32, rate);
        check_dropout<mx_bf16>(bf16, rate);
    }
    f32->base.close(&f32->base);
    bf16->base.close(&bf16->base);
}

}
