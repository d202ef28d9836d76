/* A cp.async of 16 bytes from an address that is a multiple of 4 only: rows of an odd width. */
template <bool MENDED> static __global__ void copy_misaligned_kernel(float *out, const float *from) {
    __shared__ __align__(16) float tile[4];

    mx_cp_async16(tile, from + (MENDED ? 4 : 5), 16); /* caught */
    mx_cp_async_commit();
    mx_cp_async_wait<0>();
    out[0] = tile[0];
}

static int copy_misaligned(bool mended) {
    float *out = device_array<float>(1), *from = device_array<float>(16);

    fill(from, 16);
    shim::launch("copy_misaligned", 1, 1, 0,
                 [=] { mended ? copy_misaligned_kernel<true>(out, from) : copy_misaligned_kernel<false>(out, from); });
    return wrong_values(out, 1, [](int) { return 4.0f; });
}
