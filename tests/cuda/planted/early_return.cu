/* Threads behind the end return before the barrier that the others wait at. */
template <bool MENDED> static __global__ void early_return_kernel(float *out, int n) {
    __shared__ float value[64];
    int i = (int)threadIdx.x;

    if (!MENDED && i >= n) {
        return;
    }
    value[i] = 1;
    __syncthreads(); /* caught */
    if (i < n) {
        out[i] = value[i];
    }
}

static int early_return(bool mended) {
    float *out = device_array<float>(50);

    shim::launch("early_return", 1, 64, 0, [=] { mended ? early_return_kernel<true>(out, 50) : early_return_kernel<false>(out, 50); });
    return wrong_values(out, 50, [](int) { return 1.0f; });
}
