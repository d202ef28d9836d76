/* device.h - which device a recipe's word means on this machine. */
#ifndef RUNNER_DEVICE_H
#define RUNNER_DEVICE_H

#include <stdbool.h>

/* auto: "cuda" where there is a GPU that can be used, else "cpu", with the reason in *ret_why ("no NVIDIA driver here"). Any other
 * word is what it says, with no reason (""). Looks once in the process's life. `ret_why` may be NULL. */
const char *mx_device_of(const char *word, const char **ret_why);
/* Is a device's word or name ("cuda", "cuda:1") a GPU's? */
bool mx_device_is_gpu(const char *device);

#endif
