/* hub.h - which files a recipe's `base_model` word means.
 *
 * The word is, in this order:
 *   - a path, when it holds a '/' or ends in .gguf: a folder in Hugging Face's layout or a .gguf file;
 *   - the name of a file in configs/models: that model, looked for in the Hugging Face cache
 *     (HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub), as
 *     models--ORG--NAME/snapshots/REVISION/FILE;
 *   - a folder of that name in the current directory. */
#ifndef MODEL_HUB_H
#define MODEL_HUB_H

#include "base/arena.h"
#include "base/status.h"

/* configs/models/NAME.yaml, which setup.sh reads too. */
typedef struct mx_hub_model {
    const char *name;       /* "SmolLM2-135M-Instruct", as people see it */
    const char *repository; /* "ORG/NAME" */
    const char *revision;   /* 40 hex digits */
    const char *file;       /* a .gguf in it; NULL: the whole snapshot is a folder in Hugging Face's layout */
    int64_t size_bytes;     /* of `file`; 0: not known */
    const char *sha256;     /* of `file`; NULL: not known */
    const char *license;
    /* A Python package that carries the same bytes; all NULL or none. */
    const char *package, *package_version, *package_member;
} mx_hub_model;

typedef struct mx_hub_base {
    const char *name;          /* the model's own, or the path's last part */
    const char *path;          /* a file or a folder that exists; for mx_base_file_open */
    const mx_hub_model *model; /* NULL for a path */
} mx_hub_base;

/* Everything in `arena`. MX_E_MISSING says where it looked and what to do, at `at`. */
MX_MUST_CHECK mx_code mx_hub_resolve(const char *word, mx_mark at, mx_arena *arena, mx_hub_base *ret, mx_status *st);
/* For `validate`: adds a problem at `at` when the word can mean nothing, or when the model's YAML is wrong. Needs no
 * model on disk. */
void mx_hub_validate_name(const char *word, mx_mark at, mx_arena *arena, mx_problems *problems);
/* Reads configs/models/`name`.yaml. */
MX_MUST_CHECK mx_code mx_hub_read_model(const char *name, mx_arena *arena, const mx_hub_model **ret,
                                        mx_problems *problems, mx_status *st);
/* Where the cache is, and where in it this model belongs, whether or not it is there. */
const char *mx_hub_cache(mx_arena *arena);
const char *mx_hub_place(const mx_hub_model *m, mx_arena *arena);

#endif
