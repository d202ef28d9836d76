/* sort.cu - a stable counting sort whose order is the same every time: no thread's place depends on who came first. */
#include "kernels/cuda/sort.h"

static constexpr int THREADS = 256, WARPS = THREADS / 32, EACH = 8; /* keys of a thread at a time */

MX_DEVICE int64_t item(const int32_t *from, int64_t i) {
    return from ? from[i] : i;
}

static __global__ void count_kernel(int64_t n, const int32_t *key, int32_t *count) {
    __shared__ int total;
    int mine = 0;

    if (threadIdx.x == 0) {
        total = 0;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        mine += key[i] == (int32_t)blockIdx.x ? 1 : 0;
    }
    atomicAdd(&total, mine);
    __syncthreads();
    if (threadIdx.x == 0) {
        count[blockIdx.x] = total;
    }
}

/* Where the calling thread's `mine` items go within the block, and how many the block has. */
MX_DEVICE int places(int mine, int *warp_total, int *ret_all) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, sum = mine, before = 0, all = 0;

    for (int o = 1; o < 32; o *= 2) {
        int other = __shfl_up_sync(MX_WARP, sum, o);

        sum += lane >= o ? other : 0;
    }
    if (lane == 31) {
        warp_total[warp] = sum;
    }
    __syncthreads();
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? warp_total[w] : 0;
        all += warp_total[w];
    }
    __syncthreads();
    *ret_all = all;
    return before + sum - mine;
}

static __global__ void place_kernel(int64_t n, int64_t bins, const int32_t *key, const int32_t *from, const int32_t *count,
                                    int32_t *order, int32_t *begin) {
    __shared__ int warp_total[WARPS];
    int32_t bin = (int32_t)blockIdx.x;
    int64_t at = 0;

    for (int32_t b = 0; b < bin; b++) {
        at += count[b];
    }
    if (begin && threadIdx.x == 0) {
        begin[bin] = (int32_t)at;
        if (bin == bins - 1) {
            begin[bins] = (int32_t)at + count[bin];
        }
    }
    for (int64_t first = 0; first < n; first += THREADS * EACH) {
        int64_t mine = first + (int64_t)threadIdx.x * EACH;
        int32_t here[EACH];
        int found = 0, all;

        for (int j = 0; j < EACH; j++) {
            here[j] = mine + j < n ? (int32_t)item(from, mine + j) : -1;
            here[j] = here[j] >= 0 && key[here[j]] == bin ? here[j] : -1;
            found += here[j] >= 0 ? 1 : 0;
        }
        int64_t to = at + places(found, warp_total, &all);

        for (int j = 0; j < EACH; j++) {
            if (here[j] >= 0) {
                order[to++] = here[j];
            }
        }
        at += all;
    }
}

void mx_cuda_sort(mx_cuda *c, int64_t n, int64_t bins, const int32_t *key, const int32_t *from, int32_t *order, int32_t *begin,
                  int32_t *count) {
    assert(n <= INT32_MAX && bins > 0);
    mx_launch(c, "sort, counts", count_kernel, dim3((unsigned)bins), dim3(THREADS), 0, n, key, count);
    mx_launch(c, "sort, places", place_kernel, dim3((unsigned)bins), dim3(THREADS), 0, n, bins, key, from, count, order, begin);
}
