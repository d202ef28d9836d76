/* gpu.h - what the parts of perf-gpu share: the run, its clock, its memory, its report.
 *
 * gpu.c the program; gpu_run.c this; gpu_products.c bare products; gpu_kernels.c and gpu_blocks.c every op against its floor;
 * gpu_base.c a random model without a file; gpu_steps.c whole steps and evaluation; gpu_aims.c what they are held against. */
#ifndef TESTS_PERF_GPU_H
#define TESTS_PERF_GPU_H

#include "base/json.h"
#include "kernels/ops.h"
#include "model/base_model.h"

#include <math.h>
#include <string.h>

/* Sizes of a LLaMA. */
typedef struct perf_shape {
    const char *name;
    int64_t hidden, inner, layers, heads, kv_heads, head_dim, vocab;
    bool tied;
} perf_shape;
enum { PERF_SHAPES = 3, PERF_HELD_MAX = 256 };

typedef struct perf {
    mx_backend *b;
    mx_dtype act;
    bool cuda;   /* a GPU, or the GPU's code compiled for the CPU */
    bool quick;  /* tiny shapes, every call once: a check that all of it runs */
    bool peers;  /* steps as in peers/: equal sequences, loss on every token */
    const char *device, *only;
    double began, seconds; /* when the run began, how long it may take */
    const perf_shape *shape; /* PERF_SHAPES of them, the largest first */
    int64_t rows[2];         /* tokens of a micro-batch */
    json_t *report;
    const char *json; /* file, "-", or NULL */
    double product; /* FLOP/s of the best large product of this run; 0: not yet measured */
    double copy;    /* bytes/s, read and written, of the best op that only moves */
    float *pool;    /* normal values; as many as a prime, so that rows of a matrix differ */
    int64_t pool_size;
    struct {
        void *memory;
        mx_weight *weight;
    } held[PERF_HELD_MAX];
    int helds;
} perf;

_Noreturn void perf_die(const char *what, const mx_status *st);

/* ------------------------------------------------------------------ time */
/* Of one call: `seconds` with the queue kept full, `host` what the host took to queue it. Where they are near each other
 * the host is what is measured. */
typedef struct perf_time {
    double seconds, host;
} perf_time;
typedef void (*perf_work)(perf *p, void *what);
double perf_now(void);
/* Median of some rounds, each of as many calls as take some 30 ms; two calls before them do not count. */
perf_time perf_measure(perf *p, perf_work work, void *what);

/* ------------------------------------------------------------------ memory */
/* All of it is given back by perf_release. On the device, filled; `size`: standard deviation of the values. */
void *perf_memory(perf *p, size_t bytes);
mx_tensor perf_tensor(perf *p, int64_t rows, int64_t columns, double size);
float *perf_floats(perf *p, int64_t n, double size);
void *perf_copy(perf *p, const void *from_host, size_t bytes);
/* `count` matrices of one input, as a model opens them. Type BF16, F32 or Q4_0. */
void perf_weights(perf *p, mx_file_type type, const int64_t *out, int count, int64_t in, mx_weight_room room, unsigned use,
                  mx_weight **ret);
void perf_scratch(perf *p, size_t bytes);
/* Rows packed from sequences of `length` each. */
mx_rows perf_rows(perf *p, int64_t rows, int64_t length, int64_t vocab);
void perf_release(perf *p);
/* `n` values of the pool from `at` on, times `size`, as a file stores them. Q4_0: n and at are whole blocks. */
void perf_values(const perf *p, mx_file_type type, int64_t at, int64_t n, double size, void *to);

/* ------------------------------------------------------------------ report */
/* Is this asked for? Is there time for it? Both. What there is no time for is noted as left out. */
bool perf_named(const perf *p, const char *section, const char *name);
bool perf_in_time(perf *p, const char *section, const char *name);
bool perf_wants(perf *p, const char *section, const char *name);
/* Adds to an array of the report; steals `record`. */
void perf_record(perf *p, const char *section, json_t *record);
/* Measures, and puts a line and a record: the larger of both floors counts. */
double perf_tell(perf *p, const char *section, const char *name, perf_work work, void *what, double flops, double bytes);
void perf_title(const char *title);
/* What nvidia-smi says of clocks, power and temperature now, if it is there. */
void perf_clocks(perf *p, const char *when);
/* Writes the file as it stands: what was measured survives a run that is cut off. */
void perf_save(perf *p);

/* ------------------------------------------------------------------ parts */
void perf_ceilings(perf *p); /* p->product and p->copy: first */
void perf_products(perf *p);
void perf_kernels(perf *p);
void perf_blocks(perf *p);
void perf_steps(perf *p);
void perf_aims(perf *p);

/* A random base of this shape in memory of this process, of type BF16, F32 or Q4_0. MX_E_MEMORY when the machine lacks it. */
typedef struct perf_base {
    int fd;
    size_t bytes;
    mx_base_file *file;
} perf_base;
MX_MUST_CHECK mx_code perf_base_open(const perf *p, const perf_shape *s, mx_file_type type, mx_arena *arena, perf_base *ret,
                                     mx_status *st);
void perf_base_close(perf_base *b); /* zeroed is fine */

#endif
