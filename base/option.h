/* option.h - a table that binds the words of a YAML map to the fields of a struct.
 *
 * A room describes its own words in one such table, and gets from it: reading, defaults, range
 * checks, "did you mean", "is called X here", dependent words, the text of `mixrun config schema`,
 * the resolved recipe of `config print`, and the run's identity (which words may change results).
 *
 * Governing words. A word may be known only under some values of another word of the same map
 * (`only_if`). When it is given where it is not known:
 *   - if its layer is older than the layer of the governing word, it falls away and is listed
 *     (so `adapter.method=lora` works on a MixLoRA recipe);
 *   - in the same or a later layer it is an error with its place.
 * A governing word stands before its dependents in the table. A word that does not apply has its preset. */
#ifndef BASE_OPTION_H
#define BASE_OPTION_H

#include "base/text.h"
#include "base/yaml.h"

typedef enum mx_option_type {
    MX_BOOL,  /* bool: true | false only */
    MX_INT,   /* int64_t */
    MX_REAL,  /* double */
    MX_TEXT,  /* const char * */
    MX_ENUM,  /* int: index into `choices` */
    MX_SET,   /* uint64_t: bit i is choices[i], at most 63; written as a list */
    MX_TEXTS, /* mx_texts: a list of texts */
    MX_LIST,  /* mx_list: a list of maps, each read by `inner`; a bare text is {inner->bare: text} */
    MX_TABLE, /* a nested map, read by `inner` into the struct at `offset` */
    MX_TREE,  /* const mx_node *: a map or a list as it stands, of recipe words; never printed or hashed */
} mx_option_type;

enum {
    MX_RESULT = 1,   /* may change results: hashed when it differs from its default */
    MX_REQUIRED = 2, /* a recipe must say it */
    MX_AUTO = 4,     /* the text `auto` is allowed: fields get MX_AUTO_INT / NAN / NULL / -1 / MX_AUTO_SET, and
                        the room writes what it means into the field before hashing */
    MX_UNBUILT = 8,  /* a word of the field that is not built yet: giving it is an error that says so */
    MX_OPEN_MIN = 16, MX_OPEN_MAX = 32 /* the end of the range is not itself allowed */
};
#define MX_AUTO_INT INT64_MIN
#define MX_AUTO_SET UINT64_MAX

typedef struct mx_texts {
    const char **item;
    mx_mark *at;
    size_t count;
} mx_texts;
typedef struct mx_list {
    void *item; /* count structs of inner->size bytes */
    mx_mark *at;
    size_t count;
} mx_list;

typedef struct mx_option_table mx_option_table;
typedef struct mx_option {
    const char *name; /* as a recipe spells it */
    mx_option_type type;
    size_t offset;
    unsigned flags;
    const char *preset;         /* as written in YAML, a list as "[a, b]"; NULL: none (text NULL, list empty) */
    double min, max;            /* MX_INT, MX_REAL: the range; MX_SET, MX_TEXTS, MX_LIST: how many items. Both 0: any */
    const char *const *choices; /* MX_ENUM, MX_SET: NULL-terminated */
    const mx_option_table *inner; /* MX_LIST, MX_TABLE */
    const char *only_if; /* "routing_strategy: top_k" or "lr_scheduler: linear | cosine"; NULL: always.
                            Several governing words: clauses joined by " & " */
    const char *help;    /* one line, with the unit and, where there is one, the paper */
} mx_option;

typedef struct mx_synonym {
    const char *word, *here; /* "per_device_train_batch_size" -> "batch_size" */
} mx_synonym;

struct mx_option_table {
    const char *name; /* how errors call the map: "adapter" */
    const mx_option *option; /* ends with name NULL */
    const mx_synonym *synonym; /* ends with word NULL; may be NULL */
    size_t size;               /* of the struct */
    const char *bare;          /* see MX_LIST */
    /* Dependent words beyond ranges ("top_k is 9, but num_experts (line 15) is 8"); may be NULL.
     * `place` finds a word's mark (its value's) or that of the map. */
    void (*check)(const void *config, const mx_node *map, mx_problems *problems);
    /* A table whose words depend on one word of the map (adapter.method): `chooser` names it, `choose` gives the
     * table to really use for its text, or NULL when there is none (`choosers` lists the texts, NULL-terminated, for the
     * error). The field is then an mx_chosen, and `option` may be NULL: all words but the chooser are the chosen table's.
     * The chooser is required, and a governing word for all other words. All three NULL for other tables. */
    const char *chooser;
    const mx_option_table *(*choose)(const char *text);
    const char *const *(*choosers)(void);
};

typedef struct mx_chosen {
    const mx_option_table *table; /* its `name` is the chooser's text ("mixlora"); NULL when that was wrong: a problem says so */
    void *config;                 /* table->size bytes in the arena */
} mx_chosen;

/* What fell away because a governing word changed in a later layer. */
typedef struct mx_fallen {
    const mx_node *word;
    const mx_option_table *table;
    const char *because; /* "adapter.method: lora" */
    struct mx_fallen *next;
} mx_fallen;

/* Fill *config from `map` (NULL: all defaults). Every problem is added, none stops the reading; lists and
 * texts live in the arena. What fell away is appended to *fallen. `problems` and `fallen` may be NULL. */
void mx_option_bind(const mx_option_table *table, const mx_node *map, void *config, mx_arena *arena,
                    mx_problems *problems, mx_fallen **fallen);

/* The place of a word's value in its map, or of the map when the word was not given. */
mx_mark mx_option_place(const mx_node *map, const char *word);
/* For the text of a check's problem at `from`: "line 15", "line 15 of base.yaml", "argument 2", "the default". Into a ring of
 * static buffers good for the next 7 calls. */
const char *mx_option_said(const mx_node *map, const char *word, mx_mark from);

/* YAML of every word that applies, defaults spelled out, read back to the same struct. Numbers print so
 * that they read back to the bit. `indent` in spaces. */
void mx_option_print(const mx_option_table *table, const void *config, int indent, mx_text *out);
/* "path.word=value" lines of the MX_RESULT words that differ from their presets, in the table's order, for
 * hashing and `diff`. */
void mx_option_results(const mx_option_table *table, const void *config, const char *path, mx_text *out);
/* Help of every word: name, type, range or choices, default, result-bearing or not, condition, help. */
void mx_option_schema(const mx_option_table *table, int indent, mx_text *out);

#endif
