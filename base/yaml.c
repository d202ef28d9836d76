/* yaml.c - libyaml's events made into a tree that knows its places.
 *
 * libyaml counts columns in characters and lets pass much that a recipe must not hold; both are
 * mended here. The text is looked through first (encoding, control characters, line breaks other
 * than newline), so that lines are the same for libyaml, for the excerpt under an error and for the
 * person's editor. */
#include "base/yaml.h"

#include "base/file.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum {
    TEXT_MAX = 1024 * 1024, /* bytes of a file */
    DEPTH_MAX = 24,         /* maps and lists inside each other */
    NODES_MAX = 10000       /* values of a file: a ceiling for the arena, about 2 MiB */
};

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at */
    const char *text, *file;
    size_t size, nodes;
    const char **line; /* where each line begins */
    size_t line_count;
    int layer;
    mx_arena *arena;
    mx_problems *problems;
    bool broken; /* a syntax error or a ceiling: nothing after it is read */
} reader;

/* --- the text itself --- */

/* The code point at s and its length in bytes; 0 bytes when it is not UTF-8. `left` >= 1. */
static uint32_t decode(const unsigned char *s, size_t left, size_t *ret_length) {
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t length = s[0] < 0x80             ? 1
                    : (s[0] & 0xe0) == 0xc0 ? 2
                    : (s[0] & 0xf0) == 0xe0 ? 3
                    : (s[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
    uint32_t c;

    *ret_length = 0;
    if (length == 0 || length > left) {
        return 0;
    }
    c = length == 1 ? s[0] : s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (s[i] & 0x3fu);
    }
    if ((length > 1 && c < least[length]) || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        return 0;
    }
    *ret_length = length;
    return c;
}

static mx_mark mark_at(const reader *r, size_t line, size_t column, size_t length) {
    return (mx_mark){ .file = r->file,
                      .text = r->text,
                      .line = (uint32_t)line,
                      .column = (uint32_t)column,
                      .length = (uint32_t)length };
}

/* Adds a problem and returns false at the first byte that has no business in YAML. */
static bool look_through(reader *r) {
    const unsigned char *s = (const unsigned char *)r->text;
    size_t line = 1, start = 0, length;

    for (size_t i = 0; i < r->size; i += length) {
        uint32_t c = decode(s + i, r->size - i, &length);
        mx_mark at = mark_at(r, line, i - start + 1, 1);

        if (length == 0) {
            mx_problem(r->problems, at, NULL, "byte 0x%02x is not UTF-8: save the file as UTF-8",
                       s[i]);
            return false;
        }
        if ((c == '\r' && s[i + 1] != '\n') || c == 0x85 || c == 0x2028 || c == 0x2029) {
            mx_problem(r->problems, at, NULL, "a line break that is not a newline (U+%04X)", c);
            return false;
        }
        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || (c >= 0x7f && c < 0xa0) ||
            c == 0xfeff || c == 0xfffe || c == 0xffff) {
            mx_problem(r->problems, at, NULL, "a character that cannot be seen (U+%04X)", c);
            return false;
        }
        if (c == '\n') {
            line++;
            start = i + 1;
        }
    }
    return true;
}

static void index_lines(reader *r) {
    size_t count = 1;

    for (size_t i = 0; i < r->size; i++) {
        count += r->text[i] == '\n';
    }
    r->line = MX_TAKE(r->arena, const char *, count);
    r->line[r->line_count++] = r->text;
    for (size_t i = 0; i < r->size; i++) {
        if (r->text[i] == '\n') {
            r->line[r->line_count++] = r->text + i + 1;
        }
    }
}

/* libyaml's mark, whose column counts characters, as a byte of the text. */
static const char *byte_of(const reader *r, const yaml_mark_t *mark) {
    const char *s;

    if (mark->line >= r->line_count) { /* libyaml's end of a text without a last newline */
        return r->text + r->size;
    }
    s = r->line[mark->line];
    for (size_t column = mark->column; column > 0 && *s && *s != '\n'; column--) {
        do {
            s++;
        } while ((*s & 0xc0) == 0x80);
    }
    return s;
}

/* From `start` to `end`, or to the end of the first line. */
static mx_mark place(const reader *r, const yaml_mark_t *start, const yaml_mark_t *end) {
    size_t line = start->line < r->line_count ? start->line : r->line_count - 1, length = 1;
    const char *from = byte_of(r, start), *to;

    if (end) {
        to = end->line == start->line ? byte_of(r, end) : from + strcspn(from, "\r\n");
        length = to > from ? (size_t)(to - from) : 1;
    }
    return mark_at(r, line + 1, (size_t)(from - r->line[line]) + 1, length);
}

/* --- events --- */

/* libyaml's words, as a person would put them. */
static void tell_syntax(reader *r) {
    const yaml_parser_t *p = &r->parser;
    const char *what = p->problem ? p->problem : "cannot be read",
               *context = p->context ? p->context : "";
    mx_mark at = place(r, &p->problem_mark, NULL), began = place(r, &p->context_mark, NULL);
    char here = *byte_of(r, &p->problem_mark);

    if (p->error == YAML_MEMORY_ERROR) {
        mx_problem(r->problems, mark_at(r, 0, 0, 0), NULL, "no memory to read this file");
    } else if (strstr(what, "could not find expected ':'")) {
        mx_problem(r->problems, began, NULL,
                   "a ':' is missing: this is neither 'word: value' nor '- item'");
    } else if (here == '\t') {
        mx_problem(r->problems, at, NULL, "a tab: YAML is indented with spaces");
    } else if (here == ':' &&
               (strstr(what, "expected key") || strstr(what, "expected node content"))) {
        mx_problem(r->problems, at, NULL, "a word is missing before this ':'");
    } else if (strstr(what, "found character that cannot start any token")) {
        mx_problem(r->problems, at, NULL, "a value cannot begin with '%c': put it in quotes", here);
    } else if (strstr(what, "mapping values are not allowed")) {
        mx_problem(r->problems, at, NULL,
                   "a ':' with a blank after it cannot stand here: quote the text, or check the "
                   "indentation");
    } else if (strstr(what, "unexpected end of stream") && strstr(context, "quoted scalar")) {
        mx_problem(r->problems, began, NULL, "this quoted text never ends");
    } else if (strstr(what, "expected ',' or ']'")) {
        mx_problem(r->problems, at, NULL, "a ',' or ']' is missing (the '[' is at line %u)",
                   began.line);
    } else if (strstr(what, "expected ',' or '}'")) {
        mx_problem(r->problems, at, NULL, "a ',' or '}' is missing (the '{' is at line %u)",
                   began.line);
    } else if (strstr(what, "did not find expected key") ||
               strstr(what, "did not find expected '-' indicator")) {
        mx_problem(r->problems, at, NULL,
                   "this does not fit the lines above it: check the indentation");
    } else if (strstr(what, "sequence entries are not allowed")) {
        mx_problem(r->problems, at, NULL,
                   "a list item '- ' cannot stand here: begin it on a line of its own");
    } else {
        mx_problem(r->problems, at, NULL, "not YAML: %s", what);
    }
}

/* The next event into r->event; after a syntax error r->broken is set and the event is none. */
static void advance(reader *r) {
    yaml_event_delete(&r->event);
    if (!r->broken && !yaml_parser_parse(&r->parser, &r->event)) {
        tell_syntax(r);
        r->broken = true;
    }
    if (r->broken) {
        r->event = (yaml_event_t){ .type = YAML_NO_EVENT };
    }
}

static void stop(reader *r, mx_mark at, const char *what) {
    mx_problem(r->problems, at, NULL, "%s", what);
    r->broken = true;
}

/* Anchors and tags stand before the value: the event's mark is theirs. */
static void refuse_decoration(reader *r, const yaml_char_t *anchor, const yaml_char_t *tag) {
    mx_mark at = place(r, &r->event.start_mark, NULL);

    if (anchor) {
        at.length = (uint32_t)strlen((const char *)anchor) + 1;
        mx_problem(r->problems, at, NULL, "anchors (&%s) are not read here: write the value out",
                   (const char *)anchor);
    }
    if (tag) {
        mx_problem(r->problems, at, NULL,
                   "tags (%s) are not read here: what a value is follows from its word",
                   (const char *)tag);
    }
}

static bool says_null(const char *text) {
    return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
           strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

static mx_node *new_node(reader *r, mx_node_kind kind) {
    mx_node *node = MX_TAKE(r->arena, mx_node, 1);

    node->kind = kind;
    node->layer = r->layer;
    node->at = place(r, &r->event.start_mark, &r->event.end_mark);
    if (++r->nodes > NODES_MAX) {
        stop(r, node->at, "more than 10,000 values in one file");
    }
    return node;
}

static mx_node *read_scalar(reader *r) {
    const char *text = (const char *)r->event.data.scalar.value;
    size_t length = r->event.data.scalar.length;
    bool quoted = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    mx_node *node;

    refuse_decoration(r, r->event.data.scalar.anchor, r->event.data.scalar.tag);
    node = new_node(r, quoted || !says_null(text) ? MX_NODE_TEXT : MX_NODE_NULL);
    node->quoted = quoted;
    if (memchr(text, '\0', length)) {
        mx_problem(r->problems, node->at, NULL, "a text cannot hold the character \\0");
        length = strlen(text);
    }
    node->text = mx_arena_copy(r->arena, text, length);
    return node;
}

static mx_node *read_node(reader *r, int depth);

static mx_node *read_list(reader *r, int depth) {
    mx_node *list = new_node(r, MX_NODE_LIST), **tail = &list->child;

    refuse_decoration(r, r->event.data.sequence_start.anchor, r->event.data.sequence_start.tag);
    list->at.length = 1;
    for (advance(r); !r->broken && r->event.type != YAML_SEQUENCE_END_EVENT; advance(r)) {
        *tail = read_node(r, depth + 1);
        tail = *tail ? &(*tail)->next : tail;
    }
    return list;
}

/* The word of a map's entry, or NULL with a problem when it cannot be one. */
static mx_node *read_key(reader *r, int depth) {
    mx_node *key = read_node(r, depth + 1);

    if (!key) {
        return NULL;
    }
    if (key->kind != MX_NODE_TEXT && !(key->kind == MX_NODE_NULL && key->text[0])) {
        mx_problem(r->problems, key->at, NULL, "a word is missing before this ':'");
        return NULL;
    }
    if (strcmp(key->text, "<<") == 0 && !key->quoted) {
        mx_problem(r->problems, key->at, NULL,
                   "merge keys (<<) are not read here: write the words out");
        return NULL;
    }
    return key;
}

static mx_node *read_map(reader *r, int depth) {
    mx_node *map = new_node(r, MX_NODE_MAP), **tail = &map->child;

    refuse_decoration(r, r->event.data.mapping_start.anchor, r->event.data.mapping_start.tag);
    map->at.length = 1;
    for (advance(r); !r->broken && r->event.type != YAML_MAPPING_END_EVENT; advance(r)) {
        mx_node *key = read_key(r, depth), *value, *before;

        advance(r);
        if (r->broken) {
            break;
        }
        value = read_node(r, depth + 1);
        if (!key || !value) {
            continue;
        }
        before = mx_node_find(map, key->text);
        if (before) {
            mx_problem(r->problems, key->at, NULL, "'%s' was already given at line %u", key->text,
                       before->key_at.line);
            continue;
        }
        value->key = key->text;
        value->key_at = key->at;
        *tail = value;
        tail = &value->next;
    }
    return map;
}

/* The value the current event begins; on return its last event is the current one. NULL: nothing
 * usable. */
static mx_node *read_node(reader *r, int depth) {
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r);
    case YAML_ALIAS_EVENT:
        mx_problem(r->problems, place(r, &r->event.start_mark, &r->event.end_mark), NULL,
                   "aliases (*%s) are not read here: write the value out",
                   (const char *)r->event.data.alias.anchor);
        return NULL;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (depth >= DEPTH_MAX) {
            stop(r, place(r, &r->event.start_mark, NULL), "lists and maps are nested too deep");
            return NULL;
        }
        return r->event.type == YAML_SEQUENCE_START_EVENT ? read_list(r, depth)
                                                          : read_map(r, depth);
    default:
        return NULL; /* after a syntax error */
    }
}

static mx_node *read_document(reader *r) {
    mx_node *root = NULL;

    advance(r); /* the stream's start */
    advance(r);
    if (r->event.type == YAML_DOCUMENT_START_EVENT) {
        if (r->event.data.document_start.version_directive ||
            r->event.data.document_start.tag_directives.start !=
                r->event.data.document_start.tag_directives.end) {
            mx_problem(r->problems, place(r, &r->event.start_mark, NULL), NULL,
                       "directives (%%) are not read here");
        }
        advance(r);
        root = read_node(r, 0);
        advance(r); /* the document's end */
        advance(r);
    }
    if (!r->broken && r->event.type == YAML_DOCUMENT_START_EVENT) {
        mx_problem(r->problems, place(r, &r->event.start_mark, NULL), NULL,
                   "a second document begins here: a file holds one");
    }
    return root;
}

/* `from` blanks stand for what comes before the value, so that marks are those of the whole text.
 */
static mx_code parse(reader *r, const char *text, size_t from, const char *name, mx_node **ret,
                     mx_status *st) {
    size_t began = r->problems->count;
    char *copy;

    *ret = NULL;
    r->broken = true;
    r->file = mx_arena_copy(r->arena, name, strlen(name));
    r->size = strlen(text);
    if (from == 0 && r->size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        text += 3;
        r->size -= 3;
    }
    if (r->size > TEXT_MAX) {
        mx_problem(r->problems, (mx_mark){ .file = r->file }, NULL,
                   "larger than the 1 MiB allowed for YAML");
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = r->file }, "not read");
    }
    r->text = mx_arena_copy(r->arena, text, r->size);
    copy = mx_arena_copy(r->arena, text, r->size);
    memset(copy, ' ', from);
    if (look_through(r)) {
        index_lines(r);
        if (!yaml_parser_initialize(&r->parser)) {
            return mx_fail(st, MX_E_MEMORY, (mx_mark){ .file = r->file },
                           "no memory to read this file");
        }
        r->broken = false;
        yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&r->parser, (const unsigned char *)copy, r->size);
        *ret = read_document(r);
        yaml_event_delete(&r->event);
        yaml_parser_delete(&r->parser);
    }
    if (r->problems->count > began) {
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = r->file }, "not read");
    }
    return MX_OK;
}

mx_code mx_yaml_parse(const char *text, const char *name, int layer, mx_arena *arena,
                      mx_node **ret_root, mx_problems *problems, mx_status *st) {
    reader r = { .layer = layer, .arena = arena, .problems = problems };
    mx_code code = parse(&r, text, 0, name, ret_root, st);

    if (r.broken) {
        *ret_root = NULL;
    } else if (!*ret_root || ((*ret_root)->kind == MX_NODE_NULL && !(*ret_root)->text[0])) {
        *ret_root = MX_TAKE(arena, mx_node, 1); /* empty, or comments only */
        **ret_root = (mx_node){ .kind = MX_NODE_MAP, .layer = layer, .at = { .file = r.file } };
    } else if ((*ret_root)->kind != MX_NODE_MAP) {
        mx_problem(problems, (*ret_root)->at, NULL,
                   "a file begins with 'word: value' lines; this is %s",
                   (*ret_root)->kind == MX_NODE_LIST ? "a list" : "a single value");
        code = mx_fail(st, MX_E_RECIPE, (*ret_root)->at, "not a map");
        *ret_root = NULL;
    }
    return code;
}

mx_code mx_yaml_parse_value(const char *text, size_t from, const char *name, int layer,
                            mx_arena *arena, mx_node **ret_value, mx_problems *problems,
                            mx_status *st) {
    reader r = { .layer = layer, .arena = arena, .problems = problems };
    mx_code code;

    assert(from <= strlen(text));
    code = parse(&r, text, from, name, ret_value, st);
    if (!*ret_value) {
        *ret_value = MX_TAKE(arena, mx_node, 1);
        **ret_value = (mx_node){ .kind = MX_NODE_NULL, .layer = layer, .text = "" };
        (*ret_value)->at = (mx_mark){
            .file = r.file, .text = r.text, .line = 1, .column = (uint32_t)from + 1, .length = 1
        };
    }
    return code;
}

mx_code mx_yaml_read(const char *path, int layer, mx_arena *arena, mx_node **ret_root,
                     mx_problems *problems, mx_status *st) {
    char *text;
    size_t size;
    mx_code code;

    *ret_root = NULL;
    MX_TRY(mx_file_read(path, TEXT_MAX, &text, &size, st));
    if (strlen(text) != size) {
        mx_problem(problems, (mx_mark){ .file = mx_arena_copy(arena, path, strlen(path)) }, NULL,
                   "not a text file: it holds zero bytes");
        code = mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = path }, "not a text file");
    } else {
        code = mx_yaml_parse(text, path, layer, arena, ret_root, problems, st);
    }
    free(text);
    return code;
}

/* --- the tree --- */

mx_node *mx_node_find(const mx_node *map, const char *key) {
    if (!map || map->kind != MX_NODE_MAP) {
        return NULL;
    }
    for (mx_node *n = map->child; n; n = n->next) {
        if (strcmp(n->key, key) == 0) {
            return n;
        }
    }
    return NULL;
}

mx_node *mx_node_append(mx_arena *arena, mx_node *to) {
    mx_node **tail = &to->child;

    while (*tail) {
        tail = &(*tail)->next;
    }
    return *tail = MX_TAKE(arena, mx_node, 1);
}

/* A copy of the node itself; children are shared, they are never changed. */
static mx_node *copy_node(mx_arena *arena, const mx_node *node) {
    mx_node *copy = MX_TAKE(arena, mx_node, 1);

    *copy = *node;
    copy->next = NULL;
    return copy;
}

mx_node *mx_node_merge(mx_arena *arena, const mx_node *under, const mx_node *over) {
    mx_node *merged, **tail;

    if (!under || !over || under->kind != MX_NODE_MAP || over->kind != MX_NODE_MAP) {
        return over || under ? copy_node(arena, over ? over : under) : NULL;
    }
    merged = copy_node(arena, over);
    merged->child = NULL;
    tail = &merged->child;
    for (const mx_node *n = under->child; n; n = n->next) {
        const mx_node *later = mx_node_find(over, n->key);

        *tail = later ? mx_node_merge(arena, n, later) : copy_node(arena, n);
        tail = &(*tail)->next;
    }
    for (const mx_node *n = over->child; n; n = n->next) {
        if (!mx_node_find(under, n->key)) {
            *tail = copy_node(arena, n);
            tail = &(*tail)->next;
        }
    }
    return merged;
}
