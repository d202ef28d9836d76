/* gpu_steps.c - whole training steps and evaluation on random bases, against the frozen base's own step in the same run.
 *
 * The frozen-base step is forward, losses, and the backward pass down to the embedding's rows, with method `base`: no adapter
 * is there and nothing is updated. Every other step ends with clipping and AdamW. Steps are queued one ahead, as training does;
 * a step's time is from one step's end to the next one's, read where the host waits for it. */
#include "tests/perf/gpu.h"

#include "kernels/cuda/measure.h"
#include "model/model.h"
#include "model/trainee.h"
#include "tests/perf/gpu_batch.h"

#include <assert.h>
#include <stdlib.h>

enum { STEPS_MAX = 12, SECTION_ARENA = 1 << 28 };

typedef struct contender {
    const char *name, *method;
    int64_t rank, experts;
    const char *form, *dropout;
    bool checkpointing, quantised;
} contender;

static const contender CONTENDERS[] = {
    { .name = "frozen base", .method = "base" },
    { .name = "mixlora r16 E8", .method = "mixlora", .rank = 16, .experts = 8, .form = "factored" },
    { .name = "lora r80", .method = "lora", .rank = 80 },
    { .name = "mixlora r16 E64", .method = "mixlora", .rank = 16, .experts = 64, .form = "factored" },
    { .name = "dora r80", .method = "dora", .rank = 80 },
    { .name = "mixlora r16 E8 shared", .method = "mixlora", .rank = 16, .experts = 8, .form = "shared" },
    { .name = "mixlora r16 E8 naive", .method = "mixlora", .rank = 16, .experts = 8, .form = "naive" },
    { .name = "lora r80 Q4_0 base", .method = "lora", .rank = 80, .quantised = true },
    { .name = "mixlora r16 E8 checkpointing", .method = "mixlora", .rank = 16, .experts = 8, .form = "factored", .checkpointing = true },
    { .name = "mixlora r16 E8 no dropout", .method = "mixlora", .rank = 16, .experts = 8, .form = "factored", .dropout = "0" },
    { .name = "mixlora r16 E32", .method = "mixlora", .rank = 16, .experts = 32, .form = "factored" },
    { .name = "mixlora r16 E16", .method = "mixlora", .rank = 16, .experts = 16, .form = "factored" },
    { .name = "frozen base again", .method = "base" },
};
enum { CONTENDER_COUNT = sizeof CONTENDERS / sizeof CONTENDERS[0], QUICK_COUNT = 3 /* of the smaller shapes with --quick */ };

/* One contender on one shape. */
typedef struct run {
    const contender *c;
    const perf_shape *s;
    const mx_layout *layout;
    mx_model *model;
    mx_trainee *trainee;
    const mx_batch *batch[2], *exam;
    size_t planned, used_before, free_before;
    double open_seconds;
    uint64_t steps; /* done */
} run;

/* Of each shape's frozen base, for the ratios. */
static double frozen[PERF_SHAPES][2];

/* ------------------------------------------------------------------ opening */

/* The method's words from YAML, read by its own table. */
static const void *configure(const perf *p, const contender *c, const mx_method *m, mx_arena *a) {
    int64_t rank = p->quick ? c->rank / 8 + 1 : c->rank;
    mx_problems problems;
    mx_status st = { 0 };
    mx_node *map;
    void *config = mx_arena_take(a, m->options->size ? m->options->size : 1);
    const char *text = "{}\n";

    if (c->rank) {
        text = mx_arena_text(a, "lora_r: %lld\nlora_alpha: %lld\nlora_dropout: %s\n"
                                "target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]\n",
                             (long long)rank, (long long)(2 * rank), c->dropout ? c->dropout : "0.05");
    }
    if (c->experts) {
        text = mx_arena_text(a, "%snum_experts: %lld\nrouting_strategy: top_k\ntop_k: 2\nexperts_forward: %s\n", text,
                             (long long)c->experts, c->form);
    }
    mx_problems_init(&problems);
    if (mx_yaml_parse(text, c->name, 0, a, &map, &problems, &st) == MX_OK) {
        mx_option_bind(m->options, map, config, a, &problems, NULL);
    }
    if (problems.count) {
        mx_problems_print(&problems, stderr);
        exit(1);
    }
    mx_problems_finish(&problems);
    mx_method_resolve(m, config);
    return config;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static size_t used_now(const perf *p) {
    size_t used = 0;

    for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
        used += p->b->used_bytes(p->b, (mx_memory)i);
    }
    return used;
}

static mx_code open_run(perf *p, const mx_base_file *file, mx_arena *a, run *r, mx_status *st) {
    const mx_method *m = mx_method_find(r->c->method);
    const mx_batch *large = r->batch[0], *exam = r->exam;
    const mx_model_limits limits = {
        .rows = p->rows[0], .loss_rows = most(large->loss_rows, exam->loss_rows), .segments = most(large->segments, exam->segments),
        .spans = most(large->spans, exam->spans), .questions = most(large->questions, exam->questions), .tasks = 1, .training = true,
        .checkpointing = r->c->checkpointing,
    };
    size_t bytes[MX_MEMORY_PURPOSES];
    double began = perf_now();

    r->layout = mx_layout_make(m, configure(p, r->c, m, a), mx_base_file_shape(file), a);
    r->used_before = used_now(p); /* the backend's own */
    r->free_before = p->cuda ? mx_cuda_measure_free(p->b) : 0;
    MX_TRY(mx_model_open(p->b, file, r->layout, &limits, &r->model, st));
    MX_TRY(mx_trainee_open(p->b, r->layout, mx_model_frozen(r->model), true, &r->trainee, st));
    MX_TRY(mx_trainee_start(r->trainee, 1, st));
    r->trainee->optimizer = MX_OPTIMIZER_DEFAULTS;
    r->trainee->optimizer.max_grad_norm = 1;
    r->trainee->schedule = (mx_schedule){ .kind = MX_SCHEDULE_CONSTANT, .peak = 1e-4, .steps = 1000 };
    MX_TRY(p->b->sync(p->b, st));
    r->open_seconds = perf_now() - began;
    mx_model_bytes(p->b, file, r->layout, &limits, bytes);
    r->planned = mx_trainee_bytes(r->layout, true);
    for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
        r->planned += bytes[i];
    }
    return MX_OK;
}

static void close_run(run *r) {
    mx_trainee_close(r->trainee);
    mx_model_close(r->model);
    r->trainee = NULL;
    r->model = NULL;
}

/* ------------------------------------------------------------------ steps */

/* What a step must multiply: linears forward and to their inputs, the causal scores (4 D forward, 10 D backward), the head on
 * the loss rows, the adapter. What checkpointing, or a form of the experts, computes besides is its cost. */
static double step_flops(const run *r, const mx_batch *b) {
    const mx_shape *s = mx_model_shape(r->model);
    double linears = 0, scores = 0;

    for (int site = 0; site < MX_SITES; site++) {
        int64_t out, in;

        mx_site_size(s, (mx_site)site, &out, &in);
        linears += (double)out * (double)in;
    }
    for (int64_t i = 0; i < b->segments; i++) {
        scores += 0.5 * (double)b->segment[i].count * (double)(b->segment[i].count + 1);
    }
    return (double)s->layers * (4.0 * (double)b->live * linears + 14.0 * scores * (double)(s->heads * s->head_dim)) +
           4.0 * (double)b->loss_rows * (double)s->vocab * (double)s->hidden + mx_layout_flops(r->layout) * (double)b->live;
}

static void queue_step(run *r, const mx_batch *batch, mx_numbers *numbers) {
    const mx_pass pass = { .training = true, .seed = 1, .step = r->steps++, .input_gradient = strcmp(r->c->method, "base") == 0 };
    mx_adapter *adapter = &r->trainee->adapter;

    mx_trainee_begin(r->trainee);
    mx_model_forward(r->model, &adapter, 1, batch, &pass);
    mx_model_losses(r->model, r->trainee->numbers);
    mx_model_backward(r->model);
    mx_trainee_end(r->trainee);
    mx_trainee_queue_numbers(r->trainee, numbers);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

typedef struct stepped {
    double seconds[STEPS_MAX]; /* sorted */
    double host;               /* a step's queueing, the least */
    int count;
    uint64_t waits, allocations; /* in the steps that count */
    double loss;
} stepped;

static stepped measure_steps(perf *p, run *r, const mx_batch *batch) {
    const int warm = p->quick ? 1 : 2, all = warm + (p->quick ? 1 : 5); /* and one more, so that one is always queued ahead */
    uint64_t mark[STEPS_MAX];
    double end[STEPS_MAX];
    stepped ret = { .host = INFINITY, .count = all - warm };
    mx_numbers *numbers;
    mx_status st = { 0 };
    uint64_t first = r->steps;

    if (p->b->host_alloc(p->b, sizeof *numbers * STEPS_MAX, (void **)&numbers, &st)) {
        perf_die(r->c->name, &st);
    }
    for (int i = 0; i <= all; i++) {
        double began = perf_now();

        queue_step(r, batch, &numbers[i]);
        mark[i] = p->b->mark(p->b);
        ret.host = fmin(ret.host, perf_now() - began);
        if (i > 0) {
            if (p->b->wait(p->b, mark[i - 1], &st) || mx_trainee_judge(r->trainee, (int64_t)first + i, &numbers[i - 1], &st)) {
                perf_die(r->c->name, &st);
            }
            end[i - 1] = perf_now();
        }
        if (i == warm) {
            ret.waits = p->b->waits, ret.allocations = p->b->allocations;
        }
    }
    if (p->b->wait(p->b, mark[all], &st)) {
        perf_die(r->c->name, &st);
    }
    ret.waits = p->b->waits - ret.waits, ret.allocations = p->b->allocations - ret.allocations;
    for (int i = warm; i < all; i++) {
        ret.seconds[i - warm] = end[i] - end[i - 1];
    }
    qsort(ret.seconds, (size_t)ret.count, sizeof *ret.seconds, by_value);
    ret.loss = numbers[all - 1].loss;
    p->b->host_release(p->b, numbers);
    return ret;
}

static void tell_steps(perf *p, run *r, int which) {
    const mx_batch *b = r->batch[which];
    stepped s = measure_steps(p, r, b);
    double seconds = s.seconds[s.count / 2], *base = &frozen[r->s - p->shape][which], rate = (double)b->live / seconds,
           flops = step_flops(r, b) / seconds, ratio;

    if (r->c == CONTENDERS) {
        *base = seconds;
    }
    ratio = *base > 0 ? seconds / *base : 0; /* 0: the frozen base did not fit */
    printf("  %-5s %-30s T %5lld %9.2f ms %9.0f tokens/s %6.3f x frozen %7.1f TFLOP/s %5.1f %%%s\n", r->s->name, r->c->name,
           (long long)b->live, seconds * 1e3, rate, ratio, flops / 1e12, p->product > 0 ? 100 * flops / p->product : 0,
           s.host > 0.9 * seconds && p->cuda ? "  (the host's own time)" : "");
    fflush(stdout);
    perf_record(p, "steps", json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "shape", r->s->name, "case", r->c->name,
                                      "tokens", (json_int_t)b->live, "loss_rows", (json_int_t)b->loss_rows, "ms", seconds * 1e3, "ms_least",
                                      s.seconds[0] * 1e3, "ms_most", s.seconds[s.count - 1] * 1e3, "host_ms", s.host * 1e3,
                                      "tokens_per_second", rate, "of_frozen", ratio, "flops", flops, "waits_per_step",
                                      (double)s.waits / s.count, "allocations_per_step", (double)s.allocations / s.count, "loss", s.loss));
}

/* ------------------------------------------------------------------ evaluation, memory */

/* As eval/ does it: forward, then the choices' scores, waited for pass by pass. */
static void tell_exam(perf *p, run *r) {
    const int passes = p->quick ? 1 : 8;
    const mx_pass pass = { .training = false };
    mx_adapter *adapter = &r->trainee->adapter;
    float *nll = calloc((size_t)r->exam->loss_rows, sizeof *nll);
    mx_status st = { 0 };
    double seconds = 0;

    assert(nll);
    for (int i = -1; i < passes; i++) { /* the first does not count */
        double began = perf_now();

        mx_model_forward(r->model, &adapter, 1, r->exam, &pass);
        if (mx_model_nll(r->model, nll, &st)) {
            perf_die(r->c->name, &st);
        }
        seconds += i < 0 ? 0 : perf_now() - began;
    }
    free(nll);
    seconds /= passes;
    printf("  %-5s %-30s evaluation %9.1f questions/s %9.0f tokens/s\n", r->s->name, r->c->name, (double)r->exam->questions / seconds,
           (double)r->exam->live / seconds);
    fflush(stdout);
    perf_record(p, "evaluation", json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f}", "shape", r->s->name, "case", r->c->name, "questions",
                                           (json_int_t)r->exam->questions, "tokens", (json_int_t)r->exam->live, "ms", seconds * 1e3,
                                           "questions_per_second", (double)r->exam->questions / seconds, "tokens_per_second",
                                           (double)r->exam->live / seconds));
}

static void tell_memory(perf *p, const run *r) {
    size_t used = used_now(p) - r->used_before, taken = p->cuda ? r->free_before - mx_cuda_measure_free(p->b) : 0;
    const double gib = 1 << 30;

    printf("  %-5s %-30s planned %7.2f GiB, used %7.2f, off the device %7.2f; opened in %.1f s\n", r->s->name, r->c->name,
           (double)r->planned / gib, (double)used / gib, (double)taken / gib, r->open_seconds);
    fflush(stdout);
    perf_record(p, "memory", json_pack("{s:s, s:s, s:I, s:I, s:I, s:f}", "shape", r->s->name, "case", r->c->name, "planned",
                                       (json_int_t)r->planned, "used", (json_int_t)used, "device", (json_int_t)taken, "open_seconds",
                                       r->open_seconds));
}

/* ------------------------------------------------------------------ all */

static void left_out(perf *p, const run *r, const mx_status *st) {
    printf("  %-5s %-30s left out: %s\n", r->s->name, r->c->name, st->text);
    fflush(stdout);
    json_array_append_new(json_object_get(p->report, "left_out"), json_sprintf("%s %s: %s", r->s->name, r->c->name, st->text));
}

static void measure_contender(perf *p, const contender *c, const perf_shape *s, const mx_base_file *file) {
    run r = { .c = c, .s = s };
    mx_status st = { 0 };
    mx_arena a;

    mx_arena_init(&a, SECTION_ARENA);
    for (int i = 0; i < 2; i++) {
        r.batch[i] = perf_batch_sequences(&a, p->rows[i], s->vocab, p->peers);
    }
    r.exam = perf_batch_questions(&a, p->rows[0], s->vocab);
    if (open_run(p, file, &a, &r, &st)) {
        left_out(p, &r, &st);
    } else {
        for (int i = 0; i < 2; i++) {
            tell_steps(p, &r, i);
        }
        if (!c->checkpointing && !p->peers) {
            tell_exam(p, &r);
        }
        tell_memory(p, &r);
    }
    close_run(&r);
    mx_arena_finish(&a);
    perf_save(p);
}

/* The ratios need the frozen base, so it is measured with whatever is asked for. */
static bool wanted(const perf *p, const perf_shape *s, const contender *c) {
    bool wants = false;

    for (int i = 0; i < CONTENDER_COUNT; i++) {
        char name[100];

        snprintf(name, sizeof name, "%s %s", s->name, CONTENDERS[i].name);
        wants |= (c == &CONTENDERS[i] || c == CONTENDERS) && perf_named(p, "steps", name) && !(p->quick && s != p->shape && i >= QUICK_COUNT);
    }
    return wants;
}

/* The base is made when the first contender needs it. */
static mx_code need_base(perf *p, const perf_shape *s, mx_file_type type, mx_arena *a, perf_base *base, mx_status *st) {
    double began = perf_now();

    if (base->file) {
        return MX_OK;
    }
    MX_TRY(perf_base_open(p, s, type, a, base, st));
    printf("  %-5s a random base, %s, %.2f GiB, made in %.1f s\n", s->name, mx_base_file_description(base->file),
           (double)base->bytes / (1 << 30), perf_now() - began);
    fflush(stdout);
    return MX_OK;
}

static void measure_shape(perf *p, const perf_shape *s, bool quantised) {
    mx_file_type type = quantised ? MX_FILE_Q4_0 : p->act == MX_BF16 ? MX_FILE_BF16 : MX_FILE_F32;
    perf_base base = { 0 };
    mx_arena a;

    mx_arena_init(&a, SECTION_ARENA);
    for (int i = 0; i < CONTENDER_COUNT; i++) {
        const contender *c = &CONTENDERS[i];
        mx_status st = { 0 };
        char name[100];

        snprintf(name, sizeof name, "%s %s", s->name, c->name);
        if (c->quantised == quantised && wanted(p, s, c) && perf_in_time(p, "steps", name)) {
            if (need_base(p, s, type, &a, &base, &st)) {
                left_out(p, &(run){ .c = c, .s = s }, &st);
                break;
            }
            measure_contender(p, c, s, base.file);
        }
    }
    perf_base_close(&base);
    mx_arena_finish(&a);
}

void perf_steps(perf *p) {
    perf_title("steps, against the frozen base's; of the largest product in %");
    for (int i = 0; i < PERF_SHAPES; i++) {
        measure_shape(p, &p->shape[i], false);
        measure_shape(p, &p->shape[i], true);
    }
}
