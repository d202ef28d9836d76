/* Two rounds through one shared array, without a barrier before the second overwrites it. */
template <bool MENDED> static __global__ void missing_barrier_behind_kernel(float *out) {
    __shared__ float value[128];
    int i = (int)threadIdx.x;
    float sum = 0;

    for (int round = 0; round < 2; round++) {
        value[i] = (float)(i + round); /* caught */
        __syncthreads();
        sum += value[127 - i]; /* caught */
        if (MENDED) {
            __syncthreads();
        }
    }
    out[i] = sum;
}

static int missing_barrier_behind(bool mended) {
    float *out = device_array<float>(128);

    shim::launch("missing_barrier_behind", 1, 128, 0,
                 [=] { mended ? missing_barrier_behind_kernel<true>(out) : missing_barrier_behind_kernel<false>(out); });
    return wrong_values(out, 128, [](int i) { return (float)(2 * (127 - i) + 1); });
}
