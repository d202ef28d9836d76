/* recipe.c - any bytes as a recipe: refused with a problem, or printed so that it reads back to the same run. */
#include "runner/recipe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

static void check_print(const mx_recipe *r, mx_arena *arena) {
    char hash[MX_SHA256_TEXT], hash_again[MX_SHA256_TEXT];
    mx_problems problems;
    mx_recipe *again;
    mx_text once, twice;

    mx_problems_init(&problems);
    mx_text_init(&once, (size_t)64 << 20);
    mx_text_init(&twice, (size_t)64 << 20);
    mx_recipe_print(r, &once);
    check(mx_recipe_parse(once.data, "again", arena, &again, &problems, NULL) == MX_OK);
    mx_recipe_print(again, &twice);
    check(strcmp(once.data, twice.data) == 0);
    mx_recipe_hash(r, hash);
    mx_recipe_hash(again, hash_again);
    check(strcmp(hash, hash_again) == 0);
    mx_text_finish(&once);
    mx_text_finish(&twice);
    mx_problems_finish(&problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    mx_arena arena;
    mx_problems problems;
    mx_recipe *recipe;
    mx_code code;

    check(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    mx_arena_init(&arena, (size_t)256 << 20);
    mx_problems_init(&problems);
    code = mx_recipe_parse(text, "x.yaml", &arena, &recipe, &problems, NULL);
    check((code == MX_OK) == (problems.count == 0));
    if (!code) {
        check_print(recipe, &arena);
    }
    mx_problems_finish(&problems);
    mx_arena_finish(&arena);
    free(text);
    return 0;
}
