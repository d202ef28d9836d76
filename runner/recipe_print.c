/* recipe_print.c - the recipe as text: resolved, explained, hashed. */
#include "runner/recipe.h"

#include "runner/recipe_layers.h"

void mx_recipe_print(const mx_recipe *r, mx_text *out) {
    for (const mx_fallen *f = r->fallen; f; f = f->next) {
        mx_text_print(out, "# %s.%s of %s:%u fell away: it does not go with %s\n", f->table->name,
                      f->word->key, f->word->key_at.file, f->word->key_at.line, f->because);
    }
    mx_option_print(&mx_recipe_table, r, 0, out);
}

void mx_recipe_schema(mx_text *out) {
    mx_text_print(
        out,
        "extends: text; default none\n"
        "    another recipe, by its place beside this one; maps merge, lists and values replace\n");
    mx_option_schema(&mx_recipe_table, 0, out);
}

void mx_recipe_results(const mx_recipe *r, mx_text *out) {
    mx_option_results(&mx_recipe_table, r, "", out);
}

void mx_recipe_hash(const mx_recipe *r, char ret_hex[MX_SHA256_TEXT]) {
    mx_text lines;

    mx_text_init(&lines, 16 * 1024 * 1024);
    mx_text_print(&lines, "result version %d\n", MX_RESULT_VERSION);
    mx_recipe_results(r, &lines);
    mx_sha256(lines.data, lines.length, ret_hex);
    mx_text_finish(&lines);
}
