/* device.h - the GPU a word means, for backend.cu. */
#ifndef KERNELS_CUDA_DEVICE_H
#define KERNELS_CUDA_DEVICE_H

#include "kernels/cuda/cuda.h"

/* Finds o->device ("cuda", "cuda:N"), checks that it can be used at all, and makes it this thread's. MX_E_DEVICE with a hint. */
mx_code mx_cuda_choose_device(const mx_backend_options *o, cudaDeviceProp *p, int *ret_number, mx_status *st);
int mx_cuda_architecture(const cudaDeviceProp *p); /* 90 */
/* "NVIDIA H200, sm_90, 139.8 GiB" */
void mx_cuda_device_line(char *text, size_t size, const cudaDeviceProp *p);

#endif
