/* cublaslt.cc - cuBLASLt on the CPU: the same table of functions, every descriptor honoured, so that what we tell the library is
 * tested without it.
 *
 * Two algorithms are offered. "vector" comes first and is as particular as the real ones: every matrix aligned to 16 bytes, as
 * the preference promises it, and its lines too, a depth of whole eights, and a workspace, which it fills with 0xff. "scalar"
 * takes any shape. bf16 with lines of odd length is refused altogether. What does not fit together is an invalid value, as there. */
#include "kernels/cuda/cublaslt.h"

extern "C" {
#include "kernels/cuda/shim/product.h"
}

#include <vector>

struct mx_lt_description {
    int compute, scale_type, first, second; /* operations */
};
struct mx_lt_preference {
    uint64_t workspace;
    uint32_t reduction, alignment[4]; /* of A, B, C, D */
};
struct cublasLtContext {
    int unused;
};

namespace {

constexpr uint64_t LAYOUT = 0x6c61796f7574, ALGORITHM = 0x616c676f;
constexpr size_t VECTOR_WORKSPACE = 4096, VECTOR_BYTES = 16;
enum { VECTOR, SCALAR };

cublasLtContext context;

/* What lies in a layout's eight words. */
struct layout {
    uint64_t magic;
    int32_t type, unused;
    uint64_t rows, columns; /* column-major: how cuBLASLt reads one that nothing else is said of */
    int64_t ld;
};
static_assert(sizeof(layout) <= sizeof(mx_lt_layout), "a layout must fit");

layout read(const mx_lt_layout *l) {
    layout v;

    memcpy(&v, l, sizeof v);
    return v;
}

size_t value_bytes(int type) {
    return type == MX_LT_BF16 ? 2 : 4;
}

bool sound(const layout &l) {
    return l.magic == LAYOUT && (l.type == MX_LT_F32 || l.type == MX_LT_BF16) && l.rows > 0 && l.columns > 0 && l.ld >= (int64_t)l.rows;
}

/* ------------------------------------------------------------------ descriptors */

int create(mx_lt_handle *ret) {
    *ret = &context;
    return MX_LT_SUCCESS;
}
int destroy(mx_lt_handle handle) {
    return handle == &context ? MX_LT_SUCCESS : MX_LT_NOT_INITIALIZED;
}
size_t get_version() {
    return 130100;
}
const char *status_name(int status) {
    return status == MX_LT_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_OF_THE_SHIM";
}

int description_create(mx_lt_description **ret, int compute, int scale_type) {
    if ((compute != MX_LT_COMPUTE_F32 && compute != MX_LT_COMPUTE_F32_PEDANTIC) || scale_type != MX_LT_F32) {
        return MX_LT_INVALID_VALUE;
    }
    *ret = new mx_lt_description{ compute, scale_type, MX_LT_PLAIN, MX_LT_PLAIN };
    return MX_LT_SUCCESS;
}
int description_destroy(mx_lt_description *d) {
    delete d;
    return MX_LT_SUCCESS;
}
int description_set(mx_lt_description *d, int attribute, const void *value, size_t size) {
    int32_t operation;

    if (size != sizeof operation || (attribute != MX_LT_TRANSPOSE_A && attribute != MX_LT_TRANSPOSE_B)) {
        return MX_LT_INVALID_VALUE;
    }
    memcpy(&operation, value, size);
    if (operation != MX_LT_PLAIN && operation != MX_LT_TRANSPOSED) {
        return MX_LT_INVALID_VALUE;
    }
    (attribute == MX_LT_TRANSPOSE_A ? d->first : d->second) = operation;
    return MX_LT_SUCCESS;
}

int layout_init(mx_lt_layout *ret, size_t size, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    layout v = { LAYOUT, type, 0, rows, columns, ld };

    if (size < sizeof *ret) {
        return MX_LT_ALLOC_FAILED;
    }
    memset(ret, 0, sizeof *ret);
    memcpy(ret, &v, sizeof v);
    return MX_LT_SUCCESS;
}

int preference_create(mx_lt_preference **ret) {
    *ret = new mx_lt_preference{ 0, 7, { 256, 256, 256, 256 } };
    return MX_LT_SUCCESS;
}
int preference_destroy(mx_lt_preference *p) {
    delete p;
    return MX_LT_SUCCESS;
}
int preference_set(mx_lt_preference *p, int attribute, const void *value, size_t size) {
    if (attribute == MX_LT_WORKSPACE_BYTES && size == sizeof p->workspace) {
        memcpy(&p->workspace, value, size);
    } else if (attribute == MX_LT_REDUCTION_MASK && size == sizeof p->reduction) {
        memcpy(&p->reduction, value, size);
    } else if (attribute >= MX_LT_ALIGNMENT_A && attribute <= MX_LT_ALIGNMENT_D && size == sizeof p->alignment[0]) {
        memcpy(&p->alignment[attribute - MX_LT_ALIGNMENT_A], value, size);
    } else {
        return MX_LT_INVALID_VALUE;
    }
    return MX_LT_SUCCESS;
}

/* ------------------------------------------------------------------ what fits together */
struct problem {
    layout a, b, c, d;
    int64_t m, n, k;
};

int understand(const mx_lt_description *form, const mx_lt_layout *a, const mx_lt_layout *b, const mx_lt_layout *c, const mx_lt_layout *d,
               problem *ret) {
    problem p = { read(a), read(b), read(c), read(d), 0, 0, 0 };

    if (!sound(p.a) || !sound(p.b) || !sound(p.c) || !sound(p.d)) {
        return MX_LT_INVALID_VALUE;
    }
    p.m = (int64_t)(form->first == MX_LT_PLAIN ? p.a.rows : p.a.columns);
    p.k = (int64_t)(form->first == MX_LT_PLAIN ? p.a.columns : p.a.rows);
    p.n = (int64_t)(form->second == MX_LT_PLAIN ? p.b.columns : p.b.rows);
    if (p.k != (int64_t)(form->second == MX_LT_PLAIN ? p.b.rows : p.b.columns) || (int64_t)p.d.rows != p.m || (int64_t)p.d.columns != p.n ||
        p.c.rows != p.d.rows || p.c.columns != p.d.columns) {
        return MX_LT_INVALID_VALUE;
    }
    if (p.a.type != p.b.type || p.c.type != p.d.type || (p.a.type == MX_LT_F32 && p.d.type != MX_LT_F32) ||
        (form->compute == MX_LT_COMPUTE_F32_PEDANTIC && p.a.type != MX_LT_F32) ||
        (p.a.type == MX_LT_BF16 && (p.a.ld % 2 || p.b.ld % 2))) {
        return MX_LT_NOT_SUPPORTED;
    }
    *ret = p;
    return MX_LT_SUCCESS;
}

bool lines_aligned(const layout &l) {
    return (size_t)l.ld * value_bytes(l.type) % VECTOR_BYTES == 0;
}
bool takes_vector(const problem &p) {
    return p.k % 8 == 0 && lines_aligned(p.a) && lines_aligned(p.b) && lines_aligned(p.c) && lines_aligned(p.d);
}

int heuristic(mx_lt_handle handle, mx_lt_description *form, mx_lt_layout *a, mx_lt_layout *b, mx_lt_layout *c, mx_lt_layout *d,
              mx_lt_preference *wish, int wanted, mx_lt_result *result, int *found) {
    problem p;
    int code;
    bool vector;

    *found = 0;
    if (handle != &context || wanted < 1) {
        return MX_LT_INVALID_VALUE;
    }
    code = understand(form, a, b, c, d, &p);
    if (code) {
        return code;
    }
    vector = takes_vector(p) && wish->workspace >= VECTOR_WORKSPACE;
    for (int i = 0; i < 4; i++) {
        vector = vector && wish->alignment[i] >= VECTOR_BYTES;
    }
    for (int kind = vector ? VECTOR : SCALAR; kind <= SCALAR && *found < wanted; kind++) {
        mx_lt_result *r = &result[(*found)++];

        memset(r, 0, sizeof *r);
        r->algorithm.data[0] = ALGORITHM;
        r->algorithm.data[1] = (uint64_t)kind;
        r->workspace = kind == VECTOR ? VECTOR_WORKSPACE : 0;
        r->state = MX_LT_SUCCESS;
        r->waves = 1;
    }
    return MX_LT_SUCCESS;
}

/* ------------------------------------------------------------------ the product */

/* Row-major: a column-major matrix that is not transposed is a transposed one. */
shim_factor factor(const void *data, const layout &l, int operation) {
    return shim_factor{ data, l.ld, operation != MX_LT_TRANSPOSED };
}
shim_factor flipped(shim_factor f) {
    f.transposed = !f.transposed;
    return f;
}

float get(const void *data, const layout &l, int64_t row, int64_t column) {
    int64_t at = column * l.ld + row;

    return l.type == MX_LT_BF16 ? mx_float(static_cast<const mx_bf16 *>(data)[at]) : static_cast<const float *>(data)[at];
}
void put(void *data, const layout &l, int64_t row, int64_t column, float v) {
    int64_t at = column * l.ld + row;

    if (l.type == MX_LT_BF16) {
        static_cast<mx_bf16 *>(data)[at] = mx_rounded<mx_bf16>(v);
    } else {
        static_cast<float *>(data)[at] = v;
    }
}

void multiply(const problem &p, const mx_lt_description *form, float alpha, const void *a, const void *b, float beta, const void *c, void *d) {
    shim_factor left = factor(a, p.a, form->first), right = factor(b, p.b, form->second);
    bool bf16 = p.a.type == MX_LT_BF16, in_place = c == d && p.c.ld == p.d.ld;

    if (alpha == 1 && (beta == 0 || (beta == 1 && in_place))) {
        shim_product(p.n, p.m, p.k, flipped(right), flipped(left), bf16, d, p.d.ld, p.d.type == MX_LT_BF16, beta == 1);
        return;
    }
    std::vector<float> sum((size_t)(p.m * p.n));

    shim_product(p.m, p.n, p.k, left, right, bf16, sum.data(), p.n, false, false);
    for (int64_t i = 0; i < p.m; i++) {
        for (int64_t j = 0; j < p.n; j++) {
            float v = alpha * sum[(size_t)(i * p.n + j)];

            put(d, p.d, i, j, beta == 0 ? v : v + beta * get(c, p.c, i, j));
        }
    }
}

bool aligned(const void *p) {
    return reinterpret_cast<uintptr_t>(p) % VECTOR_BYTES == 0;
}

int matmul(mx_lt_handle handle, mx_lt_description *form, const void *alpha, const void *a, mx_lt_layout *la, const void *b, mx_lt_layout *lb,
           const void *beta, const void *c, mx_lt_layout *lc, void *d, mx_lt_layout *ld, const mx_lt_algorithm *how, void *workspace,
           size_t workspace_bytes, cudaStream_t) {
    shim::device_access access;
    problem p;
    float by, old;

    if (handle != &context || !a || !b || !c || !d || !how || how->data[0] != ALGORITHM) {
        return MX_LT_INVALID_VALUE;
    }
    int code = understand(form, la, lb, lc, ld, &p);

    if (code) {
        return code;
    }
    if (how->data[1] == VECTOR) {
        if (!takes_vector(p) || !aligned(a) || !aligned(b) || !aligned(c) || !aligned(d) || !workspace ||
            workspace_bytes < VECTOR_WORKSPACE) {
            return MX_LT_INVALID_VALUE;
        }
        memset(workspace, 0xff, VECTOR_WORKSPACE);
    }
    memcpy(&by, alpha, sizeof by);
    memcpy(&old, beta, sizeof old);
    multiply(p, form, by, a, b, old, c, d);
    return MX_LT_SUCCESS;
}

} // namespace

extern const mx_cublaslt mx_shim_cublaslt;
const mx_cublaslt mx_shim_cublaslt = {
    .object = NULL,
    .path = "the shim's",
    .version = 130100,
    .create = create,
    .destroy = destroy,
    .get_version = get_version,
    .status_name = status_name,
    .description_create = description_create,
    .description_destroy = description_destroy,
    .description_set = description_set,
    .layout_init = layout_init,
    .preference_create = preference_create,
    .preference_destroy = preference_destroy,
    .preference_set = preference_set,
    .heuristic = heuristic,
    .matmul = matmul,
};
