/* Odd threads wait at a barrier that even threads never reach; those wait at the next one. */
template <bool MENDED> static __global__ void divergent_barrier_kernel(float *out) {
    if (MENDED || threadIdx.x % 2) {
        __syncthreads(); /* caught */
    }
    out[threadIdx.x] = 1;
    __syncthreads(); /* caught */
}

static int divergent_barrier(bool mended) {
    float *out = device_array<float>(64);

    shim::launch("divergent_barrier", 1, 64, 0, [=] { mended ? divergent_barrier_kernel<true>(out) : divergent_barrier_kernel<false>(out); });
    return wrong_values(out, 64, [](int) { return 1.0f; });
}
