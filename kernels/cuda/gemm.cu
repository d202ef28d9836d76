/* gemm.cu - every product of matrices: by cuBLASLt, or by our own kernel (gemm_own.cu) for what it does not take.
 *
 * cuBLASLt thinks in columns: a row-major C = A B is its C^T = B^T A^T, the same memory read the other way.
 *
 * Which algorithm serves a product is a function of the product alone - transposes, types, sizes, lines, alignments - and of
 * the library's version: the first that its heuristic names for the upper end of the size's bucket. So two processes, or a
 * run and its continuation, compute the same bits; timing is for who asks for it (gemm_tune.h). The heuristic takes some 50 us,
 * so choices are kept; numbers of rows vary from step to step and share a choice by buckets, eight to the octave. */
#include "kernels/cuda/gemm.h"

#include "kernels/cuda/gemm_tune.h"
#include "kernels/cuda/memory.h"

#include <type_traits>

static const mx_mark nowhere = {};

/* ------------------------------------------------------------------ choices */

enum { CHOICES = 1024, PROBES = 16, CANDIDATES = 8, FORMS = 4, ALIGNMENT_MOST = 256 };

#ifdef __CUDACC__
static constexpr double WORTH_TIMING = 1u << 31; /* products of four GFLOP, 6 us at full rate */
#else
static constexpr double WORTH_TIMING = 1 << 15;
#endif

/* What a choice is a function of. Compared byte by byte. */
struct choice_key {
    int64_t m, n, k; /* bucketed where they count rows, unless `exact` */
    int64_t a_ld, b_ld, y_ld;
    uint16_t a_alignment, b_alignment, y_alignment;
    uint8_t a_transposed, b_transposed, f32, y_f32, exact, add;
    uint32_t zero;
};
static_assert(std::has_unique_object_representations_v<choice_key>, "padding would be compared");
struct choice {
    choice_key key;
    bool taken, own; /* own: cuBLASLt has nothing for it */
    mx_lt_algorithm algorithm;
};

struct mx_cuda_gemm_state {
    mx_cublaslt lt;
    mx_lt_handle handle;
    mx_lt_description *form[2][FORMS]; /* [f32][first transposed + 2 second transposed] */
    mx_lt_preference *preference;
    mx_gemm_tuning *tuning; /* or NULL */
    void *workspace;
    mx_cuda_gemm_counts counts;
    choice table[CHOICES];
};

/* Rounded up to one of eight steps to the octave, 16 at the least. */
static int64_t bucket(int64_t v) {
    int64_t step = 16;

    while (step * 16 < v) {
        step *= 2;
    }
    return (v + step - 1) / step * step;
}

static uint16_t alignment_of(const void *p) {
    uintptr_t at = (uintptr_t)p | ALIGNMENT_MOST;

    return (uint16_t)(at & (~at + 1));
}

/* What mx_cuda_gemm is called with. */
struct product {
    int64_t m, n, k;
    mx_matrix a, b, y;
    float alpha;
    bool add;
};

/* Numbers of rows are bucketed: m, when A is not transposed, and k when the product sums over rows (A transposed, B not). */
static choice_key key_of(const product &p, bool exact) {
    const mx_matrix &a = p.a, &b = p.b, &y = p.y;
    choice_key key;

    memset(&key, 0, sizeof key);
    key.m = exact || a.transposed ? p.m : bucket(p.m);
    key.n = p.n;
    key.k = exact || !a.transposed || b.transposed ? p.k : bucket(p.k);
    key.a_ld = a.ld;
    key.b_ld = b.ld;
    key.y_ld = y.ld;
    key.a_alignment = alignment_of(a.data);
    key.b_alignment = alignment_of(b.data);
    key.y_alignment = alignment_of(y.data);
    key.a_transposed = a.transposed;
    key.b_transposed = b.transposed;
    key.f32 = a.dtype == MX_F32;
    key.y_f32 = y.dtype == MX_F32;
    key.exact = exact;
    key.add = p.add;
    return key;
}

static uint64_t hash_of(const choice_key &key) {
    unsigned char bytes[sizeof key];
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

    memcpy(bytes, &key, sizeof key);
    for (size_t i = 0; i < sizeof bytes; i++) {
        h = (h ^ bytes[i]) * UINT64_C(1099511628211);
    }
    return h;
}

/* The key's place: its own, or a free one, or NULL: no place within PROBES. */
static choice *place_of(mx_cuda_gemm_state *g, const choice_key &key) {
    uint64_t h = hash_of(key);

    for (uint64_t i = 0; i < PROBES; i++) {
        choice *c = &g->table[(h + i) % CHOICES];

        if (!c->taken || memcmp(&c->key, &key, sizeof key) == 0) {
            return c;
        }
    }
    return NULL;
}

/* Whether there is a choice for this key already. */
static bool kept(mx_cuda_gemm_state *g, const choice_key &key) {
    choice *c = place_of(g, key);

    return c && c->taken;
}

/* ------------------------------------------------------------------ cuBLASLt's side */
/* The three matrices as it sees them: first = B^T, second = A^T, result = C^T, all by columns. */
struct lt_layouts {
    mx_lt_layout first, second, result;
};

static bool lay_out(const mx_cublaslt *lt, const choice_key &key, lt_layouts *ret) {
    int type = key.f32 ? MX_LT_F32 : MX_LT_BF16;
    int64_t m = key.m, n = key.n, k = key.k;
    int bad = lt->layout_init(&ret->first, sizeof ret->first, type, (uint64_t)(key.b_transposed ? k : n),
                              (uint64_t)(key.b_transposed ? n : k), key.b_ld);

    bad |= lt->layout_init(&ret->second, sizeof ret->second, type, (uint64_t)(key.a_transposed ? m : k),
                           (uint64_t)(key.a_transposed ? k : m), key.a_ld);
    bad |= lt->layout_init(&ret->result, sizeof ret->result, key.y_f32 ? MX_LT_F32 : MX_LT_BF16, (uint64_t)n, (uint64_t)m, key.y_ld);
    return bad == MX_LT_SUCCESS;
}

static mx_lt_description *form_of(mx_cuda_gemm_state *g, const choice_key &key) {
    return g->form[key.f32][key.b_transposed + 2 * key.a_transposed];
}

/* cuBLASLt's answer to a product by this algorithm. */
static int queue(mx_cuda *c, const mx_lt_algorithm *algorithm, const product &p) {
    mx_cuda_gemm_state *g = c->gemm;
    choice_key exact = key_of(p, true);
    float beta = p.add ? 1.0f : 0.0f;
    lt_layouts l;
    int code;

    if (!lay_out(&g->lt, exact, &l)) {
        return MX_LT_NOT_SUPPORTED;
    }
    code = g->lt.matmul(g->handle, form_of(g, exact), &p.alpha, p.b.data, &l.first, p.a.data, &l.second, &beta, p.y.data, &l.result,
                        const_cast<void *>(p.y.data), &l.result, algorithm, g->workspace, MX_LT_WORKSPACE, c->stream);
    mx_cuda_follow(c, "a product");
    return code;
}

/* "Not this product", of the library; any other failure is the device's or its own. */
static bool refusal(int code) {
    return code == MX_LT_INVALID_VALUE || code == MX_LT_NOT_SUPPORTED || code == MX_LT_ARCH_MISMATCH;
}
static void lose_product(mx_cuda *c, int64_t m, int64_t n, int64_t k, int code) {
    mx_cuda_lose(c, code == MX_LT_ALLOC_FAILED ? MX_E_MEMORY : MX_E_DEVICE, "cuBLASLt failed in a product of %lld x %lld x %lld: %s",
                 (long long)m, (long long)n, (long long)k, c->gemm->lt.status_name(code));
}

/* The heuristic's answers that we can run, best first; how many. */
static int candidates_of(mx_cuda *c, const choice_key &key, mx_lt_result *ret) {
    mx_cuda_gemm_state *g = c->gemm;
    uint32_t first = key.b_alignment, second = key.a_alignment, out = key.y_alignment;
    lt_layouts l;
    int found = 0, count = 0, code;

    g->counts.asked++;
    memset(ret, 0, sizeof *ret * CANDIDATES);
    g->lt.preference_set(g->preference, MX_LT_ALIGNMENT_A, &first, sizeof first);
    g->lt.preference_set(g->preference, MX_LT_ALIGNMENT_B, &second, sizeof second);
    g->lt.preference_set(g->preference, MX_LT_ALIGNMENT_C, &out, sizeof out);
    g->lt.preference_set(g->preference, MX_LT_ALIGNMENT_D, &out, sizeof out);
    if (!lay_out(&g->lt, key, &l)) {
        return 0;
    }
    code = g->lt.heuristic(g->handle, form_of(g, key), &l.first, &l.second, &l.result, &l.result, g->preference, CANDIDATES, ret, &found);
    if (code != MX_LT_SUCCESS) {
        if (!refusal(code)) {
            lose_product(c, key.m, key.n, key.k, code);
        }
        return 0;
    }
    for (int i = 0; i < found; i++) {
        if (ret[i].state == MX_LT_SUCCESS && ret[i].workspace <= MX_LT_WORKSPACE) {
            ret[count++] = ret[i];
        }
    }
    return count;
}

struct trial {
    mx_cuda *c;
    const product *p;
};
static bool try_out(void *context, const mx_lt_algorithm *algorithm) {
    const trial *t = static_cast<const trial *>(context);

    return queue(t->c, algorithm, *t->p) == MX_LT_SUCCESS;
}

/* The first of the candidates, or, if that is asked for, the fastest. A product that adds cannot be tried out. */
static void choose(mx_cuda *c, choice *ret, const product &p) {
    mx_cuda_gemm_state *g = c->gemm;
    mx_lt_result candidate[CANDIDATES];
    int count = candidates_of(c, ret->key, candidate);
    trial t = { c, &p };

    ret->taken = true;
    ret->own = count == 0;
    ret->algorithm = candidate[0].algorithm;
    if (count > 0 && g->tuning && (double)p.m * (double)p.n * (double)p.k >= WORTH_TIMING) {
        ret->algorithm = mx_gemm_tuning_choose(g->tuning, c, &ret->key, sizeof ret->key, candidate, count, !p.add, try_out, &t);
    }
}

/* The kept choice, or a new one. When its places are taken all choices are made anew: they come out the same. */
static choice *choice_of(mx_cuda *c, const choice_key &key, const product &p) {
    choice *ret = place_of(c->gemm, key);

    if (!ret) {
        memset(c->gemm->table, 0, sizeof c->gemm->table);
        ret = place_of(c->gemm, key);
    }
    if (!ret->taken) {
        ret->key = key;
        choose(c, ret, p);
    }
    return ret;
}

/* Whether cuBLASLt took it; failures other than "not this shape" are the device's. */
static bool multiply(mx_cuda *c, const choice *how, const product &p) {
    int code = how->own ? (int)MX_LT_NOT_SUPPORTED : queue(c, &how->algorithm, p);

    if (refusal(code)) {
        return false;
    }
    if (code != MX_LT_SUCCESS) {
        lose_product(c, p.m, p.n, p.k, code);
    }
    c->gemm->counts.by_library++;
    return true;
}

void mx_cuda_gemm(mx_cuda *c, int64_t m, int64_t n, int64_t k, mx_matrix a, mx_matrix b, mx_matrix y, float alpha, bool add) {
    product p = { m, n, k, a, b, y, alpha, add };

    assert(a.dtype == b.dtype && (a.dtype == MX_BF16 || y.dtype == MX_F32) && !y.transposed);
    if (m <= 0 || n <= 0 || c->lost || (k <= 0 && add)) {
        return;
    }
    if (k > 0) {
        choice_key exact = key_of(p, true);

        /* the bucket's choice, unless this very shape has been refused by it before */
        if (!kept(c->gemm, exact) && multiply(c, choice_of(c, key_of(p, false), p), p)) {
            return;
        }
        if (multiply(c, choice_of(c, exact, p), p)) {
            return;
        }
    }
    c->gemm->counts.by_us++;
    mx_cuda_gemm_own(c, m, n, k, a, b, y, alpha, add);
}

/* ------------------------------------------------------------------ opening */

static mx_code refused(mx_cuda *c, int code, mx_status *st) {
    mx_fail(st, MX_E_DEVICE, nowhere, "cuBLASLt %s does not start: %s", c->gemm->lt.path, c->gemm->lt.status_name(code));
    mx_hint(st, "does this cuBLASLt suit the driver and the GPU? $MIXRUN_CUBLASLT names another");
    return MX_E_DEVICE;
}

/* Descriptions of the eight forms, and the preference; the first refusal or success. */
static int describe_forms(mx_cuda_gemm_state *g) {
    uint64_t workspace = MX_LT_WORKSPACE;
    uint32_t reduction = MX_LT_REDUCE_IN_F32;
    int code = g->lt.preference_create(&g->preference);

    code = code ? code : g->lt.preference_set(g->preference, MX_LT_WORKSPACE_BYTES, &workspace, sizeof workspace);
    code = code ? code : g->lt.preference_set(g->preference, MX_LT_REDUCTION_MASK, &reduction, sizeof reduction);
    for (int i = 0; i < 2 * FORMS && !code; i++) {
        int32_t first = i & 1 ? MX_LT_TRANSPOSED : MX_LT_PLAIN, second = i & 2 ? MX_LT_TRANSPOSED : MX_LT_PLAIN;
        mx_lt_description **form = &g->form[i / FORMS][i % FORMS];

        code = g->lt.description_create(form, i / FORMS ? MX_LT_COMPUTE_F32_PEDANTIC : MX_LT_COMPUTE_F32, MX_LT_F32);
        code = code ? code : g->lt.description_set(*form, MX_LT_TRANSPOSE_A, &first, sizeof first);
        code = code ? code : g->lt.description_set(*form, MX_LT_TRANSPOSE_B, &second, sizeof second);
    }
    return code;
}

/* A library that has no algorithm for the plainest product was not made for this GPU. Our own kernel would serve every product, a
 * hundred times slower and without a word. */
static mx_code check_device(mx_cuda *c, mx_status *st) {
    mx_matrix square = mx_matrix_of(NULL, mx_activation_type(&c->base), 1024);
    mx_lt_result candidate[CANDIDATES];

    if (candidates_of(c, key_of(product{ 1024, 1024, 1024, square, square, square, 1.0f, false }, true), candidate) > 0) {
        return MX_OK;
    }
    MX_TRY(mx_cuda_tell_lost(c, st));
    mx_fail(st, MX_E_DEVICE, nowhere, "cuBLASLt %s knows no products for this GPU (sm_%d)", c->gemm->lt.path, c->architecture);
    mx_hint(st, "a newer cuBLASLt may: $MIXRUN_CUBLASLT names another");
    return MX_E_DEVICE;
}

mx_code mx_cuda_gemm_open(mx_cuda *c, mx_status *st) {
    mx_cuda_gemm_state *g = static_cast<mx_cuda_gemm_state *>(calloc(1, sizeof *g));
    int code;

    if (!g) {
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory for the products' algorithms");
    }
    c->gemm = g;
    MX_TRY(mx_cublaslt_open(&g->lt, st));
    code = g->lt.create(&g->handle);
    code = code ? code : describe_forms(g);
    if (code) {
        return refused(c, code, st);
    }
    MX_TRY(check_device(c, st));
    MX_TRY(mx_gemm_tuning_open(c, g->lt.version, &g->tuning, st));
    return c->base.alloc(&c->base, MX_MEMORY_SCRATCH, MX_LT_WORKSPACE, &g->workspace, st);
}

void mx_cuda_gemm_close(mx_cuda *c) {
    mx_cuda_gemm_state *g = c->gemm;

    if (!g) {
        return;
    }
    for (int i = 0; i < 2 * FORMS; i++) {
        if (g->form[i / FORMS][i % FORMS]) {
            g->lt.description_destroy(g->form[i / FORMS][i % FORMS]);
        }
    }
    if (g->preference) {
        g->lt.preference_destroy(g->preference);
    }
    if (g->handle) {
        g->lt.destroy(g->handle);
    }
    c->base.release(&c->base, MX_MEMORY_SCRATCH, g->workspace);
    mx_gemm_tuning_close(g->tuning);
    free(g); /* the library stays loaded: the driver may hold addresses inside one that has worked, until the process ends */
    c->gemm = NULL;
}

void mx_cuda_gemm_describe(const mx_cuda *c, char *text, size_t size) {
    char tuned[200];
    size_t length;

    mx_cublaslt_describe(c->gemm ? &c->gemm->lt : NULL, text, size);
    length = strlen(text);
    if (c->gemm && c->gemm->tuning) {
        mx_gemm_tuning_describe(c->gemm->tuning, tuned, sizeof tuned);
        snprintf(text + length, size - length, ", %s", tuned);
    }
}

void *mx_cuda_gemm_workspace(mx_cuda *c, size_t *ret_bytes) {
    *ret_bytes = MX_LT_WORKSPACE;
    return c->gemm->workspace;
}

mx_cuda_gemm_counts mx_cuda_gemm_counted(const mx_cuda *c) {
    return c->gemm->counts;
}
