/* A histogram in shared memory, counted without atomics. */
template <bool MENDED> static __global__ void shared_histogram_kernel(int *out) {
    __shared__ int count[8];
    int i = (int)threadIdx.x;

    if (i < 8) {
        count[i] = 0;
    }
    __syncthreads();
    if (MENDED) {
        atomicAdd(&count[i % 8], 1);
    } else {
        count[i % 8]++; /* caught */
    }
    __syncthreads();
    if (i < 8) {
        out[i] = count[i];
    }
}

static int shared_histogram(bool mended) {
    int *out = device_array<int>(8);

    shim::launch("shared_histogram", 1, 256, 0, [=] { mended ? shared_histogram_kernel<true>(out) : shared_histogram_kernel<false>(out); });
    return wrong_values(out, 8, [](int) { return 32; });
}
