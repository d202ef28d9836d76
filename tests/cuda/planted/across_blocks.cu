/* Blocks add to one value in device memory without an atomic: nothing orders them. */
template <bool MENDED> static __global__ void across_blocks_kernel(int *out) {
    if (threadIdx.x == 0) {
        if (MENDED) {
            atomicAdd(out, 1);
        } else {
            *out += 1; /* caught */
        }
    }
}

static int across_blocks(bool mended) {
    int *out = device_array<int>(1);

    *out = 0;
    shim::launch("across_blocks", 16, 32, 0, [=] { mended ? across_blocks_kernel<true>(out) : across_blocks_kernel<false>(out); });
    return wrong_values(out, 1, [](int) { return 16; });
}
