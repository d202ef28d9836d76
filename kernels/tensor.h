/* tensor.h - a view of numbers somewhere: shape, type, and a pointer it does not own. */
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include <stddef.h>
#include <stdint.h>

typedef enum mx_dtype { MX_F32, MX_BF16, MX_I32, MX_I64, MX_F64 } mx_dtype;

/* Row-major, contiguous. `data` points into memory of the backend that made the view; only
 * that backend's ops may follow it. */
typedef struct mx_tensor {
    void *data;
    int64_t dim[4]; /* outermost first; unused trailing dims are 1 */
    int rank;
    mx_dtype dtype;
} mx_tensor;

static inline size_t mx_dtype_bytes(mx_dtype t) {
    return t == MX_BF16 ? 2 : t == MX_F32 || t == MX_I32 ? 4 : 8;
}

static inline size_t mx_tensor_bytes(const mx_tensor *t) {
    return (size_t)(t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]) * mx_dtype_bytes(t->dtype);
}

static inline mx_tensor mx_tensor_2d(void *data, mx_dtype dtype, int64_t rows, int64_t columns) {
    mx_tensor t = { .data = data, .dim = { rows, columns, 1, 1 }, .rank = 2, .dtype = dtype };

    return t;
}

#endif
