/* planted.cc - runs one planted fault, or the same kernel without it:  planted NAME [mended]
 *
 * Exit status 0: the values are right and nothing was reported. Built plain, for ThreadSanitizer and for AddressSanitizer;
 * tests/cuda/caught.c knows who must see which fault. A line that a report must name ends in a comment, "caught". */
#include "kernels/cuda/portable.h"

#include <math.h>

/* Exactly as large as told, so that what lies behind is not ours. */
template <class T> static T *device_array(int n) {
    T *memory = NULL;

    if (cudaMalloc(&memory, sizeof(T) * (size_t)n) != cudaSuccess) {
        abort();
    }
    return memory;
}

static void fill(float *to, int n) {
    for (int i = 0; i < n; i++) {
        to[i] = (float)i;
    }
}

template <class T, class F> static int wrong_values(const T *got, int n, F expected) {
    int wrong = 0;

    for (int i = 0; i < n; i++) {
        wrong += got[i] != expected(i);
    }
    if (wrong) {
        printf("%d of %d values are wrong\n", wrong, n);
    }
    return wrong != 0;
}

#include "tests/cuda/planted/missing_barrier.cu"
#include "tests/cuda/planted/missing_barrier_behind.cu"
#include "tests/cuda/planted/shuffle_is_no_fence.cu"
#include "tests/cuda/planted/shared_histogram.cu"
#include "tests/cuda/planted/across_blocks.cu"
#include "tests/cuda/planted/missing_fence.cu"
#include "tests/cuda/planted/copy_unshared.cu"
#include "tests/cuda/planted/copy_overtakes.cu"
#include "tests/cuda/planted/copy_not_waited_for.cu"
#include "tests/cuda/planted/shared_not_written.cu"
#include "tests/cuda/planted/divergent_barrier.cu"
#include "tests/cuda/planted/early_return.cu"
#include "tests/cuda/planted/divergent_shuffle.cu"
#include "tests/cuda/planted/mixed_warp.cu"
#include "tests/cuda/planted/mask_without_itself.cu"
#include "tests/cuda/planted/copy_misaligned.cu"
#include "tests/cuda/planted/global_overread.cu"
#include "tests/cuda/planted/shared_overindex.cu"
#include "tests/cuda/planted/dynamic_overindex.cu"

static const struct {
    const char *name;
    int (*run)(bool mended);
} FAULTS[] = {
    { "missing_barrier", missing_barrier },
    { "missing_barrier_behind", missing_barrier_behind },
    { "shuffle_is_no_fence", shuffle_is_no_fence },
    { "shared_histogram", shared_histogram },
    { "across_blocks", across_blocks },
    { "missing_fence", missing_fence },
    { "copy_unshared", copy_unshared },
    { "copy_overtakes", copy_overtakes },
    { "copy_not_waited_for", copy_not_waited_for },
    { "shared_not_written", shared_not_written },
    { "divergent_barrier", divergent_barrier },
    { "early_return", early_return },
    { "divergent_shuffle", divergent_shuffle },
    { "mixed_warp", mixed_warp },
    { "mask_without_itself", mask_without_itself },
    { "copy_misaligned", copy_misaligned },
    { "global_overread", global_overread },
    { "shared_overindex", shared_overindex },
    { "dynamic_overindex", dynamic_overindex },
};

int main(int argc, char **argv) {
    for (const auto &f : FAULTS) {
        if (argc > 1 && strcmp(argv[1], f.name) == 0) {
            return f.run(argc > 2);
        }
    }
    fprintf(stderr, "planted NAME [mended]\n");
    return 2;
}
