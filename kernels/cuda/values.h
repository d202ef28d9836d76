/* values.h - rows of activations in pieces of eight values: 16 bytes of bf16, 32 of f32, one draw of noise.
 *
 * `wide` says that 16-byte accesses are allowed, which the host works out once for each tensor (mx_wide): its pointer and its
 * row stride are multiples of 16 bytes. Otherwise the same values are moved one by one. */
#ifndef KERNELS_CUDA_VALUES_H
#define KERNELS_CUDA_VALUES_H

#include "kernels/cuda/cuda.h"

static constexpr int MX_PIECE = 8;

template <class T> static inline bool mx_wide(const T *values, int64_t ld) {
    return reinterpret_cast<uintptr_t>(values) % 16 == 0 && ld * (int64_t)sizeof(T) % 16 == 0;
}

/* `count` values, those past 8 left out; what is missing becomes zero. */
MX_DEVICE void mx_load8(float v[8], const float *from, int64_t count, bool wide) {
    if (wide && count >= 8) {
        float4 low = reinterpret_cast<const float4 *>(from)[0], high = reinterpret_cast<const float4 *>(from)[1];

        v[0] = low.x;
        v[1] = low.y;
        v[2] = low.z;
        v[3] = low.w;
        v[4] = high.x;
        v[5] = high.y;
        v[6] = high.z;
        v[7] = high.w;
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        v[j] = j < count ? from[j] : 0.0f;
    }
}
MX_DEVICE void mx_load8(float v[8], const mx_bf16 *from, int64_t count, bool wide) {
    if (wide && count >= 8) {
        uint4 bits = *reinterpret_cast<const uint4 *>(from);
        uint32_t word[4] = { bits.x, bits.y, bits.z, bits.w };

#pragma unroll
        for (int j = 0; j < 8; j++) {
            mx_bf16 one = { (uint16_t)(j & 1 ? word[j >> 1] >> 16 : word[j >> 1] & 0xffffu) };

            v[j] = mx_float(one);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        v[j] = j < count ? mx_float(from[j]) : 0.0f;
    }
}

MX_DEVICE void mx_store8(float *to, const float v[8], int64_t count, bool wide) {
    if (wide && count >= 8) {
        float4 low, high;

        low.x = v[0];
        low.y = v[1];
        low.z = v[2];
        low.w = v[3];
        high.x = v[4];
        high.y = v[5];
        high.z = v[6];
        high.w = v[7];
        reinterpret_cast<float4 *>(to)[0] = low;
        reinterpret_cast<float4 *>(to)[1] = high;
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        if (j < count) {
            to[j] = v[j];
        }
    }
}
MX_DEVICE void mx_store8(mx_bf16 *to, const float v[8], int64_t count, bool wide) {
    if (wide && count >= 8) {
        uint4 bits;

        bits.x = mx_bf16_pair(v[0], v[1]);
        bits.y = mx_bf16_pair(v[2], v[3]);
        bits.z = mx_bf16_pair(v[4], v[5]);
        bits.w = mx_bf16_pair(v[6], v[7]);
        *reinterpret_cast<uint4 *>(to) = bits;
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        if (j < count) {
            to[j] = mx_rounded<mx_bf16>(v[j]);
        }
    }
}

/* As it is, bit for bit. */
template <class T> MX_DEVICE void mx_copy8(T *to, const T *from, int64_t count, bool wide) {
    if (wide && count >= 8) {
#pragma unroll
        for (int i = 0; i < (int)sizeof(T) / 2; i++) {
            reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(from)[i];
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        if (j < count) {
            to[j] = from[j];
        }
    }
}

/* Threads over a matrix in pieces of 8 columns: a block holds several rows of narrow matrices, or a part of one wide row. */
struct mx_plane {
    dim3 grid, block;
    unsigned chunks; /* blocks to a row */
};
static inline mx_plane mx_plane_of(int64_t rows, int64_t columns) {
    int64_t pieces = (columns + MX_PIECE - 1) / MX_PIECE;
    unsigned across = 1;
    mx_plane p;

    while (across < 256 && across < pieces) {
        across *= 2;
    }
    p.block = dim3(across, 256 / across);
    p.chunks = mx_blocks(pieces, across);
    p.grid = dim3(mx_blocks(rows, 256 / across) * p.chunks);
    return p;
}
MX_DEVICE int64_t mx_plane_row(unsigned chunks) {
    return (int64_t)(blockIdx.x / chunks) * blockDim.y + threadIdx.y;
}
MX_DEVICE int64_t mx_plane_column(unsigned chunks) {
    return ((int64_t)(blockIdx.x % chunks) * blockDim.x + threadIdx.x) * MX_PIECE;
}

static inline int64_t mx_values_of(const mx_tensor *t) {
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

#endif
