/* Lanes of a warp exchange through shared memory with only a shuffle between: CUDA promises no order of memory for that. */
template <bool MENDED> static __global__ void shuffle_is_no_fence_kernel(float *out) {
    __shared__ float value[32];
    int i = (int)threadIdx.x;

    value[i] = (float)i; /* caught */
    int from = __shfl_xor_sync(MX_WARP, i, 1);

    if (MENDED) {
        __syncwarp();
    }
    out[i] = value[from]; /* caught */
}

static int shuffle_is_no_fence(bool mended) {
    float *out = device_array<float>(32);

    shim::launch("shuffle_is_no_fence", 1, 32, 0,
                 [=] { mended ? shuffle_is_no_fence_kernel<true>(out) : shuffle_is_no_fence_kernel<false>(out); });
    return wrong_values(out, 32, [](int i) { return (float)(i ^ 1); });
}
