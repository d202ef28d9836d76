/* gemm_tune.cu - see gemm_tune.h.
 *
 * The file: one line for each product, "<version> <architecture> <key> <algorithm>", key and algorithm in hexadecimal, as bytes.
 * Lines of other versions and architectures are left alone. */
#include "kernels/cuda/gemm_tune.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

static const mx_mark nowhere = {};

enum { KEY_MOST = 128, TRIALS = 3, LINE = 2 * KEY_MOST + 2 * (int)sizeof(mx_lt_algorithm) + 64 };
static const double BUDGET = 2.0; /* seconds of a process */
static const char HEAD[] = "mixrun's choices of cuBLASLt algorithms, 1\n";

struct kept_choice {
    size_t key_bytes;
    unsigned char key[KEY_MOST];
    mx_lt_algorithm algorithm;
};
struct mx_gemm_tuning {
    char path[PATH_MAX];
    size_t version;
    int architecture;
    kept_choice *choice;
    int64_t count, room;
    double spent;
    cudaEvent_t from, to;
};

/* ------------------------------------------------------------------ the file */

static void write_hex(char *to, const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        snprintf(to + 2 * i, 3, "%02x", static_cast<const unsigned char *>(bytes)[i]);
    }
}

/* The number of bytes, or -1 when the text is not two digits for each of at most `most`. */
static int read_hex(const char *text, unsigned char *to, size_t most) {
    size_t n = strlen(text) / 2;

    if (strlen(text) % 2 != 0 || n > most || strspn(text, "0123456789abcdef") != 2 * n) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        char two[3] = { text[2 * i], text[2 * i + 1], '\0' };

        to[i] = (unsigned char)strtoul(two, NULL, 16);
    }
    return (int)n;
}

static bool remember(mx_gemm_tuning *t, const kept_choice &one) {
    if (t->count == t->room) {
        int64_t room = t->room ? 2 * t->room : 64;
        kept_choice *more = static_cast<kept_choice *>(realloc(t->choice, sizeof *more * (size_t)room));

        if (!more) {
            return false;
        }
        t->choice = more;
        t->room = room;
    }
    t->choice[t->count++] = one;
    return true;
}

/* One line; false when it is none. */
static bool read_line(mx_gemm_tuning *t, char *line) {
    char key[2 * KEY_MOST + 1], algorithm[2 * sizeof(mx_lt_algorithm) + 1];
    kept_choice one = {};
    size_t version;
    int architecture, end = 0;

    static_assert(KEY_MOST == 128 && sizeof(mx_lt_algorithm) == 64, "the widths below");
    if (sscanf(line, "%zu sm_%d %256s %128s%n", &version, &architecture, key, algorithm, &end) != 4 || strcmp(line + end, "\n") != 0) {
        return false;
    }
    int bytes = read_hex(key, one.key, KEY_MOST);
    unsigned char words[sizeof one.algorithm];

    if (bytes < 0 || read_hex(algorithm, words, sizeof words) != (int)sizeof words) {
        return false;
    }
    one.key_bytes = (size_t)bytes;
    memcpy(&one.algorithm, words, sizeof words);
    return version != t->version || architecture != t->architecture || remember(t, one);
}

static mx_code read_file(mx_gemm_tuning *t, mx_status *st) {
    FILE *file = fopen(t->path, "r");
    char line[LINE];
    long number = 1;
    bool ours;

    if (!file) {
        return errno == ENOENT ? MX_OK : mx_fail(st, MX_E_IO, nowhere, "cannot read $MIXRUN_TUNED, '%.400s': %s", t->path, strerror(errno));
    }
    ours = !fgets(line, sizeof line, file) || strcmp(line, HEAD) == 0; /* an empty one will be */
    while (ours && fgets(line, sizeof line, file)) {
        number++;
        ours = read_line(t, line);
    }
    fclose(file);
    return ours ? MX_OK : mx_fail(st, MX_E_DATA, nowhere, "$MIXRUN_TUNED, '%.400s', line %ld: not a choice of algorithms", t->path, number);
}

/* The line is whole in one write: processes that share the file do not mix theirs. */
static bool append(mx_gemm_tuning *t, const kept_choice *one) {
    FILE *file = fopen(t->path, "a");
    char key[2 * KEY_MOST + 1], algorithm[2 * sizeof(mx_lt_algorithm) + 1], line[sizeof HEAD + LINE];
    bool fine;

    if (!file) {
        return false;
    }
    fine = fseek(file, 0, SEEK_END) == 0;
    line[0] = '\0';
    if (ftell(file) == 0) {
        snprintf(line, sizeof line, "%s", HEAD);
    }
    if (one) {
        write_hex(key, one->key, one->key_bytes);
        write_hex(algorithm, &one->algorithm, sizeof one->algorithm);
        snprintf(line + strlen(line), sizeof line - strlen(line), "%zu sm_%d %s %s\n", t->version, t->architecture, key, algorithm);
    }
    fine = fine && fputs(line, file) >= 0;
    return fclose(file) == 0 && fine;
}

mx_code mx_gemm_tuning_open(mx_cuda *c, size_t library_version, mx_gemm_tuning **ret, mx_status *st) {
    const char *path = getenv("MIXRUN_TUNED");
    mx_gemm_tuning *t;
    mx_code code;

    *ret = NULL;
    if (!path || !path[0]) {
        return MX_OK;
    }
    t = static_cast<mx_gemm_tuning *>(calloc(1, sizeof *t));
    if (!t) {
        return mx_fail(st, MX_E_MEMORY, nowhere, "no memory for choices of algorithms");
    }
    snprintf(t->path, sizeof t->path, "%s", path);
    t->version = library_version;
    t->architecture = c->architecture;
    code = read_file(t, st);
    if (!code && !append(t, NULL)) {
        code = mx_fail(st, MX_E_IO, nowhere, "cannot write $MIXRUN_TUNED, '%.400s': %s", t->path, strerror(errno));
    }
    if (!code) {
        mx_cuda_check(c, cudaEventCreateWithFlags(&t->from, cudaEventDefault), "opening a timer");
        mx_cuda_check(c, cudaEventCreateWithFlags(&t->to, cudaEventDefault), "opening a timer");
        *ret = t;
        return MX_OK;
    }
    mx_gemm_tuning_close(t);
    return code;
}

void mx_gemm_tuning_close(mx_gemm_tuning *t) {
    if (!t) {
        return;
    }
    if (t->from) {
        cudaEventDestroy(t->from);
    }
    if (t->to) {
        cudaEventDestroy(t->to);
    }
    free(t->choice);
    free(t);
}

/* FNV-1a. */
static uint32_t hash_of(uint32_t hash, const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ static_cast<const unsigned char *>(bytes)[i]) * 16777619u;
    }
    return hash;
}

void mx_gemm_tuning_describe(const mx_gemm_tuning *t, char *text, size_t size) {
    uint32_t hash = 2166136261u;

    for (int64_t i = 0; i < t->count; i++) {
        hash = hash_of(hash, t->choice[i].key, t->choice[i].key_bytes);
        hash = hash_of(hash, &t->choice[i].algorithm, sizeof t->choice[i].algorithm);
    }
    snprintf(text, size, "tuned by %.100s (%lld choice%s, %08x)", t->path, (long long)t->count, t->count == 1 ? "" : "s", hash);
}

/* ------------------------------------------------------------------ timing */

static double now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Milliseconds of TRIALS products behind one that warms up, or infinity when the candidate refuses. */
static float time_of(mx_gemm_tuning *t, mx_cuda *c, const mx_lt_algorithm *algorithm, mx_gemm_trial run, void *context) {
    float milliseconds = INFINITY;

    if (!run(context, algorithm)) {
        return milliseconds;
    }
    mx_cuda_check(c, cudaEventRecord(t->from, c->stream), "timing");
    for (int i = 0; i < TRIALS; i++) {
        run(context, algorithm);
    }
    mx_cuda_check(c, cudaEventRecord(t->to, c->stream), "timing");
    c->base.waits++;
    mx_cuda_check(c, cudaEventSynchronize(t->to), "timing");
    mx_cuda_check(c, cudaEventElapsedTime(&milliseconds, t->from, t->to), "timing");
    return milliseconds;
}

static int fastest(mx_gemm_tuning *t, mx_cuda *c, const mx_lt_result *candidate, int count, mx_gemm_trial run, void *context) {
    float best = INFINITY;
    int ret = 0;

    for (int i = 0; i < count && t->spent < BUDGET && !c->lost; i++) {
        double begun = now();
        float one = time_of(t, c, &candidate[i].algorithm, run, context);

        t->spent += now() - begun;
        if (one < best) {
            best = one;
            ret = i;
        }
    }
    return ret;
}

mx_lt_algorithm mx_gemm_tuning_choose(mx_gemm_tuning *t, mx_cuda *c, const void *key, size_t key_bytes, const mx_lt_result *candidate,
                                      int count, bool timed, mx_gemm_trial run, void *context) {
    kept_choice one = {};

    assert(key_bytes <= KEY_MOST && count > 0);
    for (int64_t i = 0; i < t->count; i++) {
        if (t->choice[i].key_bytes == key_bytes && memcmp(t->choice[i].key, key, key_bytes) == 0) {
            return t->choice[i].algorithm;
        }
    }
    one.key_bytes = key_bytes;
    memcpy(one.key, key, key_bytes);
    one.algorithm = candidate[timed ? fastest(t, c, candidate, count, run, context) : 0].algorithm;
    if (!remember(t, one) || !append(t, &one)) {
        mx_cuda_lose(c, MX_E_IO, "cannot write $MIXRUN_TUNED, '%.100s'", t->path);
    }
    return one.algorithm;
}
