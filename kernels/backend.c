/* backend.c - which device a word means. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/probe.h"
#include "kernels/ops.h"

#include <ctype.h>
#include <string.h>

static bool names_cuda(const char *device) {
    if (strncmp(device, "cuda", 4) != 0) {
        return false;
    }
    return device[4] == '\0' || (device[4] == ':' && isdigit((unsigned char)device[5]));
}

mx_code mx_backend_open(const mx_backend_options *o, mx_backend **ret, mx_status *st) {
    *ret = NULL;
    if (!names_cuda(o->device) && strcmp(o->device, "cpu") != 0) {
        mx_code code = mx_fail(st, MX_E_DEVICE, MX_NOWHERE, "unknown device '%s'", o->device);

        mx_hint(st, "cpu, cuda or cuda:N");
        return code;
    }
    MX_TRY(names_cuda(o->device) ? mx_cuda_open(o, ret, st) : mx_cpu_open(o, ret, st));

    const char *hole = mx_ops_missing((*ret)->ops);

    if (hole) {
        (*ret)->close(*ret);
        *ret = NULL;
        return mx_fail(st, MX_E_DEVICE, MX_NOWHERE, "device '%s' lacks the operation '%s'", o->device, hole);
    }
    return MX_OK;
}
