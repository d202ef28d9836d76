/* yaml.h - YAML as a tree that remembers where each word stood, and in which layer.
 *
 * libyaml's events become mx_nodes in an arena. One document; anchors, aliases, merge keys,
 * tags, duplicate keys, tabs as indentation and non-text keys are problems with a place, and
 * all of a file's problems are found in one pass (after a syntax error the rest is not read).
 * A plain scalar stays text: what it means is decided by the option that reads it, so that
 * `1e-4` is a number and `no` the word it is (mx_node.quoted tells "no" from no). */
#ifndef BASE_YAML_H
#define BASE_YAML_H

#include "base/arena.h"
#include "base/status.h"

typedef enum mx_node_kind { MX_NODE_TEXT, MX_NODE_LIST, MX_NODE_MAP, MX_NODE_NULL } mx_node_kind;

typedef struct mx_node mx_node;
struct mx_node {
    mx_node_kind kind;
    mx_mark at;
    const char *key; /* in a map; else NULL */
    mx_mark key_at;
    const char *text; /* MX_NODE_TEXT: the text. MX_NODE_NULL: as it was spelled ("", "~", "null"), or NULL when
                         `~word` took the word away: it counts as not given, but as decided in this layer */
    bool quoted;
    int layer;      /* 0 is the deepest `extends`; a later layer wins. Arguments come last. */
    mx_node *child; /* first item of a list or a map */
    mx_node *next;  /* the sibling after this one */
};

/* Reads a file, or a text (name: what errors call it). MX_E_IO when it cannot be opened;
 * MX_E_RECIPE when problems were added: the root is then what could be read, or NULL when its syntax is broken. An empty
 * document gives an empty map. */
MX_MUST_CHECK mx_code mx_yaml_read(const char *path, int layer, mx_arena *arena, mx_node **ret_root,
                                   mx_problems *problems, mx_status *st);
MX_MUST_CHECK mx_code mx_yaml_parse(const char *text, const char *name, int layer, mx_arena *arena,
                                    mx_node **ret_root, mx_problems *problems, mx_status *st);

/* The value that begins at byte `from` of a text (an argument's a.b=VALUE); places are those in the whole
 * text. Any kind of node; nothing at all gives MX_NODE_NULL spelled "". */
MX_MUST_CHECK mx_code mx_yaml_parse_value(const char *text, size_t from, const char *name, int layer,
                                          mx_arena *arena, mx_node **ret_value, mx_problems *problems, mx_status *st);

/* NULL when the map (or NULL) has no such key. */
mx_node *mx_node_find(const mx_node *map, const char *key);
/* A new last item of a list or word of a map, zeroed. */
mx_node *mx_node_append(mx_arena *arena, mx_node *to);
/* `over` laid on `under`: maps merge key by key, scalars and lists replace. Neither is changed. */
mx_node *mx_node_merge(mx_arena *arena, const mx_node *under, const mx_node *over);

#endif
