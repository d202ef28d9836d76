/* portable.h - the CUDA C that our .cu files are written in, for two compilers.
 *
 * nvcc makes kernels of them. A host C++ compiler makes ordinary functions of them through shim/shim.h (a fiber for each
 * CUDA thread), so that every kernel runs in the tests of a machine without a GPU, under the sanitizers too. What differs is
 * here and nowhere else: launches go through mx_launch (cuda.h), dynamic shared memory through MX_DYNAMIC_SHARED, and
 * tensor-core products, ldmatrix and cp.async through the functions below. Only what sm_80 has is used: mma.sync and
 * cp.async, no wgmma, no TMA, no clusters.
 *
 * Rules that keep both compilers happy: warp functions with their mask (all 32 lanes: MX_WARP), no early return before a
 * __syncthreads or a warp function, shared arrays of plain types, no inline assembly outside this file, no static locals. */
#ifndef KERNELS_CUDA_PORTABLE_H
#define KERNELS_CUDA_PORTABLE_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define MX_DYNAMIC_SHARED(type, name)                                       \
    extern __shared__ __align__(128) unsigned char mx_dynamic_shared_[];    \
    type *name = reinterpret_cast<type *>(mx_dynamic_shared_)
#else
#include "kernels/cuda/shim/shim.h"
#endif

#define MX_DEVICE static __device__ __forceinline__
#define MX_BOTH static __host__ __device__ __forceinline__
#define MX_WARP 0xffffffffu

/* ------------------------------------------------------------------ bf16 */
struct mx_bf16 {
    uint16_t bits;
};

MX_BOTH float mx_float(float v) {
    return v;
}
MX_BOTH float mx_float(mx_bf16 v) {
    uint32_t bits = (uint32_t)v.bits << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}
/* To nearest, ties to even; a NaN stays one: the CPU's mx_bf16_round. */
MX_BOTH uint16_t mx_bf16_bits(float f) {
#ifdef __CUDA_ARCH__
    uint16_t converted;

    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(converted) : "f"(f)); /* the same, but every NaN is 0x7fff */
    return converted;
#else
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;

    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
#endif
}
/* mx_rounded<T>(f): f as an activation of type T. */
template <class T> __host__ __device__ __forceinline__ T mx_rounded(float f);
template <> __host__ __device__ __forceinline__ float mx_rounded<float>(float f) {
    return f;
}
template <> __host__ __device__ __forceinline__ mx_bf16 mx_rounded<mx_bf16>(float f) {
    mx_bf16 v = { mx_bf16_bits(f) };

    return v;
}
/* Two neighbours as an mma register: `low` is the one with the lower index. */
MX_BOTH uint32_t mx_bf16_pair(mx_bf16 low, mx_bf16 high) {
    return (uint32_t)low.bits | (uint32_t)high.bits << 16;
}
MX_BOTH uint32_t mx_bf16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
    uint32_t pair;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)mx_bf16_bits(low) | (uint32_t)mx_bf16_bits(high) << 16;
#endif
}

/* ------------------------------------------------------------------ sums across threads */
MX_DEVICE float mx_warp_sum(float v) {
    for (int o = 16; o > 0; o >>= 1) {
        v += __shfl_xor_sync(MX_WARP, v, o);
    }
    return v;
}
MX_DEVICE double mx_warp_sum(double v) {
    for (int o = 16; o > 0; o >>= 1) {
        v += __shfl_xor_sync(MX_WARP, v, o);
    }
    return v;
}
MX_DEVICE float mx_warp_max(float v) {
    for (int o = 16; o > 0; o >>= 1) {
        v = fmaxf(v, __shfl_xor_sync(MX_WARP, v, o));
    }
    return v;
}
/* The sum over a block of whole warps (at most 1024 threads), in every thread; `shared` holds 32 values and is free again
 * when the call returns. Same order every time. */
template <class F> static __device__ F mx_block_sum(F v, F *shared) {
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;

    v = mx_warp_sum(v);
    if (lane == 0) {
        shared[warp] = v;
    }
    __syncthreads();
    v = mx_warp_sum(lane < warps ? shared[lane] : (F)0);
    __syncthreads();
    return v;
}
MX_DEVICE float mx_block_max(float v, float *shared) {
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;

    v = mx_warp_max(v);
    if (lane == 0) {
        shared[warp] = v;
    }
    __syncthreads();
    v = mx_warp_max(lane < warps ? shared[lane] : -INFINITY);
    __syncthreads();
    return v;
}

/* ------------------------------------------------------------------ tensor cores (sm_80)
 * d (16x8) = a (16x16) b (16x8) + c, bf16 factors, f32 sums, by one whole warp. Fragments as in the PTX manual, g = lane / 4,
 * t = lane % 4:  a[0] row g, columns 2t, 2t+1;  a[1] row g+8;  a[2] row g, columns 2t+8, 2t+9;  a[3] row g+8, the same;
 * b[0] column g, rows 2t, 2t+1;  b[1] rows 2t+8, 2t+9;  c[0], c[1] row g, columns 2t, 2t+1;  c[2], c[3] row g+8. */
MX_DEVICE void mx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4]) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
    shim::mma_bf16(d, a, b, c);
#endif
}

/* Four 8x8 matrices of bf16 from shared memory: lane l names the 16-byte row l % 8 of matrix l / 8; r[i] is this lane's pair
 * of matrix i, row lane / 4, columns 2 (lane % 4) and the next (transposed: of the matrix's transpose). */
MX_DEVICE void mx_ldmatrix_x4(uint32_t r[4], const void *shared_row) {
#ifdef __CUDACC__
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared_row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
#else
    shim::ldmatrix_x4(r, shared_row, false);
#endif
}
MX_DEVICE void mx_ldmatrix_x4_transposed(uint32_t r[4], const void *shared_row) {
#ifdef __CUDACC__
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared_row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
#else
    shim::ldmatrix_x4(r, shared_row, true);
#endif
}

/* 16 bytes from global to shared memory, both 16-byte aligned, behind the thread's back; `bytes` (0..16) are read, the rest
 * becomes zero. Visible to this thread after commit and wait, to others after a __syncthreads behind that. */
MX_DEVICE void mx_cp_async16(void *shared, const void *global, int bytes) {
#ifdef __CUDACC__
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(bytes) : "memory");
#else
    shim::cp_async16(shared, global, bytes);
#endif
}
MX_DEVICE void mx_cp_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    shim::cp_async_commit();
#endif
}
/* Until at most `PENDING` of this thread's groups are on their way. */
template <int PENDING> MX_DEVICE void mx_cp_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
    shim::cp_async_wait(PENDING);
#endif
}

/* ------------------------------------------------------------------ noise: base/rng.h's words on the device */
/* One input's noise, ready for a kernel: key and numbers worked out on the host (mx_noise_of in cuda.h). */
struct mx_noise_key {
    uint32_t key[2], site, threshold; /* dropped: the element's 16 bits are below it */
    float rate, keep;                 /* keep = 1 / (1 - rate) */
};

/* Philox4x32-10. Words of columns 8 block .. 8 block + 7: word w holds columns 2w (low 16 bits) and 2w + 1. */
MX_DEVICE void mx_noise_words(const mx_noise_key &n, uint32_t block, int32_t position, int32_t question, uint32_t word[4]) {
    uint32_t c0 = block, c1 = (uint32_t)position, c2 = (uint32_t)question, c3 = n.site, k0 = n.key[0], k1 = n.key[1];

#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}
/* The 16 bits of column 8 block + j. */
MX_DEVICE uint32_t mx_noise_half(const uint32_t word[4], int j) {
    return j & 1 ? word[j >> 1] >> 16 : word[j >> 1] & 0xffffu;
}
/* Bit j of the result: column 8 block + j is kept. */
MX_DEVICE uint32_t mx_noise_kept8(const mx_noise_key &n, uint32_t block, int32_t position, int32_t question) {
    uint32_t word[4], kept = 0;

    mx_noise_words(n, block, position, question, word);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        kept |= (mx_noise_half(word, j) >= n.threshold ? 1u : 0u) << j;
    }
    return kept;
}

#endif
