/* What the shim promises kernels: threads, warps, barriers, tensor cores, copies on their way, atomics, poisoned memory, and the
 * device's memory and errors. Each test is a process of its own, so that each may set the environment. */
#include "kernels/cuda/portable.h"

#include <criterion/criterion.h>

#include <vector>

namespace {

/* Runs `test` with the threads in order, and with several schedules. */
template <class F> void under_every_schedule(F test) {
    test();
    shim::reseed(1);
    test();
    shim::reseed(77);
    test();
}

uint32_t mixed(uint32_t v) {
    v ^= v >> 16;
    v *= 0x7feb352du;
    v ^= v >> 15;
    v *= 0x846ca68bu;
    return v ^ v >> 16;
}

/* In [-2, 2), held exactly by bf16. */
mx_bf16 any_bf16(uint32_t i) {
    return mx_rounded<mx_bf16>((float)(int)(mixed(i) % 256) / 64.0f - 2.0f);
}

/* ------------------------------------------------------------------ threads */

struct seen {
    int count;
    uint3 thread, block;
    unsigned block_dim, grid_dim;
};
__global__ void kernel_seen(seen *out) {
    unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    seen *mine = out + b * blockDim.x * blockDim.y * blockDim.z + t;

    mine->count++;
    mine->thread = threadIdx;
    mine->block = blockIdx;
    mine->block_dim = blockDim.x * 10000 + blockDim.y * 100 + blockDim.z;
    mine->grid_dim = gridDim.x * 10000 + gridDim.y * 100 + gridDim.z;
}

Test(shim, every_thread_of_every_block_runs_once) {
    static const dim3 GRIDS[] = { 1, 7, dim3(3, 5), dim3(2, 3, 4), 1000 }, BLOCKS[] = { 1, 31, 1024, dim3(8, 4), dim3(3, 5, 7) };

    under_every_schedule([] {
        for (dim3 g : GRIDS) {
            for (dim3 b : BLOCKS) {
                unsigned threads = b.x * b.y * b.z, blocks = g.x * g.y * g.z;
                std::vector<seen> all((size_t)threads * blocks, seen{});
                seen *out = all.data();

                shim::launch("seen", g, b, 0, [=] { kernel_seen(out); });
                for (unsigned i = 0; i < threads * blocks; i++) {
                    unsigned t = i % threads, k = i / threads;

                    cr_assert_eq(out[i].count, 1);
                    cr_assert_eq(out[i].thread.x, t % b.x);
                    cr_assert_eq(out[i].thread.y, t / b.x % b.y);
                    cr_assert_eq(out[i].thread.z, t / b.x / b.y);
                    cr_assert_eq(out[i].block.x, k % g.x);
                    cr_assert_eq(out[i].block.y, k / g.x % g.y);
                    cr_assert_eq(out[i].block.z, k / g.x / g.y);
                    cr_assert_eq(out[i].block_dim, b.x * 10000 + b.y * 100 + b.z);
                    cr_assert_eq(out[i].grid_dim, g.x * 10000 + g.y * 100 + g.z);
                }
            }
        }
    });
}

/* Threads 0 .. n-1 note the order in which they run up to a barrier. */
__global__ void kernel_order(int *order, int *count) {
    order[atomicAdd(count, 1)] = (int)threadIdx.x;
    __syncthreads();
}

Test(shim, a_seed_changes_the_order_and_repeats_it) {
    auto order_of = [](uint64_t seed) {
        std::vector<int> order(256);
        int count = 0, *o = order.data(), *c = &count;

        shim::reseed(seed);
        shim::launch("order", 1, 256, 0, [=] { kernel_order(o, c); });
        cr_assert_eq(count, 256);
        return order;
    };
    std::vector<int> plain = order_of(0);

    for (int i = 0; i < 256; i++) {
        cr_assert_eq(plain[(size_t)i], i);
    }
    cr_assert(order_of(5) == order_of(5));
    cr_assert(order_of(5) != order_of(6));
    cr_assert(order_of(5) != plain);
}

/* ------------------------------------------------------------------ warps */

template <class T> __global__ void kernel_shuffles(T *out, int width, int by) {
    int i = (int)threadIdx.x;
    T v = (T)(i * 3 + 1);

    out[4 * i] = __shfl_sync(MX_WARP, v, by, width);
    out[4 * i + 1] = __shfl_xor_sync(MX_WARP, v, by, width);
    out[4 * i + 2] = __shfl_down_sync(MX_WARP, v, (unsigned)by, width);
    out[4 * i + 3] = __shfl_up_sync(MX_WARP, v, (unsigned)by, width);
}

template <class T> void check_shuffles() {
    T out[4 * 96];
    T *o = out;

    for (int width = 2; width <= 32; width *= 2) {
        for (int by = 0; by < width; by++) {
            shim::launch("shuffles", 1, 96, 0, [=] { kernel_shuffles<T>(o, width, by); });
            for (int i = 0; i < 96; i++) {
                int first = i / width * width, down = i + by < first + width ? i + by : i, up = i - by >= first ? i - by : i;

                cr_assert_eq(out[4 * i], (T)((first + by) * 3 + 1));
                cr_assert_eq(out[4 * i + 1], (T)((i ^ by) * 3 + 1));
                cr_assert_eq(out[4 * i + 2], (T)(down * 3 + 1));
                cr_assert_eq(out[4 * i + 3], (T)(up * 3 + 1));
            }
        }
    }
}

Test(shim, shuffles_of_4_and_8_bytes) {
    under_every_schedule([] {
        check_shuffles<int>();
        check_shuffles<float>();
        check_shuffles<double>();
        check_shuffles<unsigned long long>();
    });
}

/* Halves of a warp by themselves, in different numbers of rounds; a warp that is not whole. */
__global__ void kernel_parts(int *out) {
    int i = (int)threadIdx.x, lane = i % 32, sum = 0;
    unsigned half = lane < 12 ? 0xfffu : 0xfffff000u;

    for (int round = 0; round < (lane < 12 ? 5 : 3); round++) {
        sum += __shfl_sync(half, i, lane < 12 ? 11 : 12);
        __syncwarp(half);
    }
    out[3 * i] = sum;
    out[3 * i + 1] = __popc(__ballot_sync(MX_WARP, 1));
    out[3 * i + 2] = __shfl_sync(half, i, lane < 12 ? 31 : 0);
}

Test(shim, parts_of_warps) {
    under_every_schedule([] {
        int out[3 * 84], *o = out;

        shim::launch("parts", 1, 84, 0, [=] { kernel_parts(o); });
        for (int i = 0; i < 84; i++) {
            int warp = i / 32 * 32;

            cr_assert_eq(out[3 * i], i % 32 < 12 ? 5 * (warp + 11) : 3 * (warp + 12));
            cr_assert_eq(out[3 * i + 1], warp == 64 ? 20 : 32);
            cr_assert_eq(out[3 * i + 2], -1, "a lane outside of the mask brings nothing");
        }
    });
}

__global__ void kernel_votes(unsigned *out) {
    unsigned i = threadIdx.x;

    out[6 * i] = __ballot_sync(MX_WARP, i % 3 == 0);
    out[6 * i + 1] = (unsigned)__any_sync(MX_WARP, i == 40);
    out[6 * i + 2] = (unsigned)__all_sync(MX_WARP, i >= 32);
    out[6 * i + 3] = __match_any_sync(MX_WARP, (int)(i % 5));
    out[6 * i + 4] = __match_any_sync(MX_WARP, (unsigned long long)(i / 7) << 40);
    out[6 * i + 5] = (unsigned)__any_sync(MX_WARP, 0);
}

Test(shim, ballots_and_matches) {
    under_every_schedule([] {
        unsigned out[6 * 64], *o = out;

        shim::launch("votes", 1, 64, 0, [=] { kernel_votes(o); });
        for (unsigned i = 0; i < 64; i++) {
            unsigned ballot = 0, match5 = 0, match7 = 0;

            for (unsigned j = i / 32 * 32, bit = 0; bit < 32; j++, bit++) {
                ballot |= (j % 3 == 0 ? 1u : 0u) << bit;
                match5 |= (j % 5 == i % 5 ? 1u : 0u) << bit;
                match7 |= (j / 7 == i / 7 ? 1u : 0u) << bit;
            }
            cr_assert_eq(out[6 * i], ballot);
            cr_assert_eq(out[6 * i + 1], i >= 32);
            cr_assert_eq(out[6 * i + 2], i >= 32);
            cr_assert_eq(out[6 * i + 3], match5);
            cr_assert_eq(out[6 * i + 4], match7);
            cr_assert_eq(out[6 * i + 5], 0);
        }
    });
}

/* ------------------------------------------------------------------ barriers */

__global__ void kernel_rotate(int *out, int rounds) {
    __shared__ int value[2][320];
    int i = (int)threadIdx.x, n = (int)blockDim.x;

    value[0][i] = i + (int)blockIdx.x * 1000;
    for (int r = 0; r < rounds; r++) {
        __syncthreads();
        value[(r + 1) % 2][i] = value[r % 2][(i + 1) % n];
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = value[rounds % 2][i];
}

Test(shim, barriers_order_shared_memory) {
    under_every_schedule([] {
        for (int threads : { 1, 32, 33, 320 }) {
            std::vector<int> out((size_t)threads * 9);
            int *o = out.data();

            shim::launch("rotate", 9, (unsigned)threads, 0, [=] { kernel_rotate(o, 57); });
            for (int i = 0; i < threads * 9; i++) {
                cr_assert_eq(out[(size_t)i], (i % threads + 57) % threads + i / threads * 1000);
            }
        }
    });
}

__global__ void kernel_counts(int *out) {
    int i = (int)threadIdx.x;

    for (int r = 0; r < 10; r++) {
        out[40 * i + 4 * r] = __syncthreads_count(i < r * 13);
        out[40 * i + 4 * r + 1] = __syncthreads_or(i == r * 7);
        out[40 * i + 4 * r + 2] = __syncthreads_and(i != r * 7);
        out[40 * i + 4 * r + 3] = __syncthreads_and(1) + __syncthreads_or(0);
    }
}

Test(shim, barriers_count) {
    under_every_schedule([] {
        int out[40 * 50], *o = out;

        shim::launch("counts", 1, 50, 0, [=] { kernel_counts(o); });
        for (int i = 0; i < 50; i++) {
            for (int r = 0; r < 10; r++) {
                cr_assert_eq(out[40 * i + 4 * r], r * 13 < 50 ? r * 13 : 50);
                cr_assert_eq(out[40 * i + 4 * r + 1], r * 7 < 50);
                cr_assert_eq(out[40 * i + 4 * r + 2], r * 7 >= 50);
                cr_assert_eq(out[40 * i + 4 * r + 3], 1);
            }
        }
    });
}

/* ------------------------------------------------------------------ tensor cores */

/* One warp: d (16,8) = a (16,16) b (16,8) + c, through registers as the PTX manual lays them out. */
__global__ void kernel_mma(float *d, const mx_bf16 *a, const mx_bf16 *b, const float *c) {
    int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
    uint32_t ra[4], rb[2];
    float rc[4], rd[4];

    for (int i = 0; i < 4; i++) {
        const mx_bf16 *at = a + (g + 8 * (i & 1)) * 16 + 2 * t + 8 * (i >> 1);

        ra[i] = mx_bf16_pair(at[0], at[1]);
        rc[i] = c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
    }
    for (int i = 0; i < 2; i++) {
        rb[i] = mx_bf16_pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
    }
    mx_mma_bf16(rd, ra, rb, rc);
    for (int i = 0; i < 4; i++) {
        d[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = rd[i];
    }
}

Test(shim, mma_is_a_product) {
    under_every_schedule([] {
        for (uint32_t trial = 0; trial < 20; trial++) {
            mx_bf16 a[256], b[128];
            float c[128], d[128], *pd = d;
            const mx_bf16 *pa = a, *pb = b;
            const float *pc = c;

            for (uint32_t i = 0; i < 256; i++) {
                a[i] = any_bf16(1000 * trial + i);
                b[i / 2] = any_bf16(1000 * trial + 300 + i / 2);
                c[i / 2] = mx_float(any_bf16(1000 * trial + 500 + i / 2));
            }
            shim::launch("mma", 1, 32, 0, [=] { kernel_mma(pd, pa, pb, pc); });
            for (int row = 0; row < 16; row++) {
                for (int column = 0; column < 8; column++) {
                    double sum = c[row * 8 + column];

                    for (int k = 0; k < 16; k++) {
                        sum += (double)mx_float(a[row * 16 + k]) * mx_float(b[k * 8 + column]);
                    }
                    cr_assert_float_eq(d[row * 8 + column], sum, 1e-5, "(%d,%d): %g, not %g", row, column, d[row * 8 + column], sum);
                }
            }
        }
    });
}

__global__ void kernel_ldmatrix(uint32_t *out, bool transposed) {
    __shared__ __align__(16) uint16_t m[32 * 24]; /* 32 rows of 8, 48 bytes apart */
    int lane = (int)threadIdx.x;
    uint32_t r[4];

    for (int j = 0; j < 8; j++) {
        m[lane * 24 + j] = (uint16_t)(lane * 8 + j);
    }
    __syncwarp();
    if (transposed) {
        mx_ldmatrix_x4_transposed(r, m + lane * 24);
    } else {
        mx_ldmatrix_x4(r, m + lane * 24);
    }
    for (int i = 0; i < 4; i++) {
        out[lane * 4 + i] = r[i];
    }
}

Test(shim, ldmatrix_both_ways) {
    under_every_schedule([] {
        for (int transposed = 0; transposed < 2; transposed++) {
            uint32_t out[128], *o = out;

            shim::launch("ldmatrix", 1, 32, 0, [=] { kernel_ldmatrix(o, transposed); });
            for (int lane = 0; lane < 32; lane++) {
                for (int i = 0; i < 4; i++) {
                    int row = lane / 4, column = 2 * (lane % 4);
                    int low = transposed ? i * 64 + column * 8 + row : i * 64 + row * 8 + column;
                    int high = transposed ? low + 8 : low + 1;

                    cr_assert_eq(out[lane * 4 + i], (uint32_t)low | (uint32_t)high << 16);
                }
            }
        }
    });
}

/* ------------------------------------------------------------------ copies on their way */

__global__ void kernel_copies(uint32_t *out, const uint4 *from) {
    __shared__ uint4 to[4];

    for (int i = 0; i < 4; i++) {
        to[i] = uint4{ 5, 5, 5, 5 };
    }
    mx_cp_async16(&to[0], from, 16);
    out[0] = to[0].x; /* on its way */
    mx_cp_async_commit();
    mx_cp_async16(&to[1], from + 1, 6);
    mx_cp_async16(&to[2], from + 2, 0);
    mx_cp_async_commit();
    mx_cp_async16(&to[3], from + 3, 16);
    out[1] = to[0].x;
    mx_cp_async_wait<2>();
    out[2] = to[0].x;
    mx_cp_async_wait<1>();
    out[3] = to[0].w;
    out[4] = to[1].x;
    mx_cp_async_wait<0>(); /* the third copy is in no group yet */
    out[5] = to[1].x;
    out[6] = to[1].y;
    out[7] = to[1].z;
    out[8] = to[2].x;
    out[9] = to[3].x;
    mx_cp_async_commit();
    mx_cp_async_wait<0>();
    out[10] = to[3].x;
}

Test(shim, copies_land_when_they_are_waited_for) {
    uint4 from[4] = { { 1, 2, 3, 4 }, { 0x11111111, 0x22222222, 7, 8 }, { 9, 9, 9, 9 }, { 10, 11, 12, 13 } };
    static const uint32_t EXPECTED[] = { ~0u, ~0u, ~0u, 4, ~0u, 0x11111111, 0x2222, 0, 0, ~0u, 10 };
    uint32_t out[11], *o = out;
    const uint4 *f = from;

    for (int again = 0; again < 2; again++) { /* nothing stays behind from one launch to the next */
        shim::launch("copies", 1, 1, 0, [=] { kernel_copies(o, f); });
        for (int i = 0; i < 11; i++) {
            cr_assert_eq(out[i], EXPECTED[i], "%d: %x, not %x", i, out[i], EXPECTED[i]);
        }
    }
}

/* A pipeline of three stages, as kernels have it: sums of columns. */
__global__ void kernel_pipeline(float *out, const float *x, int tiles) {
    __shared__ __align__(16) float stage[3][64 * 4];
    int i = (int)threadIdx.x;
    float sum = 0;

    for (int t = 0; t < 2; t++) {
        mx_cp_async16(&stage[t][i * 4], x + (t * 64 + i) * 4, t < tiles ? 16 : 0);
        mx_cp_async_commit();
    }
    for (int t = 0; t < tiles; t++) {
        mx_cp_async_wait<1>();
        __syncthreads();
        for (int j = 0; j < 4; j++) {
            sum += stage[t % 3][(63 - i) * 4 + j];
        }
        if (t + 2 < tiles) {
            mx_cp_async16(&stage[(t + 2) % 3][i * 4], x + ((t + 2) * 64 + i) * 4, 16);
        }
        mx_cp_async_commit();
    }
    out[i] = sum;
}

Test(shim, a_pipeline_of_copies) {
    under_every_schedule([] {
        alignas(16) float x[9 * 64 * 4];
        float out[64], *o = out;
        const float *px = x;

        for (int i = 0; i < 9 * 64 * 4; i++) {
            x[i] = (float)(mixed((uint32_t)i) % 1000);
        }
        shim::launch("pipeline", 1, 64, 0, [=] { kernel_pipeline(o, px, 9); });
        for (int i = 0; i < 64; i++) {
            float sum = 0;

            for (int t = 0; t < 9; t++) {
                for (int j = 0; j < 4; j++) {
                    sum += x[(t * 64 + 63 - i) * 4 + j];
                }
            }
            cr_assert_eq(out[i], sum);
        }
    });
}

/* ------------------------------------------------------------------ atomics, fences */

struct totals {
    int sum, most, least;
    unsigned bits, taken, histogram[16];
    unsigned long long wide, widest;
    float floats;
};
__global__ void kernel_atomics(totals *t) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    atomicAdd(&t->sum, i);
    atomicMax(&t->most, i);
    atomicMin(&t->least, -i);
    atomicOr(&t->bits, 1u << (i % 31));
    atomicAdd(&t->histogram[i % 16], 1u);
    atomicAdd(&t->wide, 1ull << 33);
    atomicMax(&t->widest, (unsigned long long)i << 33);
    atomicAdd(&t->floats, 1.0f);
    unsigned old = 0, seen;

    while ((seen = atomicCAS(&t->taken, old, old + 2)) != old) { /* an addition by hand */
        old = seen;
    }
}

Test(shim, atomics) {
    under_every_schedule([] {
        totals t = {}, *p = &t;
        int n = 64 * 256;

        shim::launch("atomics", 64, 256, 0, [=] { kernel_atomics(p); });
        cr_assert_eq(t.sum, n * (n - 1) / 2);
        cr_assert_eq(t.most, n - 1);
        cr_assert_eq(t.least, 1 - n);
        cr_assert_eq(t.bits, 0x7fffffffu);
        for (int i = 0; i < 16; i++) {
            cr_assert_eq(t.histogram[i], (unsigned)n / 16);
        }
        cr_assert_eq(t.wide, (unsigned long long)n << 33);
        cr_assert_eq(t.widest, (unsigned long long)(n - 1) << 33);
        cr_assert_eq(t.floats, (float)n);
        cr_assert_eq(t.taken, 2u * (unsigned)n);
    });
}

/* The last block to finish adds what all have written. */
__global__ void kernel_ticket(double *result, double *part, unsigned *ticket) {
    __shared__ bool last;

    if (threadIdx.x == 0) {
        part[blockIdx.x] = (double)blockIdx.x + 0.5;
        __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        double sum = 0;

        for (unsigned b = 0; b < gridDim.x; b++) {
            sum += part[b];
        }
        *result = sum;
    }
}

Test(shim, tickets) {
    under_every_schedule([] {
        double part[100], result = 0, *p = part, *r = &result;
        unsigned ticket = 0, *t = &ticket;

        shim::launch("ticket", 100, 96, 0, [=] { kernel_ticket(r, p, t); });
        cr_assert_eq(result, 100 * 99 / 2 + 50);
    });
}

/* ------------------------------------------------------------------ poison */

__global__ void kernel_poison(int *out) {
    __shared__ unsigned fixed[40];
    MX_DYNAMIC_SHARED(unsigned, dynamic);
    int i = (int)threadIdx.x;

    if (reinterpret_cast<uintptr_t>(dynamic) % 128) {
        out[0] = -1;
    }
    atomicAdd(out, fixed[i] == ~0u);
    atomicAdd(out + 1, dynamic[i] == ~0u && dynamic[i + 40] == ~0u);
    fixed[i] = dynamic[i] = dynamic[i + 40] = 1;
}

Test(shim, shared_memory_starts_poisoned_in_every_block) {
    under_every_schedule([] {
        int out[2] = { 0, 0 }, *o = out;

        shim::launch("poison", 50, 40, 320, [=] { kernel_poison(o); });
        cr_assert_eq(out[0], SHIM_ADDRESS ? out[0] : 2000);
        cr_assert_eq(out[1], 2000);
    });
}

Test(shim, fresh_memory_is_poisoned) {
    void *device = NULL, *host = NULL;

    cr_assert_eq(cudaMalloc(&device, 1000), cudaSuccess);
    cr_assert_eq(cudaMallocHost(&host, 1000), cudaSuccess);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(static_cast<unsigned char *>(device)[i], 0xff);
        cr_assert_eq(static_cast<unsigned char *>(host)[i], 0xff);
    }
    cr_assert_eq(cudaFree(device), cudaSuccess);
    cr_assert_eq(cudaFreeHost(host), cudaSuccess);
}

/* ------------------------------------------------------------------ the device */

Test(shim, memory_is_counted) {
    void *a = NULL, *b = NULL;
    size_t free_bytes = 0, all = 0;

    setenv("MIXRUN_SHIM_BYTES", "1000000", 1);
    cr_assert_eq(cudaMalloc(&a, 600000), cudaSuccess);
    cr_assert_eq(cudaMemGetInfo(&free_bytes, &all), cudaSuccess);
    cr_assert_eq(all, 1000000);
    cr_assert_eq(free_bytes, 400000);
    cr_assert_eq(cudaMalloc(&b, 400001), cudaErrorMemoryAllocation);
    cr_assert_null(b);
    cr_assert_eq(cudaGetLastError(), cudaErrorMemoryAllocation);
    cr_assert_eq(cudaGetLastError(), cudaSuccess, "told once");
    cr_assert_eq(cudaMallocManaged(&b, 400000, cudaMemAttachGlobal), cudaSuccess);
    cr_assert_eq(cudaFree(a), cudaSuccess);
    cr_assert_eq(cudaFree(a), cudaErrorInvalidValue, "given back twice");
    cr_assert_eq(cudaFree(b), cudaSuccess);
    cr_assert_eq(cudaFree(NULL), cudaSuccess);
    cr_assert_eq(shim::runtime_bytes(), 0);
}

Test(shim, copies_events_and_properties) {
    int from[4] = { 1, 2, 3, 4 }, to[4] = { 0, 0, 0, 0 }, n = 0;
    cudaDeviceProp p;
    cudaStream_t s;
    cudaEvent_t a, b;
    float ms = -1;

    cr_assert_eq(cudaGetDeviceCount(&n), cudaSuccess);
    cr_assert_eq(n, 1);
    cr_assert_eq(cudaGetDeviceProperties(&p, 0), cudaSuccess);
    cr_assert_str_eq(p.name, "CUDA shim on the CPU");
    cr_assert(p.major == 9 && p.minor == 0 && p.totalGlobalMem == (size_t)8 << 30);
    cr_assert_eq(cudaGetDeviceProperties(&p, 1), cudaErrorInvalidDevice);
    cr_assert_eq(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), cudaSuccess);
    cr_assert_eq(cudaEventCreateWithFlags(&a, cudaEventDefault), cudaSuccess);
    cr_assert_eq(cudaEventCreateWithFlags(&b, cudaEventDefault), cudaSuccess);
    cr_assert_eq(cudaEventRecord(a, s), cudaSuccess);
    cr_assert_eq(cudaMemcpyAsync(to, from, sizeof to, cudaMemcpyHostToDevice, s), cudaSuccess);
    cr_assert_eq(memcmp(to, from, sizeof to), 0);
    cr_assert_eq(cudaMemsetAsync(to, 0x11, 8, s), cudaSuccess);
    cr_assert(to[1] == 0x11111111 && to[2] == 3);
    cr_assert_eq(cudaEventRecord(b, s), cudaSuccess);
    cr_assert_eq(cudaEventQuery(b), cudaSuccess);
    cr_assert_eq(cudaEventElapsedTime(&ms, a, b), cudaSuccess);
    cr_assert(ms >= 0);
    cudaEventDestroy(a);
    cudaEventDestroy(b);
    cudaStreamDestroy(s);
}

__global__ void kernel_count(int *launches) {
    atomicAdd(launches, 1);
}

Test(shim, a_device_that_is_lost) {
    int launches = 0, *l = &launches;
    void *memory;

    setenv("MIXRUN_SHIM_FAIL", "lost after 3 launches", 1);
    for (int i = 0; i < 3; i++) {
        shim::launch("count", 1, 1, 0, [=] { kernel_count(l); });
        cr_assert_eq(cudaGetLastError(), cudaSuccess);
    }
    for (int i = 0; i < 3; i++) {
        shim::launch("count", 1, 1, 0, [=] { kernel_count(l); });
        cr_assert_eq(cudaGetLastError(), cudaErrorIllegalAddress);
    }
    cr_assert_eq(launches, 3);
    cr_assert_eq(cudaStreamSynchronize(NULL), cudaErrorIllegalAddress);
    cr_assert_eq(cudaMalloc(&memory, 8), cudaErrorIllegalAddress);
    cr_assert_str_eq(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
}

Test(shim, no_driver) {
    int n = -1, version = -1;

    setenv("MIXRUN_SHIM_FAIL", "no driver", 1);
    cr_assert_eq(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    cr_assert_eq(n, 0);
    cr_assert_eq(cudaDriverGetVersion(&version), cudaSuccess);
    cr_assert_eq(version, 0);
}

Test(shim, an_old_driver) {
    int n = -1, version = -1;

    setenv("MIXRUN_SHIM_FAIL", "old driver", 1);
    cr_assert_eq(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    cr_assert_eq(cudaDriverGetVersion(&version), cudaSuccess);
    cr_assert(version > 0 && version < CUDART_VERSION);
}

Test(shim, an_old_device) {
    cudaDeviceProp p;

    setenv("MIXRUN_SHIM_FAIL", "sm_75", 1);
    cr_assert_eq(cudaGetDeviceProperties(&p, 0), cudaSuccess);
    cr_assert(p.major == 7 && p.minor == 5);
}

}
