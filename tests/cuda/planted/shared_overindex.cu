/* A value is written behind a shared array, through a pointer, so that no check of bounds at compile time sees it. */
static __device__ void shared_overindex_put(float *to, int i) {
    to[i] = (float)i; /* caught */
}
template <bool MENDED> static __global__ void shared_overindex_kernel(float *out) {
    __shared__ float value[64];

    shared_overindex_put(value, (int)threadIdx.x + (MENDED ? 0 : 1));
    __syncthreads();
    out[threadIdx.x] = value[threadIdx.x];
}

static int shared_overindex(bool mended) {
    float *out = device_array<float>(64);

    shim::launch("shared_overindex", 1, 64, 0, [=] { mended ? shared_overindex_kernel<true>(out) : shared_overindex_kernel<false>(out); });
    return wrong_values(out, 64, [](int i) { return (float)i; });
}
