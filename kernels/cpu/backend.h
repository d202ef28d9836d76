/* backend.h - the CPU backend's verbs that live outside backend.c. */
#ifndef KERNELS_CPU_BACKEND_H
#define KERNELS_CPU_BACKEND_H

#include "kernels/cpu/cpu.h"

#include <omp.h>

/* The calling thread's number within the parallel region, below cpu->threads. */
static inline int mx_cpu_thread(void) {
    return omp_get_thread_num();
}

mx_code mx_cpu_weights_open(mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use,
                            mx_weight **ret, mx_status *st);
void mx_cpu_weight_close(mx_backend *b, mx_weight *w);
size_t mx_cpu_weights_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use);
size_t mx_cpu_weights_shared_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room,
                                   unsigned use);

#endif
