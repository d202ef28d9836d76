/* adapter_config.c - strict reading of adapter_config.json, and its writing. */
#include "model/adapter_config.h"

#include "base/text.h"
#include "model/methods/method.h"

#include <assert.h>
#include <string.h>

static mx_mark whole(const mx_import *in) {
    return (mx_mark){ .file = in->path };
}

void mx_import_begin(mx_import *in, const json_t *object, const char *path, mx_status *st) {
    *in = (mx_import){ .object = object, .path = path, .seen = json_object(), .st = st };
    assert(in->seen);
    if (!json_is_object(object)) {
        in->failed = true;
        (void)mx_fail(st, MX_E_DATA, whole(in), "an adapter's words must be a JSON object");
    }
}

/* NULL when absent or null. */
static const json_t *get(mx_import *in, const char *key) {
    const json_t *v = json_object_get(in->object, key);

    json_object_set_new(in->seen, key, json_true());
    return json_is_null(v) ? NULL : v;
}

void mx_import_refuse(mx_import *in, const char *key, const char *why) {
    in->failed = true;
    (void)mx_fail(in->st, MX_E_DATA, whole(in), "%s: %s", key, why);
}

bool mx_import_integer(mx_import *in, const char *key, int64_t min, int64_t max, int64_t *ret) {
    const json_t *v = get(in, key);
    int64_t n;

    if (!v) {
        return false;
    }
    n = json_is_integer(v) ? json_integer_value(v) : min - 1;
    if (n < min || n > max) {
        in->failed = true;
        (void)mx_fail(in->st, MX_E_DATA, whole(in), "%s must be an integer from %lld to %lld", key, (long long)min,
                      (long long)max);
        return false;
    }
    *ret = n;
    return true;
}

bool mx_import_real(mx_import *in, const char *key, double min, double max, double *ret) {
    const json_t *v = get(in, key);

    if (!v) {
        return false;
    }
    if (!json_is_number(v) || !(json_number_value(v) >= min && json_number_value(v) <= max)) {
        in->failed = true;
        (void)mx_fail(in->st, MX_E_DATA, whole(in), "%s must be a number from %g to %g", key, min, max);
        return false;
    }
    *ret = json_number_value(v);
    return true;
}

bool mx_import_boolean(mx_import *in, const char *key, bool *ret) {
    const json_t *v = get(in, key);

    if (!v) {
        return false;
    }
    if (!json_is_boolean(v)) {
        mx_import_refuse(in, key, "must be true or false");
        return false;
    }
    *ret = json_is_true(v);
    return true;
}

const char *mx_import_text(mx_import *in, const char *key) {
    const json_t *v = get(in, key);

    if (v && !json_is_string(v)) {
        mx_import_refuse(in, key, "must be a text");
        return NULL;
    }
    return json_string_value(v);
}

static int site_named(const char *name) {
    for (int s = 0; name && s < MX_SITES; s++) {
        if (strcmp(name, mx_site_names[s]) == 0) {
            return s;
        }
    }
    return -1;
}

bool mx_import_sites(mx_import *in, const char *key, uint64_t *ret) {
    const json_t *v = get(in, key), *item;
    uint64_t sites = 0;
    size_t i;

    if (!v) {
        return false;
    }
    if (json_is_string(v) && strcmp(json_string_value(v), "all-linear") == 0) {
        *ret = MX_SITES_ALL;
        return true;
    }
    if (!json_is_array(v)) {
        mx_import_refuse(in, key, "must be a list of linears, or \"all-linear\"");
        return false;
    }
    json_array_foreach(v, i, item) {
        int s = site_named(json_string_value(item));

        if (s < 0) {
            in->failed = true;
            (void)mx_fail(in->st, MX_E_DATA, whole(in), "%s: '%s' is none of the seven linears of a layer", key,
                          json_is_string(item) ? json_string_value(item) : "(not a text)");
            return false;
        }
        sites |= (uint64_t)1 << s;
    }
    *ret = sites;
    return true;
}

const json_t *mx_import_object(mx_import *in, const char *key) {
    const json_t *v = get(in, key);

    if (v && !json_is_object(v)) {
        mx_import_refuse(in, key, "must be an object");
        return NULL;
    }
    return v;
}

/* null, false, an empty text, list or object, and objects of nothing else. */
static bool says_nothing(const json_t *v) {
    const char *key;
    json_t *inner;

    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, key, inner) {
            if (!says_nothing(inner)) {
                return false;
            }
        }
        return true;
    }
    return json_is_null(v) || json_is_false(v) || (json_is_string(v) && !*json_string_value(v)) ||
           (json_is_array(v) && !json_array_size(v));
}

/* Words about the file, its making, or machinery that other words switch on. */
/* Ways of starting that leave the base as it is: what was trained then is whole in the file. The others (PiSSA, OLoRA, CorDA,
 * LoftQ, ...) change the base, and their adapter means nothing on the base we have. */
static bool keeps_the_base(const json_t *init) {
    static const char *const fine[] = { "gaussian", "kaiming", "original", "orthogonal", "eva" };

    for (size_t i = 0; json_is_string(init) && i < sizeof fine / sizeof *fine; i++) {
        if (strcmp(json_string_value(init), fine[i]) == 0) {
            return true;
        }
    }
    return json_is_boolean(init);
}

static bool about_the_file(const char *key, const json_t *value) {
    static const char *const words[] = {
        "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping",
        "megatron_core", "qalora_group_size", "fine_tuned_by", "peft_type",
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(key, words[i]) == 0) {
            return true;
        }
    }
    return (strcmp(key, "init_lora_weights") == 0 || strcmp(key, "lora_init") == 0) && keeps_the_base(value);
}

const char *mx_import_left(const mx_import *in) {
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)in->object, key, v) {
        if (!json_object_get(in->seen, key) && !says_nothing(v) && !about_the_file(key, v)) {
            return key;
        }
    }
    return NULL;
}

mx_code mx_import_end(mx_import *in) {
    const char *left = in->failed ? NULL : mx_import_left(in);
    mx_code code = in->failed ? MX_E_DATA : MX_OK;

    if (left) {
        code = mx_fail(in->st, MX_E_DATA, whole(in), "'%s' is not a word this method knows, and it says something", left);
    }
    json_decref(in->seen);
    in->seen = NULL;
    return code;
}

const mx_method *mx_adapter_config_method(const json_t *object) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        if ((*m)->claims(object)) {
            return *m;
        }
    }
    return NULL;
}

mx_code mx_adapter_config_read(const json_t *object, const char *path, mx_arena *arena, const mx_method **ret_method,
                               void **ret_config, mx_status *st) {
    const mx_method *m = mx_adapter_config_method(object);
    const char *type = json_string_value(json_object_get(object, "peft_type"));
    mx_import in;

    if (!m) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "peft_type '%s' is none that mixrun can compute",
                       type ? type : "(none)");
    }
    *ret_method = m;
    *ret_config = mx_method_defaults(m, arena);
    mx_import_begin(&in, object, path, st);
    m->import_words(&in, *ret_config);
    MX_TRY(mx_import_end(&in));
    return MX_OK;
}

json_t *mx_adapter_config_write(const mx_method *method, const void *config, const char *base_name) {
    json_t *object = json_object();

    assert(object);
    method->export_words(config, object);
    json_object_set_new(object, "task_type", json_string("CAUSAL_LM"));
    json_object_set_new(object, "base_model_name_or_path", base_name ? json_string(base_name) : json_null());
    if (method->names == MX_LAYOUT_PEFT) { /* the classic set, which every PEFT version reads */
        json_object_set_new(object, "fan_in_fan_out", json_false());
        json_object_set_new(object, "inference_mode", json_true());
        json_object_set_new(object, "modules_to_save", json_null());
        json_object_set_new(object, "init_lora_weights", json_true());
    }
    return object;
}
