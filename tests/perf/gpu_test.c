/* gpu_test.c - perf-gpu in miniature: that every part of it runs, and that what it writes can be read. */
#include "base/file.h"
#include "base/json.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs a program with words; what it prints goes to `out` (may be NULL), its report is returned (may be NULL). */
static int run(const char *variable, const char *words, char *out, size_t size, json_t **ret) {
    const char *program = getenv(variable), *folder = getenv("TMPDIR");
    char path[200], command[1000], chunk[4096];
    mx_status st = { 0 };
    size_t used = 0, n;
    FILE *f;
    int code;

    cr_assert(program, "%s names the program", variable);
    snprintf(path, sizeof path, "%s/perf-gpu-%d.json", folder ? folder : "/tmp", (int)getpid());
    snprintf(command, sizeof command, "'%s' %s --json '%s' 2>&1", program, words, path);
    f = popen(command, "r");
    cr_assert(f);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) {
        if (out && used + n < size) {
            memcpy(out + used, chunk, n);
            used += n;
        }
    }
    if (out) {
        out[used] = '\0';
    }
    code = pclose(f);
    cr_assert(WIFEXITED(code));
    if (ret) {
        *ret = NULL;
        cr_assert(mx_json_read(path, 64 << 20, ret, &st) == MX_OK, "%s", st.text);
    }
    unlink(path);
    return WEXITSTATUS(code);
}

/* Every record's number under `key` is positive and finite. */
static void check_numbers(const json_t *report, const char *section, const char *key, size_t least) {
    const json_t *list = json_object_get(report, section), *record;
    size_t i;

    cr_expect(json_array_size(list) >= least, "%s has %zu records", section, json_array_size(list));
    json_array_foreach(list, i, record) {
        const json_t *v = json_object_get(record, key);

        cr_expect(json_is_number(v) && isfinite(json_number_value(v)) && json_number_value(v) > 0, "%s: %s of record %zu", section, key, i);
    }
}

static const json_t *find(const json_t *report, const char *section, const char *shape, const char *name) {
    const json_t *list = json_object_get(report, section), *record;
    size_t i;

    json_array_foreach(list, i, record) {
        if (strcmp(json_string_value(json_object_get(record, "shape")), shape) == 0 &&
            strcmp(json_string_value(json_object_get(record, "case")), name) == 0) {
            return record;
        }
    }
    return NULL;
}

static void check_whole(const json_t *report, const char *device) {
    static const char *const CASES[] = { "frozen base", "lora r80", "dora r80", "mixlora r16 E8", "mixlora r16 E8 shared", "mixlora r16 E8 naive",
                                         "mixlora r16 E16", "mixlora r16 E32", "mixlora r16 E64", "mixlora r16 E8 checkpointing",
                                         "lora r80 Q4_0 base" };
    const json_t *memory = json_object_get(report, "memory"), *record;
    size_t i;

    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(report, "environment"), "device")), device);
    cr_expect(json_array_size(json_object_get(report, "left_out")) == 0);
    cr_expect(json_number_value(json_object_get(report, "product_flops")) > 0 && json_number_value(json_object_get(report, "copy_bytes")) > 0);
    check_numbers(report, "products", "ms", 108);
    check_numbers(report, "kernels", "ms", 34);
    check_numbers(report, "kernels", "floor_ms", 34);
    check_numbers(report, "blocks", "ms", 70);
    check_numbers(report, "steps", "ms", 2 * (13 + 3 + 3));
    check_numbers(report, "steps", "of_frozen", 1);
    check_numbers(report, "evaluation", "questions_per_second", 12);
    for (i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        cr_expect(find(report, "steps", "7b", CASES[i]), "a step of %s", CASES[i]);
    }
    cr_expect(find(report, "steps", "1b", "mixlora r16 E8") && find(report, "steps", "135m", "lora r80"));
    json_array_foreach(memory, i, record) { /* the CPU's backend keeps what it packs besides */
        json_int_t planned = json_integer_value(json_object_get(record, "planned")), used = json_integer_value(json_object_get(record, "used"));

        cr_expect(planned > 0 && (strcmp(device, "cuda") != 0 || used == planned), "%s planned %lld, used %lld",
                  json_string_value(json_object_get(record, "case")), (long long)planned, (long long)used);
    }
    cr_expect(json_array_size(json_object_get(report, "aims")) == 8);
}

/* The same step on both devices: its loss, after one update, apart by bf16's rounding only; and checkpointing's to the bit. */
static void check_losses(const json_t *shim, const json_t *cpu) {
    const json_t *list = json_object_get(shim, "steps"), *record, *kept = find(shim, "steps", "7b", "mixlora r16 E8"),
                 *again = find(shim, "steps", "7b", "mixlora r16 E8 checkpointing");
    size_t i;

    json_array_foreach(list, i, record) {
        const json_t *other = json_array_get(json_object_get(cpu, "steps"), i);
        double a = json_number_value(json_object_get(record, "loss")), b = json_number_value(json_object_get(other, "loss"));

        cr_expect_str_eq(json_string_value(json_object_get(record, "case")), json_string_value(json_object_get(other, "case")));
        cr_expect(a > 1 && fabs(a - b) <= 0.003 * b, "%s %s: %.5f and %.5f", json_string_value(json_object_get(record, "shape")),
                  json_string_value(json_object_get(record, "case")), a, b);
    }
    cr_expect(json_number_value(json_object_get(kept, "loss")) == json_number_value(json_object_get(again, "loss")));
}

Test(gpu, whole_on_the_shim_and_the_cpu, .timeout = 280) {
    json_t *shim, *cpu;

    cr_assert(run("PERF_GPU_SHIM", "--quick", NULL, 0, &shim) == 0);
    check_whole(shim, "cuda");
    cr_assert(run("PERF_GPU", "--quick --device cpu", NULL, 0, &cpu) == 0);
    check_whole(cpu, "cpu");
    check_losses(shim, cpu);
    json_decref(cpu);
    json_decref(shim);
}

Test(gpu, parts_and_peers, .timeout = 280) {
    json_t *report;

    cr_assert(run("PERF_GPU", "--quick --device cpu --precision f32 --peers --only 'steps 1b lora r80$;movers'", NULL, 0, &report) == 0);
    cr_expect(!json_object_get(report, "products") && !json_object_get(report, "blocks"));
    cr_expect(json_array_size(json_object_get(report, "kernels")) == 10);
    cr_expect(find(report, "steps", "1b", "frozen base") && find(report, "steps", "1b", "lora r80"), "the ratio's base is measured too");
    cr_expect(!find(report, "steps", "1b", "lora r80 Q4_0 base"));
    cr_expect(!find(report, "steps", "1b", "mixlora r16 E8") && !find(report, "steps", "7b", "lora r80"));
    json_decref(report);
}

Test(gpu, no_time, .timeout = 280) {
    json_t *report;

    cr_assert(run("PERF_GPU", "--quick --device cpu --seconds 0", NULL, 0, &report) == 0);
    cr_expect(json_array_size(json_object_get(report, "left_out")) > 50);
    cr_expect(!json_object_get(report, "kernels"));
    json_decref(report);
}

/* A GPU that is there is only looked at. */
Test(gpu, without_a_gpu, .timeout = 280) {
    char out[4000];
    int code = run("PERF_GPU", "--only nothing", out, sizeof out, NULL);

    cr_expect(code == 0 || (code == 77 && strstr(out, "no GPU is measured: device 'cuda'")), "%d: %s", code, out);
    code = run("PERF_GPU", "--device cpu", out, sizeof out, NULL);
    cr_expect(code == 2 && strstr(out, "--quick"), "%d: %s", code, out);
    code = run("PERF_GPU", "--quick --device gpu", out, sizeof out, NULL);
    cr_expect(code == 77 && strstr(out, "unknown device"), "%d: %s", code, out);
    code = run("PERF_GPU", "--slow", out, sizeof out, NULL);
    cr_expect(code == 2, "%d: %s", code, out);
}
