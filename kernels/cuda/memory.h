/* memory.h - the backend's verbs about memory and copies (kernels/backend.h), for backend.cu's table. */
#ifndef KERNELS_CUDA_MEMORY_H
#define KERNELS_CUDA_MEMORY_H

#include "kernels/cuda/cuda.h"

/* After the stream; before anything is allocated. */
mx_code mx_cuda_memory_open(mx_cuda *c, mx_status *st);
/* Gives everything back that still is held. */
void mx_cuda_memory_close(mx_cuda *c);

mx_code mx_cuda_reserve(mx_backend *b, mx_memory purpose, size_t bytes, mx_status *st);
mx_code mx_cuda_alloc(mx_backend *b, mx_memory purpose, size_t bytes, void **ret, mx_status *st);
void mx_cuda_release(mx_backend *b, mx_memory purpose, void *memory);
size_t mx_cuda_used_bytes(const mx_backend *b, mx_memory purpose);
void mx_cuda_write(mx_backend *b, void *to, const void *from_host, size_t bytes);
void mx_cuda_read(mx_backend *b, void *to_host, const void *from, size_t bytes);
void mx_cuda_zero(mx_backend *b, void *to, size_t bytes);
mx_code mx_cuda_sync(mx_backend *b, mx_status *st);
mx_code mx_cuda_host_alloc(mx_backend *b, size_t bytes, void **ret, mx_status *st);
void mx_cuda_host_release(mx_backend *b, void *memory);
void mx_cuda_queue_read(mx_backend *b, void *to_host, const void *from, size_t bytes);
uint64_t mx_cuda_mark(mx_backend *b);
mx_code mx_cuda_wait(mx_backend *b, uint64_t mark, mx_status *st);

/* What mx_launch does behind a kernel, for work that is none: where the host may follow (host_visible) it waits, so that memory is
 * as it should be when an op or a verb has returned. Not counted. */
void mx_cuda_follow(mx_cuda *c, const char *what);

#endif
