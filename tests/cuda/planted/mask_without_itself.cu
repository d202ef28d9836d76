/* A lane calls a warp function with a mask it is not in. */
template <bool MENDED> static __global__ void mask_without_itself_kernel(float *out) {
    out[threadIdx.x] = (float)__shfl_sync(MENDED ? MX_WARP : 0xffffu, 1, 0); /* caught */
}

static int mask_without_itself(bool mended) {
    float *out = device_array<float>(32);

    shim::launch("mask_without_itself", 1, 32, 0,
                 [=] { mended ? mask_without_itself_kernel<true>(out) : mask_without_itself_kernel<false>(out); });
    return wrong_values(out, 32, [](int) { return 1.0f; });
}
