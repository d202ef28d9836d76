/* A value is written behind the block's dynamic shared memory. */
template <bool MENDED> static __global__ void dynamic_overindex_kernel(float *out) {
    MX_DYNAMIC_SHARED(float, value);

    value[threadIdx.x + (MENDED ? 0 : 1)] = (float)threadIdx.x; /* caught */
    __syncthreads();
    out[threadIdx.x] = value[threadIdx.x];
}

static int dynamic_overindex(bool mended) {
    float *out = device_array<float>(64);

    shim::launch("dynamic_overindex", 1, 64, 64 * sizeof(float),
                 [=] { mended ? dynamic_overindex_kernel<true>(out) : dynamic_overindex_kernel<false>(out); });
    return wrong_values(out, 64, [](int i) { return (float)i; });
}
