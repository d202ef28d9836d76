/* A sum over a shared array of which the block has written a part. */
template <bool MENDED> static __global__ void shared_not_written_kernel(float *out) {
    __shared__ float value[128];
    int i = (int)threadIdx.x;

    if (MENDED || i < 100) {
        value[i] = i < 100 ? 1.0f : 0.0f;
    }
    __syncthreads();
    out[i] = 0;
    for (int j = 0; j < 128; j++) {
        out[i] += value[j];
    }
}

static int shared_not_written(bool mended) {
    float *out = device_array<float>(128);

    shim::launch("shared_not_written", 1, 128, 0,
                 [=] { mended ? shared_not_written_kernel<true>(out) : shared_not_written_kernel<false>(out); });
    return wrong_values(out, 128, [](int) { return 100.0f; });
}
