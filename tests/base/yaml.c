/* yaml.c - the tree and its places; every trap of YAML refused where it stands. */
#include "base/yaml.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    mx_arena arena;
    mx_problems problems;
    mx_node *root;
    mx_code code;
} fixture;

static void parse(fixture *f, const char *text) {
    mx_arena_init(&f->arena, 16 << 20);
    mx_problems_init(&f->problems);
    f->code = mx_yaml_parse(text, "x.yaml", 3, &f->arena, &f->root, &f->problems, NULL);
}

static void finish(fixture *f) {
    mx_problems_finish(&f->problems);
    mx_arena_finish(&f->arena);
}

static void expect_place(const mx_mark *at, uint32_t line, uint32_t column, uint32_t length) {
    cr_assert(at->line == line && at->column == column && at->length == length, "at %u:%u+%u, expected %u:%u+%u",
              at->line, at->column, at->length, line, column, length);
}

Test(yaml, remembers_where_each_word_and_value_stood) {
    fixture f;
    const mx_node *n;

    parse(&f, "name: quick\nadapter:\n  lora_r: 16   # sixteen\n  \xc3\xa9t\xc3\xa9: 'no'\nlist: [a, \"b c\"]\nempty:\n");
    cr_assert_eq(f.code, MX_OK);
    n = mx_node_find(f.root, "name");
    cr_assert_str_eq(n->text, "quick");
    cr_assert_eq(n->layer, 3);
    expect_place(&n->key_at, 1, 1, 4);
    expect_place(&n->at, 1, 7, 5);
    n = mx_node_find(mx_node_find(f.root, "adapter"), "lora_r");
    expect_place(&n->at, 3, 11, 2);
    n = mx_node_find(mx_node_find(f.root, "adapter"), "\xc3\xa9t\xc3\xa9");
    cr_assert(n->quoted);
    expect_place(&n->key_at, 4, 3, 5); /* columns and lengths are bytes */
    expect_place(&n->at, 4, 10, 4);
    n = mx_node_find(f.root, "list");
    cr_assert_eq(n->kind, MX_NODE_LIST);
    cr_assert_str_eq(n->child->next->text, "b c");
    expect_place(&n->child->next->at, 5, 11, 5);
    n = mx_node_find(f.root, "empty");
    cr_assert_eq(n->kind, MX_NODE_NULL);
    cr_assert_str_eq(n->text, "");
    finish(&f);
}

Test(yaml, leaves_the_meaning_of_a_plain_text_to_its_reader) {
    fixture f;

    parse(&f, "\xef\xbb\xbf---\na: 1e-4\r\nb: no\r\nc: ~\nd: null\ne: \"null\"\nf: 010\n");
    cr_assert_eq(f.code, MX_OK);
    cr_assert_str_eq(mx_node_find(f.root, "a")->text, "1e-4");
    cr_assert_str_eq(mx_node_find(f.root, "b")->text, "no");
    cr_assert_eq(mx_node_find(f.root, "c")->kind, MX_NODE_NULL);
    cr_assert_eq(mx_node_find(f.root, "d")->kind, MX_NODE_NULL);
    cr_assert_eq(mx_node_find(f.root, "e")->kind, MX_NODE_TEXT);
    cr_assert_str_eq(mx_node_find(f.root, "f")->text, "010");
    finish(&f);
}

Test(yaml, takes_an_empty_file_as_an_empty_map) {
    static const char *const text[] = { "", "\n\n", "# only a comment\n", "---\n" };

    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        fixture f;

        parse(&f, text[i]);
        cr_assert(f.code == MX_OK && f.root->kind == MX_NODE_MAP && !f.root->child, "text %zu", i);
        finish(&f);
    }
}

Test(yaml, refuses_each_trap_where_it_stands) {
    static const struct {
        const char *text;
        uint32_t line, column;
        const char *words;
    } trap[] = {
        { "a: 1\nb: 2\na: 3\n", 3, 1, "'a' was already given at line 1" },
        { "x:\n  a: 1\n  a: 2\n", 3, 3, "'a' was already given at line 2" },
        { "a: &name 1\n", 1, 4, "anchors (&name) are not read here: write the value out" },
        { "a: *name\n", 1, 4, "aliases (*name) are not read here: write the value out" },
        { "<<: {a: 1}\n", 1, 1, "merge keys (<<) are not read here: write the words out" },
        { "a: !!str 1\n", 1, 4, "tags (tag:yaml.org,2002:str) are not read here: what a value is follows from its word" },
        { "a: !mine {b: 1}\n", 1, 4, "tags (!mine) are not read here: what a value is follows from its word" },
        { "a: 1\n---\nb: 2\n", 2, 1, "a second document begins here: a file holds one" },
        { "%YAML 1.1\n---\na: 1\n", 1, 1, "directives (%) are not read here" },
        { "a:\n\tb: 1\n", 2, 1, "a tab: YAML is indented with spaces" },
        { "a:\n  b: 1\n\tc: 2\n", 3, 1, "a tab: YAML is indented with spaces" },
        { "? [a, b]\n: 1\n", 1, 3, "a word is missing before this ':'" },
        { "{a: 1}: 2\n", 1, 1, "a word is missing before this ':'" },
        { ": 2\n", 1, 1, "a word is missing before this ':'" },
        { "- a\n- b\n", 1, 1, "a file begins with 'word: value' lines; this is a list" },
        { "only words\n", 1, 1, "a file begins with 'word: value' lines; this is a single value" },
        { "a: 1\nb 2\nc: 3\n", 2, 1, "a ':' is missing: this is neither 'word: value' nor '- item'" },
        { "a: b: c\n", 1, 5, "a ':' with a blank after it cannot stand here: quote the text, or check the indentation" },
        { "a: [1, 2\nb: 3\n", 2, 2, "a ',' or ']' is missing (the '[' is at line 1)" },
        { "a: {b: 1\nc: 3\n", 2, 2, "a ',' or '}' is missing (the '{' is at line 1)" },
        { "a: \"open\nb: 1\n", 1, 4, "this quoted text never ends" },
        { "a: @b\n", 1, 4, "a value cannot begin with '@': put it in quotes" },
        { "a:\n    b: 1\n  c: 2\n", 3, 3, "this does not fit the lines above it: check the indentation" },
        { "a: - b\n", 1, 4, "a list item '- ' cannot stand here: begin it on a line of its own" },
        { "a: 1\nb: \xff\n", 2, 4, "byte 0xff is not UTF-8: save the file as UTF-8" },
        { "a: \xed\xa0\x80\n", 1, 4, "byte 0xed is not UTF-8: save the file as UTF-8" },
        { "a: x\x01y\n", 1, 5, "a character that cannot be seen (U+0001)" },
        { "a: x\ry\n", 1, 5, "a line break that is not a newline (U+000D)" },
        { "a: x\xe2\x80\xa8y\n", 1, 5, "a line break that is not a newline (U+2028)" },
        { "a: \"x\\0y\"\n", 1, 4, "a text cannot hold the character \\0" },
    };

    for (size_t i = 0; i < sizeof trap / sizeof trap[0]; i++) {
        fixture f;
        const mx_status *p;

        parse(&f, trap[i].text);
        cr_assert_eq(f.code, MX_E_RECIPE, "case %zu is let through", i);
        cr_assert_geq(f.problems.kept, 1);
        p = &f.problems.item[0];
        cr_assert(p->at.line == trap[i].line && p->at.column == trap[i].column, "case %zu: at %u:%u, expected %u:%u: %s", i,
                  p->at.line, p->at.column, trap[i].line, trap[i].column, p->text);
        cr_assert_str_eq(p->text, trap[i].words, "case %zu", i);
        cr_assert_eq(f.problems.count, 1, "case %zu has %zu problems", i, f.problems.count);
        finish(&f);
    }
}

Test(yaml, tells_all_problems_of_a_file_in_one_pass) {
    fixture f;

    parse(&f, "a: &x 1\nb: *x\na: 2\nc: !!int 3\n");
    cr_assert_eq(f.problems.count, 4);
    finish(&f);
}

Test(yaml, holds_its_ceilings) {
    fixture f;
    char *text = malloc(2 << 20);
    size_t length = 0;

    for (int i = 0; i < 3000; i++) { /* deep */
        text[length++] = i == 0 ? 'a' : '[';
        if (i == 0) {
            text[length++] = ':';
            text[length++] = ' ';
        }
    }
    text[length] = '\0';
    parse(&f, text);
    cr_assert_eq(f.problems.count, 1);
    cr_assert_str_eq(f.problems.item[0].text, "lists and maps are nested too deep");
    finish(&f);

    length = (size_t)sprintf(text, "a: [");
    for (int i = 0; i < 20000; i++) { /* many */
        text[length++] = 'x';
        text[length++] = ',';
    }
    text[length] = '\0';
    parse(&f, text);
    cr_assert_eq(f.problems.count, 1);
    cr_assert_str_eq(f.problems.item[0].text, "more than 10,000 values in one file");
    finish(&f);

    memset(text, 'x', (1 << 20) + 1); /* large */
    text[(1 << 20) + 1] = '\0';
    parse(&f, text);
    cr_assert_eq(f.problems.count, 1);
    cr_assert_str_eq(f.problems.item[0].text, "larger than the 1 MiB allowed for YAML");
    finish(&f);
    free(text);
}

Test(yaml, reads_an_arguments_value_with_places_in_the_argument) {
    static const char argument[] = "train.tasks=[arc_easy, \"b c\"]";
    fixture f;
    mx_node *value;

    parse(&f, "");
    cr_assert_eq(mx_yaml_parse_value(argument, 12, "argument 2", 7, &f.arena, &value, &f.problems, NULL), MX_OK);
    cr_assert_eq(value->kind, MX_NODE_LIST);
    cr_assert_eq(value->layer, 7);
    expect_place(&value->at, 1, 13, 1);
    expect_place(&value->child->next->at, 1, 24, 5);
    cr_assert_str_eq(value->at.file, "argument 2");
    cr_assert_str_eq(value->at.text, argument);
    cr_assert_eq(mx_yaml_parse_value("a.b=", 4, "argument 2", 7, &f.arena, &value, &f.problems, NULL), MX_OK);
    cr_assert_eq(value->kind, MX_NODE_NULL);
    cr_assert_str_eq(value->text, "");
    cr_assert_eq(mx_yaml_parse_value("a.b=[1", 4, "argument 2", 7, &f.arena, &value, &f.problems, NULL), MX_E_RECIPE);
    cr_assert_eq(f.problems.count, 1);
    finish(&f);
}

Test(yaml, merges_maps_and_replaces_the_rest) {
    fixture f;
    mx_node *under, *over, *merged;

    parse(&f, "");
    cr_assert_eq(mx_yaml_parse("a: 1\nb: {x: 1, y: [1, 2]}\nc: {z: 1}\n", "u", 0, &f.arena, &under, &f.problems, NULL), MX_OK);
    cr_assert_eq(mx_yaml_parse("b: {y: [3], w: 4}\nc: 5\nd: 6\n", "o", 1, &f.arena, &over, &f.problems, NULL), MX_OK);
    merged = mx_node_merge(&f.arena, under, over);
    cr_assert_str_eq(mx_node_find(merged, "a")->text, "1");
    cr_assert_eq(mx_node_find(merged, "a")->layer, 0);
    cr_assert_str_eq(mx_node_find(mx_node_find(merged, "b"), "x")->text, "1");
    cr_assert_str_eq(mx_node_find(mx_node_find(merged, "b"), "y")->child->text, "3");
    cr_assert_null(mx_node_find(mx_node_find(merged, "b"), "y")->child->next);
    cr_assert_str_eq(mx_node_find(mx_node_find(merged, "b"), "w")->text, "4");
    cr_assert_eq(mx_node_find(merged, "c")->kind, MX_NODE_TEXT);
    cr_assert_str_eq(mx_node_find(merged, "d")->text, "6");
    cr_assert_eq(mx_node_find(under, "c")->kind, MX_NODE_MAP); /* neither side is changed */
    cr_assert_null(mx_node_find(over, "a"));
    finish(&f);
}
