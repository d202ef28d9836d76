/* sort.h - indices in the order of small keys, on the device. */
#ifndef KERNELS_CUDA_SORT_H
#define KERNELS_CUDA_SORT_H

#include "kernels/cuda/cuda.h"

/* order = those i of `from` (NULL: 0 .. n-1) whose key[i] is in [0, bins), by key, equal keys in from's order; the others are left
 * out. begin (bins + 1), not NULL: where each key's run starts, begin[bins] being how many there are. A counting sort: each bin
 * is a block's, which reads all n keys; meant for hundreds of bins. `count` (bins) is scratch. */
void mx_cuda_sort(mx_cuda *c, int64_t n, int64_t bins, const int32_t *key, const int32_t *from, int32_t *order, int32_t *begin,
                  int32_t *count);

#endif
