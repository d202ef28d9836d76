/* gpu_aims.c - what is aimed at beside what was measured: figures, no verdicts.
 *
 * The aims are those of one H200 and the 7B shape; the order in which losses are mended is by what is furthest off. */
#include "tests/perf/gpu.h"

/* The record of a section with these words, or NULL. tokens 0: any. */
static const json_t *find(const perf *p, const char *section, const char *shape, const char *name, int64_t tokens) {
    const json_t *list = json_object_get(p->report, section), *record;
    size_t i;

    json_array_foreach(list, i, record) {
        if (strcmp(json_string_value(json_object_get(record, "shape")), shape) == 0 &&
            strcmp(json_string_value(json_object_get(record, "case")), name) == 0 &&
            (tokens == 0 || json_integer_value(json_object_get(record, "tokens")) == tokens)) {
            return record;
        }
    }
    return NULL;
}

static double number(const json_t *record, const char *key) {
    return record ? json_number_value(json_object_get(record, key)) : NAN;
}

/* measured NAN: it was not. */
static void tell(perf *p, const char *what, const char *aim, double measured, const char *format) {
    char text[40] = "not measured";

    if (!isnan(measured)) {
        snprintf(text, sizeof text, format, measured);
    }
    printf("  %-66s %-22s %s\n", what, aim, text);
    perf_record(p, "aims", json_pack("{s:s, s:s, s:o}", "what", what, "aim", aim, "measured", isnan(measured) ? json_null() : json_real(measured)));
}

/* The one furthest from 1, over the cases of a shape; NAN when the device's memory is not another's. */
static double worst_plan(const perf *p, const char *shape) {
    const json_t *list = json_object_get(p->report, "memory"), *record;
    double worst = NAN;
    size_t i;

    json_array_foreach(list, i, record) {
        double taken = number(record, "device") / number(record, "planned");

        if (taken > 0 && strcmp(json_string_value(json_object_get(record, "shape")), shape) == 0 &&
            (isnan(worst) || fabs(taken - 1) > fabs(worst - 1))) {
            worst = taken;
        }
    }
    return worst;
}

static double most_of_steps(const perf *p, const char *key) {
    const json_t *list = json_object_get(p->report, "steps"), *record;
    double most = NAN;
    size_t i;

    json_array_foreach(list, i, record) {
        most = fmax(most, number(record, key)); /* fmax takes the number beside a NAN */
    }
    return most;
}

void perf_aims(perf *p) {
    const char *shape = p->shape[0].name;
    const int64_t large = p->rows[0], small = p->rows[1];
    const json_t *mixed = find(p, "steps", shape, "mixlora r16 E8", large), *many = find(p, "steps", shape, "mixlora r16 E64", large);

    perf_title("aims (7B shape, one H200)                                          aim                    measured");
    tell(p, "MixLoRA r16 E8 step at 8k tokens, over the frozen base's", "<= 1.15, then 1.08", number(mixed, "of_frozen"), "%.3f");
    tell(p, "the same at 2k tokens", "<= 1.15, then 1.08", number(find(p, "steps", shape, "mixlora r16 E8", small), "of_frozen"), "%.3f");
    tell(p, "MixLoRA r16 E8, tokens a second at 8k", ">= 20000, then 23500", number(mixed, "tokens_per_second"), "%.0f");
    tell(p, "memory off the device over the plan, worst case", "0.98 to 1.02", worst_plan(p, shape), "%.4f");
    tell(p, "64 experts over 8, step time at 8k", "<= 1.10", number(many, "ms") / number(mixed, "ms"), "%.3f");
    tell(p, "DoRA r80 over LoRA r80, step time at 8k", "<= 1.15",
         number(find(p, "steps", shape, "dora r80", large), "ms") / number(find(p, "steps", shape, "lora r80", large), "ms"), "%.3f");
    tell(p, "allocations in a step, most of all cases", "0", most_of_steps(p, "allocations_per_step"), "%.1f");
    tell(p, "times the host waits in a step, most of all cases", "<= 1 (for its numbers)", most_of_steps(p, "waits_per_step"), "%.1f");
    perf_save(p);
}
