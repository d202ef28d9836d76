/* A run stopped and gone on with equals the run that never stopped, to the bit; damaged or foreign files are refused. */
#include "model/checkpoint.h"
#include "tests/support/device.h"

#include "base/file.h"
#include "model/trial.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct bench {
    mx_arena arena;
    mx_backend *b;
    mx_trial_base base;
    char path[300];
    mx_status st;
} bench;

#define MUST(call) cr_assert_eq((call), MX_OK, "%s: %s", #call, s->st.text)

static void open_bench(bench *s, mx_precision precision) {
    mx_backend_options o = { .device = KIT_DEVICE, .threads = 1, .precision = precision };
    mx_trial_shape shape = MX_TRIAL_SHAPE;

    memset(s, 0, sizeof *s);
    mx_arena_init(&s->arena, (size_t)1 << 30);
    MUST(mx_backend_open(&o, &s->b, &s->st));
    MUST(mx_trial_base_open(&shape, 3, &s->arena, &s->base, &s->st));
    snprintf(s->path, sizeof s->path, "%s/checkpoint", s->base.folder);
}

static void close_bench(bench *s) {
    mx_trial_base_close(&s->base);
    s->b->close(s->b);
    mx_arena_finish(&s->arena);
}

static mx_trial open_trial(bench *s, const mx_method *m) {
    mx_trial t;

    MUST(mx_trial_open(s->b, &s->base, m, mx_method_defaults(m, &s->arena), true, &s->arena, &t, &s->st));
    t.trainee->schedule = (mx_schedule){ .kind = MX_SCHEDULE_COSINE, .peak = 1e-2, .steps = 6 };
    return t;
}

static const mx_trial_questions QUESTIONS = { .questions = 3, .choices = 3, .seed = 5, .tasks = 2 };

static double train(bench *s, mx_trial *t, int64_t steps) {
    mx_batch batch = mx_trial_batch(&QUESTIONS, t, 0, 3, true, &s->arena);
    mx_adapter *list[] = { &t->trainee->adapter };
    mx_numbers n = { 0 };

    for (int64_t i = 0; i < steps; i++) {
        mx_pass pass = { .training = true, .seed = t->trainee->seed, .step = (uint64_t)t->trainee->step, .choice = true };

        mx_trainee_begin(t->trainee);
        mx_model_forward(t->model, list, 1, &batch, &pass);
        mx_model_losses(t->model, t->trainee->numbers);
        mx_model_backward(t->model);
        mx_trainee_end(t->trainee);
        MUST(mx_trainee_numbers(t->trainee, &n, &s->st));
    }
    return n.loss;
}

Test(checkpoint, a_continued_run_equals_the_uninterrupted_one_in_every_method_and_precision) {
    for (int p = MX_PRECISION_F32; p <= MX_PRECISION_BF16; p++) {
        for (const mx_method *const *m = mx_methods; *m; m++) {
            bench bench_memory, *s = &bench_memory;
            int64_t stream[2] = { 17, 4 }, back[2] = { 0 }, step = 0, size;
            mx_checkpoint_part out = { "stream", stream, sizeof stream }, in = { "stream", back, sizeof back };
            mx_trial whole, first, second;
            double loss;
            float *a, *b;

            open_bench(s, (mx_precision)p);
            whole = open_trial(s, *m);
            loss = train(s, &whole, 6);
            first = open_trial(s, *m);
            (void)train(s, &first, 3);
            MUST(mx_checkpoint_save(s->path, first.trainee, "recipe 1", &out, 1, &s->st));
            MUST(mx_checkpoint_step(s->path, &step, &s->st));
            cr_expect_eq(step, 3);
            second = open_trial(s, *m);
            MUST(mx_trainee_start(second.trainee, 99, &s->st)); /* other values, another seed: all of it must be replaced */
            MUST(mx_checkpoint_load(s->path, second.trainee, "recipe 1", &in, 1, &s->st));
            cr_expect_eq(second.trainee->step, 3);
            cr_expect_arr_eq(stream, back, sizeof stream);
            cr_expect_eq(train(s, &second, 3), loss, "%s: another loss", (*m)->name);
            size = whole.layout->size[MX_KIND_TRAINED];
            a = MX_TAKE(&s->arena, float, size + 1);
            b = MX_TAKE(&s->arena, float, size + 1);
            mx_trainee_read_values(whole.trainee, a);
            mx_trainee_read_values(second.trainee, b);
            cr_expect_arr_eq(a, b, (size_t)size * sizeof *a, "%s: other values", (*m)->name);
            mx_trial_close(&whole);
            mx_trial_close(&first);
            mx_trial_close(&second);
            close_bench(s);
        }
    }
}

Test(checkpoint, another_run_s_is_refused) {
    bench bench_memory, *s = &bench_memory;
    char room[8] = "seven", longer[16] = "";
    mx_checkpoint_part part = { "notes", room, sizeof room }, other = { "notes", longer, sizeof longer };
    mx_checkpoint_part named = { "rows", room, sizeof room };
    mx_trial t, dora;
    float *before, *after;
    int64_t size;

    open_bench(s, MX_PRECISION_F32);
    t = open_trial(s, mx_method_find("lora"));
    dora = open_trial(s, mx_method_find("dora"));
    MUST(mx_checkpoint_save(s->path, t.trainee, "recipe 1", &part, 1, &s->st));
    mx_trial_shake(&t, 3);
    size = t.layout->size[MX_KIND_TRAINED];
    before = MX_TAKE(&s->arena, float, size);
    after = MX_TAKE(&s->arena, float, size);
    mx_trainee_read_values(t.trainee, before);
    cr_expect_eq(mx_checkpoint_load(s->path, t.trainee, "recipe 2", &part, 1, NULL), MX_E_DATA);
    cr_expect_eq(mx_checkpoint_load(s->path, dora.trainee, "recipe 1", &part, 1, NULL), MX_E_DATA);
    cr_expect_eq(mx_checkpoint_load(s->path, t.trainee, "recipe 1", &other, 1, NULL), MX_E_DATA);
    cr_expect_eq(mx_checkpoint_load(s->path, t.trainee, "recipe 1", &named, 1, NULL), MX_E_DATA);
    cr_expect_eq(mx_checkpoint_load(s->path, t.trainee, "recipe 1", NULL, 0, NULL), MX_E_DATA);
    cr_expect_eq(mx_checkpoint_load("/nowhere/at/all", t.trainee, "recipe 1", &part, 1, NULL), MX_E_IO);
    mx_trainee_read_values(t.trainee, after);
    cr_expect_arr_eq(before, after, (size_t)size * sizeof *before, "a refused file changes nothing");
    mx_trial_close(&dora);
    mx_trial_close(&t);
    close_bench(s);
}

/* Every single byte counts: any one changed, or any length but the right one, is refused and changes nothing. */
Test(checkpoint, damage_is_noticed_wherever_it_is) {
    bench bench_memory, *s = &bench_memory;
    char room[8] = "seven";
    mx_checkpoint_part part = { "notes", room, sizeof room };
    char *file = NULL;
    size_t size = 0;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32);
    t = open_trial(s, mx_method_find("lora"));
    MUST(mx_checkpoint_save(s->path, t.trainee, "recipe 1", &part, 1, &s->st));
    MUST(mx_file_read(s->path, (size_t)1 << 26, &file, &size, &s->st));
    for (size_t i = 0; i < 600; i++) { /* the head densely, the rest in strides, the end densely */
        size_t at = i < 400 ? i : i < 500 ? 400 + (i - 400) * ((size - 500) / 100) : size - 1 - (i - 500);

        file[at] ^= 0x10;
        MUST(mx_file_write(s->path, file, size, &s->st));
        cr_expect_neq(mx_checkpoint_load(s->path, t.trainee, "recipe 1", &part, 1, NULL), MX_OK, "byte %zu of %zu", at, size);
        file[at] ^= 0x10;
    }
    for (size_t cut = 0; cut < size; cut += cut < 300 ? 7 : size / 13 + 1) {
        MUST(mx_file_write(s->path, file, cut, &s->st));
        cr_expect_neq(mx_checkpoint_load(s->path, t.trainee, "recipe 1", &part, 1, NULL), MX_OK, "cut at %zu", cut);
    }
    MUST(mx_file_write(s->path, file, size, &s->st));
    MUST(mx_checkpoint_load(s->path, t.trainee, "recipe 1", &part, 1, &s->st));
    cr_expect_str_eq(room, "seven");
    free(file);
    mx_trial_close(&t);
    close_bench(s);
}

Test(checkpoint, a_folder_that_is_not_there_is_told_and_leaves_nothing) {
    bench bench_memory, *s = &bench_memory;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32);
    t = open_trial(s, mx_method_find("lora"));
    cr_expect_eq(mx_checkpoint_save("/nowhere/at/all", t.trainee, "r", NULL, 0, &s->st), MX_E_IO);
    cr_expect_str_not_empty(s->st.text);
    mx_trial_close(&t);
    close_bench(s);
}
