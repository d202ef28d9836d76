/* A cp.async whose group is not waited for before the tile is read. */
template <bool MENDED> static __global__ void copy_not_waited_for_kernel(float *out, const float *from) {
    __shared__ __align__(16) float tile[64 * 4];
    int i = (int)threadIdx.x;

    mx_cp_async16(&tile[4 * i], from + 4 * i, 16);
    mx_cp_async_commit();
    if (MENDED) {
        mx_cp_async_wait<0>();
    } else {
        mx_cp_async_wait<1>();
    }
    __syncthreads();
    out[i] = tile[4 * (63 - i)];
}

static int copy_not_waited_for(bool mended) {
    float *out = device_array<float>(64), *from = device_array<float>(256);

    fill(from, 256);
    shim::launch("copy_not_waited_for", 1, 64, 0,
                 [=] { mended ? copy_not_waited_for_kernel<true>(out, from) : copy_not_waited_for_kernel<false>(out, from); });
    return wrong_values(out, 64, [](int i) { return (float)(4 * (63 - i)); });
}
