/* step.c - whole training steps on the default base, against the frozen base's own step and oneDNN's rate, in one run.
 *
 * Shape: micro-batches of about 2,000 tokens (packed sequences of 64, of which the last 8 bear loss), bf16 where the processor
 * has it. The frozen-base step is forward, losses and the backward pass down to the input gradients, with no adapter. Ratios are
 * of medians; methods are measured in turn, so that a change of the machine's speed meets all of them.
 *
 *   test-perf-step [rounds]     default 5 */
#include "kernels/cpu/cpu.h"
#include "model/hub.h"
#include "model/model.h"
#include "model/trainee.h"

#include <stdlib.h>
#include <time.h>

enum { SEQUENCES = 32, LENGTH = 64, LOSS = 8, ROWS = SEQUENCES * LENGTH, LOSS_ROWS = SEQUENCES * LOSS, ROUNDS_MAX = 50 };

typedef struct contender {
    const char *name, *method;
    int64_t r, alpha;
    const char *routing;
    mx_model *model;
    mx_trainee *trainee;
    double seconds[ROUNDS_MAX];
    size_t bytes;
} contender;

static contender contenders[] = {
    { .name = "frozen base", .method = "base" },
    { .name = "lora r16", .method = "lora", .r = 16, .alpha = 32 },
    { .name = "lora r80", .method = "lora", .r = 80, .alpha = 160 },
    { .name = "dora r80", .method = "dora", .r = 80, .alpha = 160 },
    { .name = "mixlora r16 E8 top-2", .method = "mixlora", .r = 16, .alpha = 32, .routing = "top_k" },
    { .name = "mixlora r16 E8 switch", .method = "mixlora", .r = 16, .alpha = 32, .routing = "switch" },
    { .name = "mixdora r16 E8 top-2", .method = "mixdora", .r = 16, .alpha = 32, .routing = "top_k" },
};
enum { CONTENDERS = sizeof contenders / sizeof contenders[0] };

static double now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *value, int n) {
    double sorted[ROUNDS_MAX];

    memcpy(sorted, value, sizeof *value * (size_t)n);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void give_up(const mx_status *st) {
    fprintf(stderr, "%s %s\n", st->text, st->hint);
    exit(st->code == MX_E_MISSING ? 77 : 1);
}

static mx_batch *make_batch(mx_arena *a, int64_t vocab) {
    mx_batch *b = MX_TAKE(a, mx_batch, 1);
    int32_t *token = MX_TAKE(a, int32_t, ROWS), *position = MX_TAKE(a, int32_t, ROWS), *question = MX_TAKE(a, int32_t, ROWS),
            *task = MX_TAKE(a, int32_t, ROWS), *segment_of = MX_TAKE(a, int32_t, ROWS), *row = MX_TAKE(a, int32_t, LOSS_ROWS),
            *target = MX_TAKE(a, int32_t, LOSS_ROWS), *gold = MX_TAKE(a, int32_t, SEQUENCES), *first = MX_TAKE(a, int32_t, SEQUENCES + 1);
    mx_segment *segment = MX_TAKE(a, mx_segment, SEQUENCES);
    mx_sequence *sequence = MX_TAKE(a, mx_sequence, SEQUENCES);
    mx_span *span = MX_TAKE(a, mx_span, SEQUENCES);
    mx_rng rng;

    mx_rng_init(&rng, 1, "tokens");
    for (int i = 0; i < ROWS; i++) {
        token[i] = (int32_t)mx_rng_below(&rng, (uint64_t)vocab);
        position[i] = i % LENGTH;
        question[i] = segment_of[i] = i / LENGTH;
    }
    for (int s = 0; s < SEQUENCES; s++) {
        segment[s] = (mx_segment){ .begin = s * LENGTH, .count = LENGTH };
        sequence[s] = (mx_sequence){ .question = s };
        span[s] = (mx_span){ .begin = s * LOSS, .count = LOSS, .question = s };
        first[s + 1] = s + 1;
        for (int i = 0; i < LOSS; i++) {
            row[s * LOSS + i] = (s + 1) * LENGTH - LOSS - 1 + i;
            target[s * LOSS + i] = token[row[s * LOSS + i] + 1];
        }
    }
    *b = (mx_batch){ .rows = ROWS, .live = ROWS, .token = token, .position = position, .question = question, .task = task,
                     .row_segment = segment_of, .segment = segment, .segments = SEQUENCES, .sequence = sequence,
                     .loss_rows = LOSS_ROWS, .loss_row = row, .loss_target = target, .span = span, .spans = SEQUENCES,
                     .questions = SEQUENCES, .gold = gold, .first_span = first, .step_loss_tokens = LOSS_ROWS,
                     .step_questions = SEQUENCES, .step_rows = ROWS };
    return b;
}

/* The method's words from YAML, read by its own table. */
static const void *configure(const contender *c, const mx_method *m, mx_arena *a) {
    mx_problems problems;
    mx_status st = { 0 };
    mx_node *map;
    void *config = mx_arena_take(a, m->options->size ? m->options->size : 1);
    const char *text = c->r ? mx_arena_text(a, "lora_r: %lld\nlora_alpha: %lld\nlora_dropout: 0.05\n%s%s%s", (long long)c->r,
                                            (long long)c->alpha, c->routing ? "num_experts: 8\nrouting_strategy: " : "",
                                            c->routing ? c->routing : "", "\n")
                            : "{}\n";

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

static void open_contender(contender *c, mx_backend *b, const mx_base_file *file, mx_arena *a) {
    const mx_method *m = mx_method_find(c->method);
    const mx_layout *layout = mx_layout_make(m, configure(c, m, a), mx_base_file_shape(file), a);
    const mx_model_limits limits = { .rows = ROWS, .loss_rows = LOSS_ROWS, .segments = SEQUENCES, .spans = SEQUENCES,
                                     .questions = SEQUENCES, .tasks = 1, .training = true };
    size_t bytes[MX_MEMORY_PURPOSES];
    mx_status st = { 0 };

    if (mx_model_open(b, file, layout, &limits, &c->model, &st) ||
        mx_trainee_open(b, layout, mx_model_frozen(c->model), true, &c->trainee, &st) || mx_trainee_start(c->trainee, 1, &st)) {
        give_up(&st);
    }
    c->trainee->optimizer = MX_OPTIMIZER_DEFAULTS;
    c->trainee->schedule = (mx_schedule){ .kind = MX_SCHEDULE_CONSTANT, .peak = 1e-4, .steps = 1000 };
    mx_model_bytes(b, file, layout, &limits, bytes);
    c->bytes = mx_trainee_bytes(layout, true);
    for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
        c->bytes += bytes[i];
    }
}

static double step(contender *c, const mx_batch *batch, uint64_t number) {
    bool frozen = strcmp(c->method, "base") == 0;
    const mx_pass pass = { .training = true, .seed = 1, .step = number, .input_gradient = frozen };
    mx_adapter *adapter = &c->trainee->adapter;
    double began = now();
    mx_numbers numbers;
    mx_status st = { 0 };

    mx_trainee_begin(c->trainee);
    mx_model_forward(c->model, &adapter, 1, batch, &pass);
    mx_model_losses(c->model, c->trainee->numbers);
    mx_model_backward(c->model);
    mx_trainee_end(c->trainee);
    if (mx_trainee_numbers(c->trainee, &numbers, &st)) {
        give_up(&st);
    }
    return now() - began;
}

static void close_contender(contender *c) {
    mx_trainee_close(c->trainee);
    mx_model_close(c->model);
    c->trainee = NULL;
    c->model = NULL;
}

/* FLOP of the frozen step: every linear forward and backward-to-inputs, attention (5 products of S/2 keys), the head on loss rows. */
static double frozen_flop(const mx_shape *s) {
    double linears = 0, out, head = 2.0 * 2.0 * LOSS_ROWS * (double)s->vocab * (double)s->hidden;

    for (int site = 0; site < MX_SITES; site++) {
        int64_t o, i;

        mx_site_size(s, (mx_site)site, &o, &i);
        linears += (double)o * (double)i;
    }
    out = (double)s->layers * (2.0 * 2.0 * ROWS * linears + 3.5 * 2 * 2 * ROWS * (LENGTH / 2.0) * (double)(s->heads * s->head_dim));
    return out + head;
}

/* oneDNN on the same linears' shapes: one product each way, weighted as in the step. */
static double gemm_rate(mx_backend *b, const mx_shape *s, int rounds) {
    mx_dtype type = mx_activation_type(b);
    size_t most = (size_t)(ROWS * s->inner);
    double seconds[ROUNDS_MAX], flop = 0;
    void *x = calloc(most, 4), *w = calloc((size_t)(s->inner * s->hidden), 4), *y = calloc(most, 4);

    for (int r = -1; r < rounds; r++) {
        double began = now();

        flop = 0;
        for (int site = 0; site < MX_SITES; site++) {
            int64_t o, i;

            mx_site_size(s, (mx_site)site, &o, &i);
            mx_gemm(mx_cpu_of(b), ROWS, o, i, mx_factor_of(x, type, i), mx_factor_transposed(w, type, i), mx_product_of(y, type, o), false);
            mx_gemm(mx_cpu_of(b), ROWS, i, o, mx_factor_of(x, type, o), mx_factor_of(w, type, i), mx_product_of(y, type, i), false);
            flop += 2.0 * 2.0 * ROWS * (double)o * (double)i;
        }
        if (r >= 0) {
            seconds[r] = now() - began;
        }
    }
    free(x);
    free(w);
    free(y);
    return flop / median(seconds, rounds);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    mx_backend_options o = { .device = "cpu", .precision = mx_cpu_has_bf16() ? MX_PRECISION_BF16 : MX_PRECISION_F32 };
    mx_base_file *file;
    mx_backend *b;
    mx_hub_base base;
    mx_arena a;
    mx_batch *batch;
    mx_status st = { 0 };
    double frozen, rate;

    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    mx_arena_init(&a, (size_t)1 << 30);
    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, &a, &base, &st) || mx_base_file_open(base.path, &a, &file, &st) ||
        mx_backend_open(&o, &b, &st)) {
        give_up(&st);
    }
    batch = make_batch(&a, mx_base_file_shape(file)->vocab);
    printf("%s; %s; %d tokens a micro-batch, %d loss rows; median of %d rounds\n", b->description,
           b->precision == MX_PRECISION_BF16 ? "bf16" : "f32", ROWS, LOSS_ROWS, rounds);
    for (int c = 0; c < CONTENDERS; c++) { /* the frozen base before each, so that both see the same machine */
        double ours[ROUNDS_MAX];

        open_contender(&contenders[c], b, file, &a);
        step(&contenders[c], batch, 0);
        for (int r = 0; r < rounds; r++) {
            ours[r] = step(&contenders[c], batch, (uint64_t)r + 1);
        }
        memcpy(contenders[c].seconds, ours, sizeof ours);
        close_contender(&contenders[c]);
        if (c > 0) {
            open_contender(&contenders[0], b, file, &a);
            step(&contenders[0], batch, 0);
            for (int r = 0; r < rounds; r++) {
                contenders[0].seconds[r] = step(&contenders[0], batch, (uint64_t)r + 1);
            }
            close_contender(&contenders[0]);
        }
        frozen = median(contenders[0].seconds, rounds);
        printf("  %-24s %8.1f ms  %6.0f tokens/s  %5.2f x frozen base  planned %.2f GiB\n", contenders[c].name,
               1e3 * median(contenders[c].seconds, rounds), ROWS / median(contenders[c].seconds, rounds),
               median(contenders[c].seconds, rounds) / frozen, (double)contenders[c].bytes / (1 << 30));
        fflush(stdout);
    }
    rate = gemm_rate(b, mx_base_file_shape(file), rounds);
    frozen = median(contenders[0].seconds, rounds);
    printf("  GEMMs of these shapes %.0f GFLOP/s; frozen-base step %.0f GFLOP/s, %.2f of it\n", rate / 1e9,
           frozen_flop(mx_base_file_shape(file)) / frozen / 1e9, frozen_flop(mx_base_file_shape(file)) / frozen / rate);
    b->close(b);
    mx_base_file_close(file);
    mx_arena_finish(&a);
    return 0;
}
