/* A thread waits for its own cp.async only, and reads what another one has copied. */
template <bool MENDED> static __global__ void copy_unshared_kernel(float *out, const float *from) {
    __shared__ __align__(16) float tile[64 * 4];
    int i = (int)threadIdx.x;

    mx_cp_async16(&tile[4 * i], from + 4 * i, 16);
    mx_cp_async_commit();
    mx_cp_async_wait<0>();
    if (MENDED) {
        __syncthreads();
    }
    out[i] = tile[4 * (63 - i)]; /* caught */
}

static int copy_unshared(bool mended) {
    float *out = device_array<float>(64), *from = device_array<float>(256);

    fill(from, 256);
    shim::launch("copy_unshared", 1, 64, 0,
                 [=] { mended ? copy_unshared_kernel<true>(out, from) : copy_unshared_kernel<false>(out, from); });
    return wrong_values(out, 64, [](int i) { return (float)(4 * (63 - i)); });
}
