/* Half of a warp shuffles with the whole warp's mask, the other half has gone on to a barrier. */
template <bool MENDED> static __global__ void divergent_shuffle_kernel(float *out) {
    float v = 1;

    if (MENDED || threadIdx.x % 32 < 16) {
        v += __shfl_xor_sync(MX_WARP, v, 1); /* caught */
    }
    __syncthreads(); /* caught */
    out[threadIdx.x] = v;
}

static int divergent_shuffle(bool mended) {
    float *out = device_array<float>(64);

    shim::launch("divergent_shuffle", 1, 64, 0, [=] { mended ? divergent_shuffle_kernel<true>(out) : divergent_shuffle_kernel<false>(out); });
    return wrong_values(out, 64, [](int) { return 2.0f; });
}
