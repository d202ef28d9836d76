/* yaml.c - any bytes as YAML: a tree whose every place lies in the text, or problems that do. */
#include "base/yaml.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

/* A place in the text: within its line, or just past its end. */
static void check_place(const char *text, const mx_mark *at) {
    uint32_t line = 1;

    if (at->line == 0) {
        return;
    }
    for (; line < at->line && strchr(text, '\n'); line++) {
        text = strchr(text, '\n') + 1;
    }
    check(line == at->line);
    check(at->column >= 1 && at->column - 1 <= strcspn(text, "\n"));
}

static void check_node(const char *text, const mx_node *node, int depth) {
    check(depth < 100);
    check_place(text, &node->at);
    check(node->kind != MX_NODE_TEXT || node->text);
    for (const mx_node *n = node->child; n; n = n->next) {
        if (node->kind == MX_NODE_MAP) {
            check(n->key != NULL && mx_node_find(node, n->key) == n);
            check_place(text, &n->key_at);
        }
        check_node(text, n, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    const char *seen;
    mx_arena arena;
    mx_problems problems;
    mx_node *root;
    FILE *null = fopen("/dev/null", "w");
    mx_code code;

    check(text && null);
    memcpy(text, data, size);
    text[size] = '\0';
    mx_arena_init(&arena, (size_t)64 << 20);
    mx_problems_init(&problems);
    code = mx_yaml_parse(text, "x.yaml", 1, &arena, &root, &problems, NULL);
    check((code == MX_OK) == (problems.count == 0));
    seen = strncmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text; /* places count behind a byte order mark */
    if (root) {
        check_node(seen, root, 0);
        check(mx_node_merge(&arena, root, root) != NULL);
    }
    for (size_t i = 0; i < problems.kept; i++) {
        check_place(seen, &problems.item[i].at);
    }
    mx_problems_print(&problems, null);
    mx_problems_finish(&problems);
    mx_arena_finish(&arena);
    fclose(null);
    free(text);
    return 0;
}
