/* The last block adds what the others have written, without a fence between their writes and their tickets. */
template <bool MENDED> static __global__ void missing_fence_kernel(float *out, float *part, unsigned *ticket) {
    if (threadIdx.x == 0) {
        part[blockIdx.x] = 1; /* caught */
        if (MENDED) {
            __threadfence();
        }
        if (atomicAdd(ticket, 1u) == gridDim.x - 1) {
            if (MENDED) {
                __threadfence();
            }
            *out = 0;
            for (unsigned b = 0; b < gridDim.x; b++) {
                *out += part[b]; /* caught */
            }
        }
    }
}

static int missing_fence(bool mended) {
    float *out = device_array<float>(1), *part = device_array<float>(16);
    unsigned *ticket = device_array<unsigned>(1);

    *ticket = 0;
    shim::launch("missing_fence", 16, 32, 0, [=] {
        mended ? missing_fence_kernel<true>(out, part, ticket) : missing_fence_kernel<false>(out, part, ticket);
    });
    return wrong_values(out, 1, [](int) { return 16.0f; });
}
