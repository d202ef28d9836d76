/* vectors.c - reads a folder of golden vectors and runs every case in every way it allows. */
#include "model/vectors.h"

#include "model/vectors_parts.h"

#include <assert.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_LIMIT = 64 << 20, LENGTH_MAX = 1 << 16 };

static mx_code broken(const char *path, const char *what, mx_status *st) {
    return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "%s", what);
}

/* ------------------------------------------------------------------ batch.json */

static mx_code read_mask(const json_t *from, const char *key, int64_t length, mx_arena *arena, const char *path,
                         uint8_t **ret, int64_t *targets, mx_status *st) {
    const json_t *list = json_object_get(from, key);

    if (!json_is_array(list) || (int64_t)json_array_size(list) != length) {
        return broken(path, "a mask must have one entry for each token", st);
    }
    *ret = MX_TAKE(arena, uint8_t, length);
    for (int64_t i = 1; i < length; i++) { /* entry 0 has nothing before it */
        const json_t *v = json_array_get(list, (size_t)i);

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1) {
            return broken(path, "a mask's entries must be 0 or 1", st);
        }
        (*ret)[i] = (uint8_t)json_integer_value(v);
        *targets += (*ret)[i];
    }
    return MX_OK;
}

static mx_code read_sequence(const json_t *from, int64_t vocab, mx_arena *arena, const char *path,
                             mx_vectors_set *set, mx_vectors_sequence *s, mx_status *st) {
    const json_t *ids = json_object_get(from, "ids");

    s->length = (int64_t)json_array_size(ids);
    if (s->length < 1 || s->length > LENGTH_MAX) {
        return broken(path, "a sequence needs a list of ids", st);
    }
    s->id = MX_TAKE(arena, int32_t, s->length);
    for (int64_t i = 0; i < s->length; i++) {
        const json_t *v = json_array_get(ids, (size_t)i);

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= vocab) {
            return broken(path, "an id is outside the vocabulary", st);
        }
        s->id[i] = (int32_t)json_integer_value(v);
    }
    MX_TRY(read_mask(from, "loss_mask", s->length, arena, path, &s->mask[0], &set->targets[0], st));
    MX_TRY(read_mask(from, "loss_mask_all", s->length, arena, path, &s->mask[1], &set->targets[1], st));
    s->begin = set->rows;
    set->rows += s->length;
    return MX_OK;
}

static mx_code read_batch(mx_vectors_set *set, mx_arena *arena, mx_status *st) {
    const char *path = mx_arena_text(arena, "%s/batch.json", set->folder);
    int64_t vocab = mx_base_file_shape(set->base)->vocab;
    json_t *root = NULL;
    const json_t *list;
    mx_code code;

    MX_TRY(mx_json_read(path, JSON_LIMIT, &root, st));
    list = json_object_get(root, "sequences");
    set->sequences = (int64_t)json_array_size(list);
    code = set->sequences > 0 ? MX_OK : broken(path, "no sequences", st);
    set->sequence = MX_TAKE(arena, mx_vectors_sequence, set->sequences + 1);
    for (int64_t i = 0; !code && i < set->sequences; i++) {
        code = read_sequence(json_array_get(list, (size_t)i), vocab, arena, path, set, &set->sequence[i], st);
    }
    if (!code && (!set->targets[0] || !set->targets[1])) {
        code = broken(path, "no targets", st);
    }
    json_decref(root);
    return code;
}

/* ------------------------------------------------------------------ a case */

/* The optimizer's words; another word than these is one we do not have. */
static bool read_optimizer(mx_vectors_case *c, char *why, size_t size) {
    const json_t *from = json_object_get(c->json, "optimizer"), *betas = json_object_get(from, "betas");
    const char *key;
    json_t *v;

    c->optimizer = MX_OPTIMIZER_DEFAULTS;
    json_object_foreach((json_t *)from, key, v) {
        if (strcmp(key, "lr") && strcmp(key, "betas") && strcmp(key, "eps") && strcmp(key, "weight_decay") &&
            strcmp(key, "lr_of_lora_B")) {
            snprintf(why, size, "optimizer word '%s'", key);
            return false;
        }
    }
    if (!json_is_number(json_object_get(from, "lr")) || !json_is_number(json_object_get(from, "eps")) ||
        !json_is_number(json_object_get(from, "weight_decay")) || json_array_size(betas) != 2) {
        snprintf(why, size, "an optimizer without lr, betas, eps and weight_decay");
        return false;
    }
    c->lr = json_number_value(json_object_get(from, "lr"));
    c->optimizer.eps = json_number_value(json_object_get(from, "eps"));
    c->optimizer.weight_decay = json_number_value(json_object_get(from, "weight_decay"));
    c->optimizer.beta1 = json_number_value(json_array_get(betas, 0));
    c->optimizer.beta2 = json_number_value(json_array_get(betas, 1));
    return true;
}

/* hyper_parameters as the method's words. A word or type we do not have makes the case "not built". */
static bool read_words(mx_vectors_case *c, mx_arena *arena, char *why, size_t size) {
    json_t *words = json_deep_copy(json_object_get(c->json, "hyper_parameters"));
    const json_t *type = json_object_get(c->json, "peft_type"), *lr = json_object_get(words, "lr");
    mx_status st = { 0 };
    mx_code code;

    if (!json_is_object(words)) {
        snprintf(why, size, "no hyper_parameters");
        json_decref(words);
        return false;
    }
    json_object_set(words, "peft_type", (json_t *)(type ? type : json_null()));
    if (json_is_number(lr)) { /* the recipe's learning rate, not the method's word */
        c->lr = json_number_value(lr);
        json_object_del(words, "lr");
    }
    code = mx_adapter_config_read(words, c->json_path, arena, &c->method, &c->config, &st);
    json_decref(words);
    if (code) {
        snprintf(why, size, "%.200s", st.text);
        return false;
    }
    return true;
}

/* adapter_config.json as it would stand beside the adapter must mean the same words. */
static bool same_adapter_config(const mx_vectors_case *c, mx_arena *arena, char *why, size_t size) {
    const json_t *saved = json_object_get(c->json, "adapter_config");
    const mx_method *method;
    json_t *a, *b;
    mx_status st = { 0 };
    void *config;
    bool same;

    if (!json_is_object(saved)) {
        return json_is_null(json_object_get(c->json, "peft_type"));
    }
    if (mx_adapter_config_read(saved, c->json_path, arena, &method, &config, &st)) {
        snprintf(why, size, "adapter_config: %.200s", st.text);
        return false;
    }
    a = mx_adapter_config_write(c->method, c->config, NULL);
    b = mx_adapter_config_write(method, config, NULL);
    same = method == c->method && json_equal(a, b);
    json_decref(a);
    json_decref(b);
    if (!same) {
        snprintf(why, size, "adapter_config means other words than hyper_parameters");
    }
    return same;
}

static void close_case(mx_vectors_case *c) {
    mx_safetensors_close(c->values);
    json_decref(c->json);
    *c = (mx_vectors_case){ 0 };
}

/* r->verdict stays MX_VERDICT_OK when the case can be run. */
static mx_code open_case(const mx_vectors_set *set, mx_arena *arena, mx_vectors_case *c, mx_vectors_result *r,
                         mx_status *st) {
    const json_t *shown, *steps;

    c->json_path = mx_arena_text(arena, "%s/%s.json", set->folder, c->name);
    c->values_path = mx_arena_text(arena, "%s/%s.safetensors", set->folder, c->name);
    MX_TRY(mx_json_read(c->json_path, JSON_LIMIT, &c->json, st));
    MX_TRY(mx_safetensors_open(c->values_path, &c->values, st));
    if (!read_optimizer(c, r->why, sizeof r->why) || !read_words(c, arena, r->why, sizeof r->why)) {
        r->verdict = MX_VERDICT_NOT_BUILT;
        return MX_OK;
    }
    shown = json_object_get(c->json, "shown_sequence");
    c->shown = json_integer_value(shown);
    if (!json_is_integer(shown) || c->shown < 0 || c->shown >= set->sequences) {
        return broken(c->json_path, "shown_sequence must name a sequence of the batch", st);
    }
    steps = json_object_get(c->json, "losses_after_steps");
    c->steps = (int64_t)json_array_size(steps);
    if (!same_adapter_config(c, arena, r->why, sizeof r->why)) {
        r->verdict = MX_VERDICT_BEYOND;
    }
    return MX_OK;
}

/* ------------------------------------------------------------------ ways */

typedef struct examination {
    const mx_vectors_set *set;
    mx_backend *b;
    void (*report)(void *context, const mx_vectors_result *r);
    void *context;
    mx_vectors_summary *sum;
} examination;

static void tell(const examination *x, const mx_vectors_result *r) {
    if (x->report) {
        x->report(x->context, r);
    }
}

/* The forms of the routed block this config allows, as its own table judges them. 0: it has no such word. */
static int allowed_forms(const mx_vectors_case *c, int *word, int form[8], const char *name[8]) {
    int n = 0;

    for (const mx_option *o = c->method->options->option; o && o->name; o++) {
        if (strcmp(o->name, "experts_forward") != 0) {
            continue;
        }
        for (int i = 0; o->choices[i] && n < 8; i++) {
            mx_problems problems;

            mx_problems_init(&problems);
            *word = i;
            c->method->options->check(c->config, NULL, &problems);
            if (!problems.count) {
                form[n] = i;
                name[n++] = o->choices[i];
            }
            mx_problems_finish(&problems);
        }
    }
    return n;
}

static mx_code run_way(const examination *x, const mx_vectors_case *c, bool packed, const char *form, mx_status *st) {
    mx_vectors_result r = { .name = c->name };
    mx_vectors_computed got = { 0 };
    char way[64];
    mx_arena arena;
    mx_code code;

    snprintf(way, sizeof way, "%s%s%s", packed ? "packed" : "one by one", form ? ", " : "", form ? form : "");
    r.way = way;
    mx_arena_init(&arena, (size_t)1 << 32);
    code = mx_vectors_compute(x->b, x->set, c, packed, &arena, &got, st);
    if (!code) {
        mx_vectors_compare(x->set, c, &got, x->b->precision, &r);
        x->sum->runs++;
        x->sum->failed += r.verdict == MX_VERDICT_BEYOND;
        tell(x, &r);
    }
    mx_router_load_finish(&got.load);
    mx_arena_finish(&arena);
    return code;
}

static mx_code run_case(const examination *x, const char *name, mx_status *st) {
    mx_vectors_result first = { .name = name, .way = "" };
    mx_vectors_case c = { .name = name };
    const char *form_name[8];
    int form[8], forms, *word;
    mx_arena arena;
    mx_code code;

    mx_arena_init(&arena, (size_t)1 << 28);
    code = open_case(x->set, &arena, &c, &first, st);
    if (code) {
        goto done;
    }
    if (first.verdict != MX_VERDICT_OK) {
        x->sum->not_built += first.verdict == MX_VERDICT_NOT_BUILT;
        x->sum->failed += first.verdict == MX_VERDICT_BEYOND;
        tell(x, &first);
        goto done;
    }
    x->sum->built++;
    word = mx_method_word(c.method, c.config, "experts_forward");
    forms = word ? allowed_forms(&c, word, form, form_name) : 0;
    for (int i = 0; !code && i < (forms ? forms : 1); i++) {
        if (forms) {
            *word = form[i];
        }
        code = run_way(x, &c, true, forms ? form_name[i] : NULL, st);
        if (!code) {
            code = run_way(x, &c, false, forms ? form_name[i] : NULL, st);
        }
    }
done:
    close_case(&c);
    mx_arena_finish(&arena);
    return code;
}

/* ------------------------------------------------------------------ the folder */

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* X.json with X.safetensors beside it. */
static mx_code list_cases(const char *folder, mx_arena *arena, const char ***ret, size_t *ret_count, mx_status *st) {
    DIR *d = opendir(folder);
    size_t n = 0, room = 1024;
    struct dirent *e;

    if (!d) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = folder }, "the folder of vectors cannot be opened");
    }
    *ret = MX_TAKE(arena, const char *, room);
    while ((e = readdir(d)) && n < room) {
        size_t length = strlen(e->d_name);
        char *name;

        if (length <= 5 || strcmp(e->d_name + length - 5, ".json") != 0) {
            continue;
        }
        name = mx_arena_copy(arena, e->d_name, length - 5);
        if (mx_file_exists(mx_arena_text(arena, "%s/%s.safetensors", folder, name))) {
            (*ret)[n++] = name;
        }
    }
    closedir(d);
    qsort(*ret, n, sizeof **ret, by_name);
    *ret_count = n;
    return n ? MX_OK : mx_fail(st, MX_E_DATA, (mx_mark){ .file = folder }, "no case (NAME.json with NAME.safetensors)");
}

mx_code mx_vectors_run(const char *folder, const mx_backend_options *options,
                       void (*report)(void *context, const mx_vectors_result *r), void *context,
                       mx_vectors_summary *ret, mx_status *st) {
    mx_backend_options quick = *options;
    mx_vectors_set set = { .folder = folder };
    examination x = { .set = &set, .report = report, .context = context, .sum = ret };
    const char **name = NULL;
    size_t names = 0;
    mx_arena arena;
    mx_code code;

    *ret = (mx_vectors_summary){ 0 };
    mx_arena_init(&arena, (size_t)1 << 30);
    code = list_cases(folder, &arena, &name, &names, st);
    if (code) {
        goto done;
    }
    code = mx_base_file_open(folder, &arena, &set.base, st);
    if (code) {
        goto done;
    }
    code = read_batch(&set, &arena, st);
    if (code) {
        goto done;
    }
    quick.threads = quick.threads ? quick.threads : 1;
    code = mx_backend_open(&quick, &x.b, st);
    for (size_t i = 0; !code && i < names; i++) {
        code = run_case(&x, name[i], st);
    }
    if (!code && ret->failed) {
        code = mx_fail(st, MX_E_CHECK, (mx_mark){ .file = folder }, "%lld of %lld runs are beyond tolerance",
                       (long long)ret->failed, (long long)ret->runs);
    }
done:
    if (x.b) {
        x.b->close(x.b);
    }
    mx_base_file_close(set.base);
    mx_arena_finish(&arena);
    return code;
}
