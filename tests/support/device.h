/* device.h - on which device a test's numbers are computed: "cpu", or "cuda" where the same file is built once more for the CUDA
 * backend on the shim (tests/meson.build). */
#ifndef TESTS_SUPPORT_DEVICE_H
#define TESTS_SUPPORT_DEVICE_H

#ifndef KIT_DEVICE
#define KIT_DEVICE "cpu"
#endif

#endif
