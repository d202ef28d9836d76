/* Neighbours read each other's shared value, without a barrier between writing and reading. */
template <bool MENDED> static __global__ void missing_barrier_kernel(float *out) {
    __shared__ float value[128];
    int i = (int)threadIdx.x;

    value[i] = (float)i; /* caught */
    if (MENDED) {
        __syncthreads();
    }
    out[i] = value[(i + 1) % 128]; /* caught */
}

static int missing_barrier(bool mended) {
    float *out = device_array<float>(128);

    shim::launch("missing_barrier", 1, 128, 0, [=] { mended ? missing_barrier_kernel<true>(out) : missing_barrier_kernel<false>(out); });
    return wrong_values(out, 128, [](int i) { return (float)((i + 1) % 128); });
}
