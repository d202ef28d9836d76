/* plan.c - see plan.h. */
#include "runner/plan.h"

#include "runner/device.h"

#include <assert.h>
#include <string.h>

/* -------------------------------------------------------------------- memory of this process and machine */

static size_t proc_value(const char *path, const char *word) {
    char line[256];
    size_t kib = 0, n = strlen(word);
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, word, n) == 0) {
            kib = strtoull(line + n, NULL, 10);
            break;
        }
    }
    if (f) {
        fclose(f);
    }
    return kib * 1024;
}

size_t mx_memory_now(void) {
    return proc_value("/proc/self/status", "RssAnon:");
}

static size_t file_number(const char *path) {
    char text[64] = "";
    FILE *f = fopen(path, "r");

    if (f) {
        if (!fgets(text, sizeof text, f)) {
            text[0] = '\0';
        }
        fclose(f);
    }
    return strtoull(text, NULL, 10); /* "max" reads as 0: no limit */
}

size_t mx_memory_available(void) {
    size_t available = proc_value("/proc/meminfo", "MemAvailable:");
    size_t limit = file_number("/sys/fs/cgroup/memory.max"), used = file_number("/sys/fs/cgroup/memory.current");
    size_t cached = proc_value("/sys/fs/cgroup/memory.stat", "inactive_file ") / 1024; /* bytes there, not KiB */

    used -= cached < used ? cached : used; /* cached files count as used, and give way when memory is asked for */
    if (limit > 0) {
        size_t left = limit > used ? limit - used : 0;

        available = left < available ? left : available;
    }
    return available;
}

/* -------------------------------------------------------------------- tasks and data */

static int32_t find_task(const mx_plan *p, const char *name) {
    for (int32_t i = 0; i < p->tasks; i++) {
        if (strcmp(p->task[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static mx_code add_task(mx_plan *p, const char *name, mx_mark at, const mx_task_item *item, mx_status *st) {
    mx_plan_task *t = &p->task[p->tasks];
    mx_problems problems;
    mx_code code;

    mx_problems_init(&problems);
    code = mx_task_read(name, at, p->arena, &t->task, &problems, st);
    if (code == MX_E_RECIPE && problems.kept > 0 && st->code == MX_OK) {
        *st = problems.item[0]; /* validate tells all of them */
    }
    mx_problems_finish(&problems);
    if (code == MX_OK) {
        t->name = name;
        t->item = item;
        p->tasks++;
    }
    return code;
}

/* The run's list: the tasks trained on, then those only scored. */
static mx_code gather_tasks(mx_plan *p, mx_status *st) {
    const mx_recipe *r = p->recipe;
    const mx_list *trained = &r->train.data.tasks;
    const mx_texts *scored = &r->eval.tasks;

    p->task = MX_TAKE(p->arena, mx_plan_task, trained->count + scored->count + 1);
    for (size_t i = 0; p->trains && i < trained->count; i++) {
        const mx_task_item *item = (const mx_task_item *)trained->item + i;

        if (find_task(p, item->task) >= 0) {
            return mx_fail(st, MX_E_RECIPE, trained->at[i], "train.tasks names '%s' twice; use weight for more of it",
                           item->task);
        }
        MX_TRY(add_task(p, item->task, trained->at[i], item, st));
    }
    for (size_t i = 0; i < scored->count; i++) {
        if (find_task(p, scored->item[i]) < 0) {
            MX_TRY(add_task(p, scored->item[i], scored->at[i], NULL, st));
        }
    }
    if (!p->trains && scored->count == 0) { /* eval of a recipe that names none: those it would train on */
        for (size_t i = 0; i < trained->count; i++) {
            MX_TRY(add_task(p, ((const mx_task_item *)trained->item + i)->task, trained->at[i], NULL, st));
        }
    }
    return MX_OK;
}

static mx_code read_training(mx_plan *p, mx_status *st) {
    const mx_stream_words *w = &p->recipe->train.data;
    mx_encode_options o = {
        .form = (mx_prompt_form)w->prompt,
        .ask = w->objective == MX_OBJECTIVE_CHOICE ? MX_ASK_CHOICES : MX_ASK_ANSWER,
        .loss_on_all = w->objective == MX_OBJECTIVE_LANGUAGE_MODEL && w->loss_on == MX_LOSS_ON_ALL,
        .add_eos = w->add_eos,
        .sequence_len = w->sequence_len,
    };
    int64_t running = 0;

    for (int32_t i = 0; i < p->tasks; i++) {
        mx_plan_task *t = &p->task[i];
        mx_data_request want = { .split = MX_SPLIT_TRAIN, .data_dir = p->recipe->data_dir, .task_index = i };

        if (!t->item) {
            continue;
        }
        want.at = w->tasks.at[i];
        want.path = t->item->path;
        want.labels = t->item->labels;
        want.hold_out = t->item->hold_out;
        want.limit = t->item->limit;
        want.first_running = (int32_t)running;
        MX_TRY(mx_questions_read(t->task, &want, p->arena, &t->train, st));
        running += t->train.in_file;
        if (running > INT32_MAX) {
            return mx_fail(st, MX_E_DATA, MX_NOWHERE, "the mix has more than %d questions", INT32_MAX);
        }
        if (!mx_task_prompt_of(t->task, o.form)) {
            return mx_fail(st, MX_E_RECIPE, mx_recipe_place(p->recipe, "train.prompt"), "task '%s' has no prompt '%s'",
                           t->name, mx_prompt_form_names[o.form]);
        }
        MX_TRY(mx_encode(&t->train, p->tokenizer, &o, p->arena, &t->encoded, st));
        p->limited |= t->item->limit > 0;
    }
    return MX_OK;
}

static mx_code add_exams(mx_plan *p, int32_t task, mx_split split, mx_mark at, mx_status *st) {
    const mx_recipe *r = p->recipe;
    const mx_plan_task *t = &p->task[task];
    mx_data_request want = { .split = split, .data_dir = r->data_dir, .task_index = task, .at = at, .limit = r->eval.limit };
    mx_questions questions;

    if (split == MX_SPLIT_HELD_OUT) {
        want.path = t->item->path;
        want.labels = t->item->labels;
        want.hold_out = t->item->hold_out;
    }
    MX_TRY(mx_questions_read(t->task, &want, p->arena, &questions, st));
    for (int protocol = 0; protocol < MX_PROTOCOLS; protocol++) {
        mx_plan_exam *e = &p->exam[p->exams];

        if (!(r->eval.protocols >> protocol & 1)) {
            continue;
        }
        if (!(t->task->protocols >> protocol & 1)) {
            return mx_fail(st, MX_E_RECIPE, mx_recipe_place(r, "eval.protocols"), "task '%s' does not offer protocol %s",
                           t->name, mx_protocol_names[protocol]);
        }
        *e = (mx_plan_exam){ .task = task, .split = split, .questions = questions };
        MX_TRY(mx_exam_prepare(&e->questions, (mx_protocol)protocol, p->tokenizer, r->train.data.sequence_len, p->arena,
                               &e->exam, st));
        p->exams++;
    }
    return MX_OK;
}

static mx_code read_exams(mx_plan *p, mx_status *st) {
    const mx_recipe *r = p->recipe;
    mx_split split = r->eval.split == MX_EVAL_TEST ? MX_SPLIT_TEST : MX_SPLIT_VALIDATION;

    p->exam = MX_TAKE(p->arena, mx_plan_exam, (size_t)p->tasks * 2 * MX_PROTOCOLS + 1);
    for (int32_t i = 0; i < p->tasks && r->eval.split != MX_EVAL_HELD_OUT; i++) {
        bool scored = r->eval.tasks.count == 0;
        mx_mark at = mx_recipe_place(r, "eval.tasks");

        for (size_t j = 0; j < r->eval.tasks.count; j++) {
            if (strcmp(r->eval.tasks.item[j], p->task[i].name) == 0) {
                scored = true;
                at = r->eval.tasks.at[j];
            }
        }
        if (scored) {
            MX_TRY(add_exams(p, i, split, at, st));
        }
    }
    for (int32_t i = 0; i < p->tasks; i++) {
        if (p->task[i].item && p->task[i].item->hold_out > 0) {
            MX_TRY(add_exams(p, i, MX_SPLIT_HELD_OUT, r->train.data.tasks.at[i], st));
        }
    }
    if (r->eval.split == MX_EVAL_HELD_OUT && p->exams == 0 && r->eval.protocols) {
        return mx_fail(st, MX_E_RECIPE, mx_recipe_place(r, "eval.split"), "eval.split is held_out, but %s",
                       p->trains ? "no task of train.tasks has a hold_out" : "questions are held out of training runs only");
    }
    if (!p->trains && p->exams == 0) {
        return mx_fail(st, MX_E_RECIPE, mx_recipe_place(r, "eval.protocols"), "eval.protocols is empty: there is nothing to score");
    }
    return MX_OK;
}

/* -------------------------------------------------------------------- steps and bytes */

static void settle_steps(mx_plan *p) {
    const mx_train_options *t = &p->recipe->train;

    p->schedule = mx_optimizer_schedule(&t->optimizer, p->totals.steps);
    p->router_log_steps = t->router_log_steps > 0 ? t->router_log_steps : (p->totals.steps + 19) / 20;
    p->save_steps = t->save_steps;
    p->logging_steps = t->logging_steps;
}

bool mx_plan_scores_at(const mx_plan *p, int64_t step) {
    int64_t every = p->recipe->eval.every_epochs * p->totals.steps_per_epoch;

    if (p->exams == 0) {
        return false;
    }
    if (step == 0) {
        return p->recipe->eval.before_training;
    }
    return step == p->totals.steps || (every > 0 && step % every == 0);
}

static mx_code cut_steps(mx_plan *p, mx_status *st) {
    const mx_train_options *t = &p->recipe->train;
    mx_stream_part *part = MX_TAKE(p->arena, mx_stream_part, p->tasks);
    mx_stream_options o = {
        .seed = (uint64_t)p->recipe->seed,
        .epochs = t->data.num_epochs,
        .max_steps = t->data.max_steps,
        .batch_size = t->data.batch_size,
        .micro_batch_tokens = t->data.micro_batch_tokens,
    };
    int64_t parts = 0;

    for (int32_t i = 0; i < p->tasks; i++) {
        if (p->task[i].item) {
            part[parts].questions = &p->task[i].encoded;
            part[parts++].weight = p->task[i].item->weight;
        }
    }
    MX_TRY(mx_stream_open(part, parts, &o, p->arena, &p->stream, st));
    p->totals = *mx_stream_measure(p->stream);
    p->limited |= p->totals.steps < p->totals.steps_per_epoch * t->data.num_epochs;
    settle_steps(p);
    return MX_OK;
}

/* The frozen base has a forward pass and a backward pass to the activations; the adapter has gradients besides. */
double mx_plan_forward_flops(double base_flops, double flops) {
    return base_flops / 2 + flops / 3;
}

static void settle_checkpointing(mx_plan *p) {
    p->limits.checkpointing = p->trains && p->recipe->train.gradient_checkpointing;
    p->again_flops = p->limits.checkpointing ? mx_plan_forward_flops(p->base_flops, p->flops) : 0;
}

static void measure_limits(mx_plan *p) {
    mx_extent e = p->totals.largest;

    p->exam_rows = p->trains ? e.rows : p->recipe->train.data.micro_batch_tokens;
    for (int32_t i = 0; i < p->exams; i++) {
        e = mx_extent_max(e, mx_exam_extent(&p->exam[i].exam, p->exam_rows));
        p->limits.label_logits |= p->exam[i].exam.protocol == MX_PROTOCOL_LABEL_LOGITS;
    }
    p->limits.rows = e.rows;
    p->limits.loss_rows = e.loss_rows;
    p->limits.segments = e.segments;
    p->limits.spans = e.spans;
    p->limits.questions = e.questions;
    p->limits.tasks = p->tasks > 0 ? p->tasks : 1;
    p->limits.training = p->trains;
    settle_checkpointing(p);
}

/* -------------------------------------------------------------------- memory */

static size_t sum_bytes(const mx_plan *p) {
    size_t sum = 0;

    for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
        sum += p->bytes[i];
    }
    return sum;
}

static void hint_smaller(const mx_plan *p, bool gpu, mx_status *st) {
    const char *saved = mx_text_bytes(p->bytes[MX_MEMORY_SAVED]);
    long long rows = (long long)p->recipe->train.data.micro_batch_tokens;

    if (p->trains && !p->limits.checkpointing) {
        mx_hint(st, "a smaller train.micro_batch_tokens (now %lld) needs less for activations (now %s); so does"
                    " train.gradient_checkpointing: true%s", rows, saved, gpu ? ". nvidia-smi tells who else uses the GPU" : "");
    } else {
        mx_hint(st, "a smaller train.micro_batch_tokens (now %lld) needs less for activations (now %s)%s", rows, saved,
                gpu ? ". nvidia-smi tells who else uses the GPU" : "");
    }
}

/* Everything in the machine's one memory. */
static mx_code fit_host(mx_plan *p, size_t limit, mx_status *st) {
    size_t device = sum_bytes(p), needed, available = limit ? limit : mx_memory_available();

    p->total_bytes = device + p->host_bytes;
    needed = limit ? p->total_bytes : device; /* what the process holds already is no longer among what is available */
    if (needed > available) {
        mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "this run needs %s and %s %s%s (mixrun plan shows what for)", mx_text_bytes(needed),
                limit ? "--memory-limit is" : "the machine has", mx_text_bytes(available), limit ? "" : " left");
        hint_smaller(p, false, st);
        return MX_E_MEMORY;
    }
    return MX_OK;
}

/* Page-locked: the ring that copies to the device go through, and what queued steps leave of numbers and router counts. */
static size_t locked_bytes(const mx_plan *p) {
    return ((size_t)8 << 20) + 2 * p->bytes[MX_MEMORY_BATCH];
}

/* A GPU's own memory. What is free of it was asked when this process had its context already, and the backend its workspace. */
static mx_code fit_device(mx_plan *p, size_t limit, mx_status *st) {
    const size_t later = (size_t)64 << 20; /* code that CUDA and cuBLASLt load when a kernel is first used; an estimate */
    const mx_backend *b = p->backend;
    size_t needed = sum_bytes(p) + later;

    p->total_bytes = p->host_bytes + locked_bytes(p);
    p->device_bytes = sum_bytes(p) + p->held_bytes + MX_CUDA_OWN_BYTES;
    if (needed <= b->free_bytes && (!limit || p->device_bytes <= limit)) {
        return MX_OK;
    }
    if (limit && p->device_bytes > limit) {
        mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "this run needs %s of the GPU's memory and --memory-limit is %s (mixrun plan shows what for)",
                mx_text_bytes(p->device_bytes), mx_text_bytes(limit));
    } else {
        mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "this run needs %s more of the GPU's memory, and %s of its %s are free (mixrun plan shows"
                " what for)", mx_text_bytes(needed), mx_text_bytes(b->free_bytes), mx_text_bytes(b->device_bytes));
    }
    hint_smaller(p, true, st);
    return MX_E_MEMORY;
}

static mx_code measure_memory(mx_plan *p, size_t limit, mx_status *st) {
    p->slow = mx_model_bytes(p->backend, p->base_file, p->layout, &p->limits, p->bytes);
    p->bytes[MX_MEMORY_TRAINED] = mx_trainee_bytes(p->layout, p->trains);
    p->host_bytes = p->host_bytes ? p->host_bytes : mx_memory_now();
    p->device_bytes = 0;
    if (p->device_absent) {
        const size_t driver = (size_t)512 << 20; /* of the host's memory, for the driver and its libraries; an estimate */

        p->total_bytes = p->host_bytes + locked_bytes(p) + driver;
        return MX_OK;
    }
    return p->backend->device_bytes > 0 ? fit_device(p, limit, st) : fit_host(p, limit, st);
}

static mx_code fit(mx_plan *p, const mx_plan_wish *wish, mx_status *st) {
    mx_code code = measure_memory(p, wish->memory_limit, wish->look_only ? &p->refusal : st);

    return wish->look_only ? MX_OK : code;
}

/* -------------------------------------------------------------------- identity */

static void hash_tasks_and_data(mx_plan *p) {
    mx_hasher *tasks = mx_hasher_open(), *data = mx_hasher_open();

    for (int32_t i = 0; i < p->tasks; i++) {
        mx_hasher_add(tasks, p->task[i].task->sha256, strlen(p->task[i].task->sha256));
        for (int f = 0; p->task[i].item && f < p->task[i].train.files; f++) {
            mx_hasher_add(data, p->task[i].train.file[f].sha256, strlen(p->task[i].train.file[f].sha256));
        }
    }
    for (int32_t i = 0; i < p->exams; i++) {
        for (int f = 0; f < p->exam[i].questions.files; f++) {
            mx_hasher_add(data, p->exam[i].questions.file[f].sha256, strlen(p->exam[i].questions.file[f].sha256));
        }
    }
    mx_hasher_close(tasks, p->tasks_hash);
    mx_hasher_close(data, p->data_hash);
}

static mx_code open_device(mx_plan *p, bool elsewhere, mx_status *st) {
    const mx_recipe *r = p->recipe;
    mx_backend_options o = { .threads = (int)r->threads };
    mx_status inner = { 0 };
    mx_code code;

    p->device = mx_device_of(r->device, &p->device_why);
    o.device = p->device;
    o.precision = r->precision == MX_PRECISION_WORD_BF16 ? MX_PRECISION_BF16 : MX_PRECISION_F32;
    code = mx_backend_open(&o, &p->backend, &inner);
    if (code == MX_E_DEVICE && elsewhere && mx_device_is_gpu(p->device)) {
        p->device_absent = true;
        o.device = "cpu";
        inner = (mx_status){ 0 };
        code = mx_backend_open(&o, &p->backend, &inner);
    }
    if (code) {
        inner.at = mx_recipe_place(r, "device");
        if (code == MX_E_MEMORY && mx_device_is_gpu(p->device)) { /* nothing was begun that could go on */
            inner.hint[0] = '\0';
            mx_hint(&inner, "nvidia-smi tells who else uses the GPU; or use device: cpu");
        }
        *st = inner;
        return code;
    }
    for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
        p->held_bytes += p->backend->used_bytes(p->backend, (mx_memory)i);
    }
    return MX_OK;
}

/* A model of configs/models is that model, or nothing. */
static mx_code check_base(const mx_plan *p, mx_status *st) {
    const char *expected = p->base.model ? p->base.model->sha256 : NULL;

    if (expected && strcmp(expected, p->base_hash) != 0) {
        mx_fail(st, MX_E_DATA, MX_NOWHERE, "%s is not %s: its sha256 is %s, not %s", p->base.path, p->base.name, p->base_hash,
                expected);
        mx_hint(st, "delete that file and fetch it again, or name it by its path: base_model=%s", p->base.path);
        return MX_E_DATA;
    }
    return MX_OK;
}

static void describe(mx_plan *p) {
    mx_text words;

    mx_text_init(&words, 4096);
    p->method->describe(p->config, &words);
    p->description = mx_arena_text(p->arena, "%s%s%s", p->method->name, words.length ? " " : "", words.data ? words.data : "");
    mx_text_finish(&words);
}

static void lay_out(mx_plan *p, const mx_shape *shape) {
    p->layout = mx_layout_make(p->method, p->config, shape, p->arena);
    p->flops = mx_layout_flops(p->layout);
    p->base_flops = mx_shape_flops(shape);
    describe(p);
}

mx_code mx_plan_make(const mx_recipe *recipe, const mx_plan_wish *wish, mx_arena *arena, mx_plan **ret, mx_status *st) {
    mx_plan *p = MX_TAKE(arena, mx_plan, 1);
    const mx_shape *shape;
    mx_code code;

    *ret = NULL;
    p->recipe = recipe;
    p->arena = arena;
    p->trains = wish->trains;
    p->method = wish->method ? wish->method : recipe->method;
    p->config = wish->method ? wish->config : recipe->adapter.config;
    if ((code = mx_hub_resolve(recipe->base_model, mx_recipe_place(recipe, "base_model"), arena, &p->base, st)) ||
        (code = open_device(p, wish->elsewhere, st)) || (code = mx_base_file_open(p->base.path, arena, &p->base_file, st)) ||
        (code = mx_tokenizer_open(p->base.path, arena, &p->tokenizer, st))) {
        goto done;
    }
    shape = mx_base_file_shape(p->base_file);
    if (mx_tokenizer_size(p->tokenizer) > shape->vocab) {
        code = mx_fail(st, MX_E_DATA, MX_NOWHERE, "%s: the tokenizer has %d tokens, the model only %lld embeddings",
                       p->base.path, mx_tokenizer_size(p->tokenizer), (long long)shape->vocab);
        goto done;
    }
    code = mx_shape_check_length(shape, recipe->train.data.sequence_len, st);
    if (code) {
        if (st->at.file == NULL) {
            st->at = mx_recipe_place(recipe, "train.sequence_len");
        }
        goto done;
    }
    lay_out(p, shape);
    if ((code = gather_tasks(p, st)) || (code = p->trains ? read_training(p, st) : MX_OK) ||
        (code = read_exams(p, st)) || (code = p->trains ? cut_steps(p, st) : MX_OK) ||
        (code = mx_base_file_hash(p->base_file, p->base_hash, st)) || (code = check_base(p, st))) {
        goto done;
    }
    p->limited |= recipe->eval.limit > 0 && !p->trains;
    mx_recipe_hash(recipe, p->recipe_hash);
    hash_tasks_and_data(p);
    measure_limits(p);
    code = fit(p, wish, st);
done:
    if (code) {
        mx_plan_close(p);
    } else {
        *ret = p;
    }
    return code;
}

/* Every word of data and evaluation, as text. */
static void print_reading(const mx_recipe *r, mx_text *out) {
    static const mx_option words[] = { MX_STREAM_WORDS(mx_train_options, data), { 0 } };
    static const mx_option_table table = { .name = "train", .option = words, .size = sizeof(mx_train_options) };

    mx_option_print(&table, &r->train, 0, out);
    mx_option_print(&mx_eval_table, &r->eval, 0, out);
    mx_text_print(out, "%s\n%s\n%d %lld %lld\n%s", r->base_model, r->device, r->precision, (long long)r->threads, (long long)r->seed,
                  r->data_dir ? r->data_dir : "");
}

bool mx_plan_alike(const mx_recipe *a, const mx_recipe *b) {
    mx_text text[2];
    bool same;

    mx_text_init(&text[0], 16 << 20);
    mx_text_init(&text[1], 16 << 20);
    print_reading(a, &text[0]);
    print_reading(b, &text[1]);
    same = strcmp(text[0].data, text[1].data) == 0;
    mx_text_finish(&text[0]);
    mx_text_finish(&text[1]);
    return same;
}

mx_code mx_plan_vary(const mx_plan *like, const mx_recipe *recipe, const mx_plan_wish *wish, mx_arena *arena, mx_plan **ret,
                     mx_status *st) {
    mx_plan *p = MX_TAKE(arena, mx_plan, 1);

    assert(mx_plan_alike(like->recipe, recipe) && like->trains == wish->trains && !wish->method);
    *p = *like;
    *ret = p;
    p->recipe = recipe;
    p->arena = arena;
    p->method = recipe->method;
    p->config = recipe->adapter.config;
    p->refusal = (mx_status){ 0 };
    lay_out(p, mx_base_file_shape(p->base_file));
    settle_steps(p);
    settle_checkpointing(p);
    mx_recipe_hash(recipe, p->recipe_hash);
    return fit(p, wish, st);
}

void mx_plan_close(mx_plan *p) {
    if (!p) {
        return;
    }
    mx_tokenizer_close(p->tokenizer);
    mx_base_file_close(p->base_file);
    if (p->backend) {
        p->backend->close(p->backend);
    }
    p->tokenizer = NULL;
    p->base_file = NULL;
    p->backend = NULL;
}
