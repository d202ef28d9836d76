/* device.c - see device.h. */
#include "runner/device.h"

#include "kernels/cuda/probe.h"

#include <string.h>

const char *mx_device_of(const char *word, const char **ret_why) {
    static char why[200];
    static bool looked, usable;

    if (ret_why) {
        *ret_why = "";
    }
    if (strcmp(word, "auto") != 0) {
        return word;
    }
    if (!looked) {
        usable = mx_cuda_usable(why, sizeof why);
        looked = true;
    }
    if (ret_why && !usable) {
        *ret_why = why;
    }
    return usable ? "cuda" : "cpu";
}

bool mx_device_is_gpu(const char *device) {
    return strncmp(device, "cuda", 4) == 0;
}
