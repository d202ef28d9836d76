/* json.c - strict JSON with the place of what is wrong. */
#include "base/json.h"

#include <criterion/criterion.h>
#include <string.h>

Test(json, refuses_with_line_and_column) {
    static const struct {
        const char *text;
        uint32_t line, column;
        const char *words;
    } wrong[] = {
        { "{\"a\": 1,\n \"b\": tru}", 8, 7, "not JSON: invalid token near 'tru'" },
        { "{\"\xc3\xa9\": 1, \"\xc3\xa9\": 2}", 7, 11, "not JSON: duplicate object key near '\"\xc3\xa9\"'" },
        { "{\"a\": 1} x", 7, 10, "not JSON: end of file expected near 'x'" },
        { "", 7, 1, "not JSON: '[' or '{' expected near end of file" },
        { "[1, ]", 7, 5, "not JSON: unexpected token near ']'" },
        { "[1e999]", 7, 2, "not JSON: real number overflow near '1e999'" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mx_status st = { 0 };
        json_t *root;

        cr_assert_eq(mx_json_parse(wrong[i].text, strlen(wrong[i].text), "x.jsonl", 7, &root, &st), MX_E_DATA);
        cr_assert_str_eq(st.text, wrong[i].words, "case %zu: %s", i, st.text);
        cr_assert(st.at.line == wrong[i].line && st.at.column == wrong[i].column, "case %zu: at %u:%u: %s", i, st.at.line,
                  st.at.column, st.text);
        cr_assert_null(root);
    }
}

Test(json, reads_what_is_right) {
    mx_status st = { 0 };
    json_t *root;

    cr_assert_eq(mx_json_parse("{\"a\": [1, \"x\"]}", 15, "x", 1, &root, &st), MX_OK);
    cr_assert_str_eq(json_string_value(json_array_get(json_object_get(root, "a"), 1)), "x");
    json_decref(root);
    cr_assert_eq(mx_json_read("/nowhere/at/all.json", 100, &root, &st), MX_E_IO);
}
