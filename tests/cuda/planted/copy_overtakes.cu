/* The next tile's cp.async is issued while others still read the one it overwrites; the barrier comes only behind. */
template <bool MENDED> static __global__ void copy_overtakes_kernel(float *out, const float *from) {
    __shared__ __align__(16) float tile[64 * 4];
    int i = (int)threadIdx.x;
    float sum = 0;

    for (int t = 0; t < 3; t++) {
        mx_cp_async16(&tile[4 * i], from + 4 * (64 * t + i), 16);
        mx_cp_async_commit();
        mx_cp_async_wait<0>();
        __syncthreads();
        sum += tile[4 * (63 - i)]; /* caught */
        if (MENDED) {
            __syncthreads();
        }
    }
    out[i] = sum;
}

static int copy_overtakes(bool mended) {
    float *out = device_array<float>(64), *from = device_array<float>(3 * 256);

    fill(from, 3 * 256);
    shim::launch("copy_overtakes", 1, 64, 0,
                 [=] { mended ? copy_overtakes_kernel<true>(out, from) : copy_overtakes_kernel<false>(out, from); });
    return wrong_values(out, 64, [](int i) { return (float)(3 * 4 * (63 - i) + 3 * 256); });
}
