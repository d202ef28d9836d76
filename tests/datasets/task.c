/* Task YAMLs: those shipped read, what is wrong is told with its place, the hash knows what matters. */
#include "tests/datasets/material.h"

#include <stdio.h>

Test(task, every_task_that_is_shipped_reads_and_can_be_asked_under_its_protocols)
{
    mx_status st = { 0 };
    mx_texts names;

    cr_assert_eq(mx_task_names(arena(), &names, &st), MX_OK, "%s", st.text);
    cr_assert_geq(names.count, 7);
    for (size_t i = 0; i < names.count; i++) {
        const mx_task *t = read_task(names.item[i]);

        cr_expect_str_eq(t->name, names.item[i]);
        cr_expect_not_null(mx_task_split_of(t, MX_SPLIT_TRAIN), "%s", t->name);
        cr_expect_not_null(mx_task_split_of(t, MX_SPLIT_VALIDATION), "%s", t->name);
        cr_expect_not_null(mx_task_prompt_of(t, MX_PROMPT_REFERENCE), "%s", t->name);
        cr_expect_not_null(mx_task_prompt_of(t, MX_PROMPT_LOGLIKELIHOOD), "%s", t->name);
        cr_expect(t->prompts.reference.shared && t->prompts.loglikelihood.shared, "%s", t->name);
        cr_expect_eq(t->protocols, 3u, "%s", t->name);
    }
}

/* A whole task, with one line to be replaced by `wrong` (NULL: none). */
static const char *const LINES[] = {
    "name: made",
    "files: [{name: a.jsonl}, {name: a.lst, urls: [\"https://x.org/a\"], sha256: not known}]",
    "splits: {train: {file: a.jsonl}}",
    "id: id",
    "fields: [goal, {name: both, text: \"{goal} and {other.way}\"}]",
    "choices: {texts: [\"{goal}\", \"{both}\"], labels: [A, B]}",
    "answer: {at: right}",
    "prompts:",
    "  reference: {context: \"{both}{choices}\", choice: \" {label}\", candidates: [A, B]}",
    "  loglikelihood: {context: \"{goal}\"}",
    "protocols: [label_logits, loglikelihood]",
};
enum { LINE_COUNT = sizeof LINES / sizeof *LINES };

static const char *made(const char *folder, int line, const char *wrong)
{
    mx_text yaml;
    const char *path;

    mx_text_init(&yaml, 1 << 16);
    for (int i = 0; i < LINE_COUNT; i++) {
        mx_text_print(&yaml, "%s\n", i + 1 == line ? wrong : LINES[i]);
    }
    path = write_text(folder, "made.yaml", yaml.data);
    mx_text_finish(&yaml);
    return path;
}

Test(task, what_is_wrong_in_a_yaml_is_told_with_line_column_and_words)
{
    static const struct {
        int line;
        const char *wrong;
        uint32_t column;
        const char *says;
    } refusals[] = {
        { 1, "nmae: made", 1, "nmae" },
        { 1, "name: a/b", 7, "'a/b' cannot name a folder" },
        { 2, "files: [{name: a.jsonl}, {name: a.jsonl}]", 33, "file 'a.jsonl' was already listed" },
        { 2, "files: [{name: a.jsonl, sha256: 12ab}]", 33, "sha256 must be 64 lower-case hex digits" },
        { 2, "files: [{name: a.jsonl, urls: [\"ftp://x.org/a\"]}]", 32, "'ftp://x.org/a' is not an http or https URL" },
        { 2, "files: [{name: ../a.jsonl}]", 16, "'../a.jsonl' is not a plain file name" },
        { 3, "splits: {train: {file: b.jsonl}}", 24, "'b.jsonl' is not among the task's files" },
        { 3, "splits: {train: {file: a.jsonl, labels: b.lst}}", 41, "'b.lst' is not among the task's files" },
        { 3, "splits: {train: {questions: 3}}", 17, "split 'train' needs a 'file'" },
        { 3, "splits: {}", 9, "a task needs a split" },
        { 3, "splits: {dev: {file: a.jsonl}}", 10, "dev" },
        { 5, "fields: [goal, goal, {name: both, text: \"x\"}]", 16, "the name 'goal' is already taken" },
        { 5, "fields: [goal, {name: label, text: \"x\"}, {name: both, text: \"x\"}]", 23, "the name 'label' is already taken" },
        { 5, "fields: [goal, {name: both, text: \"{goal\"}]", 35, "'{' must open a {name}" },
        { 5, "fields: [goal, {name: both, text: \"goal}\"}]", 35, "'}' without its '{'" },
        { 5, "fields: [goal, {name: both, edit: [shout]}]", 36, "shout" },
        { 6, "choices: {texts: [\"{goal}\", \"{bth}\"], labels: [A, B]}", 29, "there is no field '{bth}' here" },
        { 6, "choices: {texts: [\"{goal}\"], labels: [A, B]}", 38, "1 texts, but 2 labels" },
        { 6, "choices: {from: a, texts: [\"x\", \"y\"], labels: [A, B]}", 10, "choices need either 'from'" },
        { 6, "choices: {from: a, label: l, labels: [A, B]}", 10, "choices need either 'label'" },
        { 6, "choices: {texts: [\"{goal}\", \"{both}\"], labels: [A, F]}", 52, "label 'F' is not among" },
        { 7, "answer: {at: right, keys: [\"0\"]}", 27, "1 keys, but choices have 2 labels" },
        { 7, "answer: {}", 17, "split 'train' has no labels file" },
        { 9, "  reference: {context: \"{both}{choices}\", candidates: [A, B]}", 14, "the context has {choices}" },
        { 9, "  reference: {context: \"{both}\", choice: x, candidates: [A, B]}", 14, "'choice' is for {choices}" },
        { 9, "  reference: {context: \"{both}\", candidates: [A]}", 46, "needs two candidates or more" },
        { 9, "  reference: {choice: x, candidates: [A, B]}", 14, "a prompt needs a 'context'" },
        { 10, "  loglikelihood: {context: \"{gaol}\"}", 28, "there is no field '{gaol}' here" },
        { 10, "  loglikelihood: {context: \"{goal}\", continuation: \"{choices}\"}", 18, "{choices} can stand in the context only" },
        { 11, "protocols: []", 12, "a task needs a protocol" },
        { 11, "protocols: [perplexity]", 13, "perplexity" },
    };
    const char *folder = enter_folder();

    read_task(made(folder, 0, NULL));
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const char *path = made(folder, refusals[i].line, refusals[i].wrong);
        mx_problems problems;
        mx_status st = { 0 };
        mx_task *t;
        const mx_status *found = NULL;

        mx_problems_init(&problems);
        cr_expect_eq(mx_task_read(path, MX_NOWHERE, arena(), &t, &problems, &st), MX_E_RECIPE, "%s", refusals[i].wrong);
        for (size_t k = 0; k < problems.kept && !found; k++) {
            found = strstr(problems.item[k].text, refusals[i].says) ? &problems.item[k] : NULL;
        }
        cr_expect(found, "%s\n  is not told of: %s\n  but: %s", refusals[i].wrong, refusals[i].says,
                  problems.kept ? problems.item[0].text : "nothing");
        if (found) {
            uint32_t line = strstr(refusals[i].says, "has no labels file") ? 3 : (uint32_t)refusals[i].line;

            cr_expect_str_eq(found->at.file, path);
            cr_expect_eq(found->at.line, line, "%s: line %u", refusals[i].wrong, found->at.line);
            cr_expect_eq(found->at.column, refusals[i].column, "%s: column %u", refusals[i].wrong, found->at.column);
        }
        mx_problems_finish(&problems);
    }
    leave_folder(folder);
}

Test(task, all_problems_of_a_yaml_come_in_one_pass)
{
    const char *folder = enter_folder();
    const char *path = write_text(folder, "x.yaml", "name: x\nfiles: [{name: a}]\nsplits: {train: {file: b}}\n"
                                                    "choices: {texts: [\"{q}\", y], labels: [A]}\nanswer: {at: k}\n"
                                                    "prompts: {loglikelihood: {context: \"{z}\"}}\n");
    mx_problems problems;
    mx_status st = { 0 };
    mx_task *t;

    mx_problems_init(&problems);
    cr_assert_eq(mx_task_read(path, MX_NOWHERE, arena(), &t, &problems, &st), MX_E_RECIPE);
    /* b, {q}, 2 texts 1 label, {z}, label_logits without reference */
    cr_expect_eq(problems.count, 5u, "%zu problems", problems.count);
    mx_problems_finish(&problems);
    leave_folder(folder);
}

Test(task, an_unknown_name_points_into_the_recipe_and_suggests_the_near_one)
{
    const mx_mark at = { .file = "r.yaml", .line = 7, .column = 13 };
    mx_problems problems;
    mx_status st = { 0 };
    mx_task *t;

    mx_problems_init(&problems);
    cr_assert_eq(mx_task_read("arc_esy", at, arena(), &t, &problems, &st), MX_E_RECIPE);
    cr_assert_eq(problems.count, 1u);
    cr_expect_eq(problems.item[0].at.line, 7u);
    cr_expect_str_eq(problems.item[0].hint, "did you mean 'arc_easy'?");
    cr_expect(strstr(problems.item[0].text, "task 'arc_esy' is none of: arc_challenge, arc_easy, openbookqa, piqa"), "%s",
              problems.item[0].text);
    mx_problems_finish(&problems);
}

Test(task, the_hash_follows_what_may_change_a_question_and_nothing_else)
{
    static const struct {
        int line;
        const char *other;
        bool differs;
    } cases[] = {
        { 2, "files: [{name: a.jsonl, urls: [\"https://y.org/a\"]}, {name: b}]", false },
        { 3, "splits: {train: {file: a.jsonl, questions: 10}, test: {file: a.jsonl}}", false },
        { 11, "protocols: [loglikelihood]", false },
        { 10, "  loglikelihood: {context: \"{goal}\", continuation: \" {text}\"}", false }, /* the default, spelled out */
        { 10, "  loglikelihood: {context: \"{goal} \"}", true },
        { 9, "  reference: {context: \"{both}{choices}\", choice: \" {label}\", candidates: [B, A]}", true },
        { 6, "choices: {texts: [\"{goal}\", \"{both}\"], labels: [A, B], edit: [strip]}", true },
        { 5, "fields: [goal, {name: both, text: \"{goal} or {other.way}\"}]", true },
        { 4, "id: name", true },
    };
    const char *folder = enter_folder();
    const mx_task *first = read_task(made(folder, 0, NULL));

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mx_task *t = read_task(made(folder, cases[i].line, cases[i].other));

        cr_expect_eq(strcmp(t->sha256, first->sha256) != 0, cases[i].differs, "%s", cases[i].other);
    }
    leave_folder(folder);
}

Test(task, edits_do_what_their_names_say)
{
    static const struct {
        uint64_t edits;
        const char *text, *becomes;
    } cases[] = {
        { 1 << MX_EDIT_BEFORE_BLANK, "a _ b _ c", "a " },
        { 1 << MX_EDIT_AFTER_BLANK, "a _ b _ c", " b _ c" },
        { 1 << MX_EDIT_AFTER_BLANK | 1 << MX_EDIT_STRIP, "a _ b \t", "b" },
        { 1 << MX_EDIT_CAPITALIZE, "the MAN from \xc3\x89ire", "The man from \xc3\xa9ire" },
        { 1 << MX_EDIT_CAPITALIZE, "\xc3\xa9ire", "\xc3\x89ire" },
        { 1 << MX_EDIT_CAPITALIZE, "", "" },
        { 1 << MX_EDIT_STRIP, "\xc2\xa0 \xe3\x80\x80x y\n", "x y" },
        { 1 << MX_EDIT_STRIP, " \t ", "" },
        { 1 << MX_EDIT_WIKIHOW_MARKS, "How to [title] Do it. [step] Now  go [x", "How to. Do it. Now go [x" },
        { 1 << MX_EDIT_WIKIHOW_MARKS, "a[]b[c]d    e", "abd  e" },
        { 0, " as it is ", " as it is " },
    };
    const char *out;
    mx_status st = { 0 };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(mx_edit_apply(cases[i].edits, cases[i].text, arena(), &out, &st), MX_OK);
        cr_expect_str_eq(out, cases[i].becomes, "'%s' became '%s'", cases[i].text, out);
    }
    cr_expect_eq(mx_edit_apply(1 << MX_EDIT_BEFORE_BLANK, "no blank", arena(), &out, &st), MX_E_DATA);
}

Test(task, braces_are_written_double)
{
    const char *const names[] = { "a", "b" }, *const values[] = { "1", "{b}" };
    mx_problems problems;
    mx_prompt_text p;
    mx_text out;

    mx_problems_init(&problems);
    mx_prompt_compile("{{{a}}} {b}{{b}}", MX_NOWHERE, names, 2, arena(), &p, &problems);
    cr_assert_eq(problems.count, 0u);
    mx_text_init(&out, 1000);
    mx_prompt_fill(&p, values, &out);
    cr_expect_str_eq(out.data, "{1} {b}{b}"); /* values are never read again */
    mx_text_finish(&out);
    mx_problems_finish(&problems);
}
