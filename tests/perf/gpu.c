/* gpu.c - perf-gpu: everything a GPU is to be held against, in one command and under ten minutes.
 *
 *   perf-gpu [--device cuda] [--json FILE] [--only WORDS] [--quick] [--peers] [--seconds N] [--precision bf16]
 *
 * In turn: the machine; this run's own ceilings (a large product, a copy); bare products of a 7B LLaMA; every op against its
 * floor; whole steps and evaluation of random 7B, 1B and 135M models; what was aimed at. A table on standard output; --json
 * writes the same figures ("-": after the table), anew after each part, so that a run that is cut off leaves what it has.
 *
 *   --only     parts or cases by name, several with semicolons: "steps 7b", "products q,k,v;attention", "steps 7b lora r80$"
 *   --quick    tiny shapes, every call once: shows that it works, on --device cpu too
 *   --peers    steps as peers/gpu.sh compares them: sequences of 256, loss on all tokens
 *   --seconds  what would begin later is left out (default 560)
 *
 * Times are wall clock over a queue of calls that the host does not wait for; where the host itself is the slower it is said.
 * Exit 77: there is no GPU that can be used, with the reason. */
#include "tests/perf/gpu.h"

#include "base/rng.h"
#include "kernels/cuda/probe.h"
#include "runner/environment.h"

#include <stdlib.h>
#include <time.h>

enum { POOL = 1048573, POOL_QUICK = 16381 }; /* primes */

static const perf_shape SHAPES[PERF_SHAPES] = {
    { "7b", 4096, 11008, 32, 32, 32, 128, 32000, false },
    { "1b", 2048, 5632, 22, 32, 4, 64, 32000, false },
    { "135m", 576, 1536, 30, 9, 3, 64, 49152, true },
};
/* The same names, so that --only and the aims are tried as well. */
static const perf_shape TINY[PERF_SHAPES] = {
    { "7b", 32, 64, 2, 2, 2, 16, 67, false },
    { "1b", 32, 64, 1, 2, 1, 16, 67, false },
    { "135m", 32, 32, 1, 4, 1, 8, 35, true },
};

static _Noreturn void usage(void) {
    fprintf(stderr, "perf-gpu [--device cuda|cuda:N|cpu] [--json FILE|-] [--only WORDS] [--quick] [--peers] [--seconds N] [--precision bf16|f32]\n");
    exit(2);
}

/* ------------------------------------------------------------------ the machine */

/* The first line a command prints; "" when it does not run. */
static void first_line(const char *command, char *ret, size_t size) {
    FILE *f = popen(command, "r");

    ret[0] = '\0';
    if (f) {
        if (!fgets(ret, (int)size, f)) {
            ret[0] = '\0';
        }
        if (pclose(f) != 0) {
            ret[0] = '\0';
        }
    }
    ret[strcspn(ret, "\n")] = '\0';
}

void perf_clocks(perf *p, const char *when) {
    char line[300], key[60], command[200];
    json_t *environment = json_object_get(p->report, "environment");

    if (p->cuda) {
        snprintf(command, sizeof command, "nvidia-smi -i %d --query-gpu=clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,utilization.gpu"
                 " --format=csv,noheader 2>/dev/null", strchr(p->device, ':') ? atoi(strchr(p->device, ':') + 1) : 0);
        first_line(command, line, sizeof line);
        if (line[0]) {
            snprintf(key, sizeof key, "clocks %s", when);
            printf("  clocks %s: %s (SM, memory, power, its limit, temperature, use)\n", when, line);
            json_object_set_new(environment, key, json_string(line));
        }
    }
}

static void describe(perf *p, const mx_backend_options *o) {
    char line[300], probe[600], date[40];
    time_t now = time(NULL);
    struct tm utc;
    json_t *e;

    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    mx_cuda_probe(probe, sizeof probe);
    e = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b}", "mixrun", mx_version_text(), "date", date, "device", o->device, "backend",
                  p->b->description, "precision", p->act == MX_BF16 ? "bf16" : "f32", "cuda", probe, "quick", p->quick, "peers", p->peers);
    json_object_set_new(p->report, "environment", e);
    printf("%s, %s\n%s, %s\n%s\n", mx_version_text(), date, p->b->description, p->act == MX_BF16 ? "bf16" : "f32", probe);
    first_line("cat /proc/driver/nvidia/version 2>/dev/null", line, sizeof line);
    if (line[0]) {
        printf("%s\n", line);
        json_object_set_new(e, "driver", json_string(line));
    }
    json_object_set_new(e, "device_bytes", json_integer((json_int_t)p->b->device_bytes));
    json_object_set_new(e, "free_bytes", json_integer((json_int_t)p->b->free_bytes));
    perf_clocks(p, "at rest");
}

/* ------------------------------------------------------------------ the run */

static void read_words(int argc, char **argv, perf *p, mx_backend_options *o) {
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(word, "--quick") == 0) {
            p->quick = true;
        } else if (strcmp(word, "--peers") == 0) {
            p->peers = true;
        } else if (!value) {
            usage();
        } else {
            i++;
            if (strcmp(word, "--device") == 0) {
                o->device = value;
            } else if (strcmp(word, "--json") == 0) {
                p->json = value;
            } else if (strcmp(word, "--only") == 0) {
                p->only = value;
            } else if (strcmp(word, "--seconds") == 0) {
                p->seconds = atof(value);
            } else if (strcmp(word, "--precision") == 0 && (strcmp(value, "bf16") == 0 || strcmp(value, "f32") == 0)) {
                o->precision = strcmp(value, "f32") == 0 ? MX_PRECISION_F32 : MX_PRECISION_BF16;
            } else {
                usage();
            }
        }
    }
    if (strcmp(o->device, "cpu") == 0 && !p->quick) {
        fprintf(stderr, "perf-gpu: the CPU is for --quick; its own benchmarks are perf-ops and perf-step\n");
        exit(2);
    }
}

static void open_device(perf *p, const mx_backend_options *o) {
    mx_status st = { 0 };

    if (mx_backend_open(o, &p->b, &st)) {
        printf("perf-gpu: no GPU is measured: %s%s%s\n", st.text, st.hint[0] ? "; " : "", st.hint);
        exit(st.code == MX_E_DEVICE ? 77 : 1);
    }
    p->device = o->device;
    p->cuda = strcmp(p->b->name, "cuda") == 0;
    p->act = mx_activation_type(p->b);
}

static void fill_pool(perf *p) {
    mx_rng rng;

    p->pool_size = p->quick ? POOL_QUICK : POOL;
    p->pool = malloc(sizeof *p->pool * (size_t)p->pool_size);
    if (!p->pool) {
        exit(1);
    }
    mx_rng_init(&rng, 1, "values");
    for (int64_t i = 0; i < p->pool_size; i++) {
        p->pool[i] = (float)mx_rng_normal(&rng);
    }
}

int main(int argc, char **argv) {
    perf p = { .began = perf_now(), .seconds = 560, .report = json_object() };
    mx_backend_options o = { .device = "cuda", .precision = MX_PRECISION_BF16 };

    read_words(argc, argv, &p, &o);
    open_device(&p, &o);
    p.shape = p.quick ? TINY : SHAPES;
    p.rows[0] = p.quick ? 32 : 8192;
    p.rows[1] = p.quick ? 20 : 2048;
    json_object_set_new(p.report, "left_out", json_array());
    describe(&p, &o);
    fill_pool(&p);
    perf_ceilings(&p);
    perf_products(&p);
    perf_kernels(&p);
    perf_blocks(&p);
    perf_steps(&p);
    perf_aims(&p);
    json_object_set_new(p.report, "seconds", json_real(perf_now() - p.began));
    printf("\n%.0f seconds in all; %zu left out\n", perf_now() - p.began, json_array_size(json_object_get(p.report, "left_out")));
    perf_save(&p);
    if (p.json && strcmp(p.json, "-") == 0) {
        json_dumpf(p.report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        printf("\n");
    }
    json_decref(p.report);
    free(p.pool);
    p.b->close(p.b);
    return 0;
}
