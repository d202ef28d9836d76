/* The last threads read behind the end of an array in device memory. */
template <bool MENDED> static __global__ void global_overread_kernel(float *out, const float *from, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    float v = 0;

    if (!MENDED || i < n) {
        v = from[i]; /* caught */
    }
    float least = -mx_warp_max(-v); /* of the others too, so that what was read matters */

    if (i < n) {
        out[i] = least < 0 ? least : v;
    }
}

static int global_overread(bool mended) {
    float *out = device_array<float>(100), *from = device_array<float>(100);

    fill(from, 100);
    shim::launch("global_overread", 2, 64, 0,
                 [=] { mended ? global_overread_kernel<true>(out, from, 100) : global_overread_kernel<false>(out, from, 100); });
    return wrong_values(out, 100, [](int i) { return (float)i; });
}
