/* Lanes of a warp are in two different warp functions at once. */
template <bool MENDED> static __global__ void mixed_warp_kernel(float *out) {
    int lane = (int)threadIdx.x % 32, v;

    if (MENDED || lane < 16) {
        v = __shfl_sync(MX_WARP, 1, 0); /* caught */
    } else {
        v = __any_sync(MX_WARP, 1); /* caught */
    }
    out[threadIdx.x] = (float)v;
}

static int mixed_warp(bool mended) {
    float *out = device_array<float>(32);

    shim::launch("mixed_warp", 1, 32, 0, [=] { mended ? mixed_warp_kernel<true>(out) : mixed_warp_kernel<false>(out); });
    return wrong_values(out, 32, [](int) { return 1.0f; });
}
