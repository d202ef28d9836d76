/* The committed sample questions: enough of them, well formed, distinct, their answer keys balanced.
 *
 * Whether a question is sensible a person must judge; what can be counted is counted here. The files are
 * read with base alone, so that this test does not lean on the reader it provides material for. */
#include "base/file.h"
#include "base/json.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHOICES_MAX = 5,
    QUESTIONS_MAX = 1000,
    WORDS_MAX = 128,
    STEM_BYTES_MAX = 200,
    CHOICE_BYTES_MAX = 120,
    PAIR_BYTES_MAX = STEM_BYTES_MAX + CHOICE_BYTES_MAX + 2,
    FILE_BYTES_MAX = 1 << 20,
};

typedef enum form { ARC, OPENBOOKQA, PIQA } form;
typedef struct source {
    form form;
    const char *file, *labels; /* under datasets/sample; labels only where they stand in a side file */
    size_t at_least;
} source;
static const source sets[] = {
    { ARC, "sample_arc/ARC-Sample-Train.jsonl", NULL, 100 },
    { ARC, "sample_arc/ARC-Sample-Dev.jsonl", NULL, 50 },
    { OPENBOOKQA, "sample_obqa/train.jsonl", NULL, 100 },
    { OPENBOOKQA, "sample_obqa/dev.jsonl", NULL, 50 },
    { PIQA, "sample_piqa/train.jsonl", "sample_piqa/train-labels.lst", 100 },
    { PIQA, "sample_piqa/valid.jsonl", "sample_piqa/valid-labels.lst", 50 },
};
enum { SETS = sizeof sets / sizeof sets[0] };

typedef struct question {
    json_t *record; /* owns the texts */
    const char *id; /* NULL in PIQA's form */
    const char *stem, *choice[CHOICES_MAX];
    size_t choices, right;
    form form;
    const char *file;
    size_t line;
} question;

typedef struct questions {
    question item[QUESTIONS_MAX];
    size_t count;
} questions;

#define EXPECT(q, condition, fmt, ...)                                                             \
    cr_expect(condition, "%s:%zu: " fmt, (q)->file, (q)->line, ##__VA_ARGS__)
#define ASSERT(q, condition, fmt, ...)                                                             \
    cr_assert(condition, "%s:%zu: " fmt, (q)->file, (q)->line, ##__VA_ARGS__)

/* ---- reading */

static char *read_lines(const char *name)
{
    mx_arena arena;
    mx_status st = { 0 };
    char *content = NULL;
    size_t size = 0;
    mx_arena_init(&arena, 1 << 16);
    const char *path = mx_arena_text(&arena, "%s/datasets/sample/%s", mx_path_home(&arena), name);
    cr_assert_eq(mx_file_read(path, FILE_BYTES_MAX, &content, &size, &st), MX_OK, "%s: %s", path, st.text);
    cr_assert(size > 0 && content[size - 1] == '\n', "%s does not end with a line break", path);
    cr_assert_eq(strlen(content), size, "%s holds a zero byte", path);
    mx_arena_finish(&arena);
    return content;
}

static const char *text_of(const question *q, const json_t *map, const char *key)
{
    const char *text = json_string_value(json_object_get(map, key));
    ASSERT(q, text, "no text '%s'", key);
    return text;
}

/* {"id", "question": {"stem", "choices": [{"text", "label"}]}, "answerKey"}: ARC and OpenBookQA. */
static void read_exam(question *q)
{
    const json_t *body = json_object_get(q->record, "question");
    const json_t *list = json_object_get(body, "choices");
    const char *key = text_of(q, q->record, "answerKey");
    q->id = text_of(q, q->record, "id");
    q->stem = text_of(q, body, "stem");
    q->choices = json_array_size(list);
    q->right = CHOICES_MAX;
    ASSERT(q, q->choices >= 3 && q->choices <= CHOICES_MAX, "%zu choices", q->choices);
    const char *labels = strcmp(text_of(q, json_array_get(list, 0), "label"), "1") == 0 ? "12345" : "ABCDE";
    for (size_t i = 0; i < q->choices; i++) {
        const json_t *choice = json_array_get(list, i);
        const char *label = text_of(q, choice, "label");
        EXPECT(q, label[0] == labels[i] && !label[1], "label '%s' where '%c' belongs", label, labels[i]);
        q->choice[i] = text_of(q, choice, "text");
        if (strcmp(label, key) == 0) {
            q->right = i;
        }
    }
    ASSERT(q, q->right < q->choices, "no choice is labelled '%s'", key);
}

/* {"goal", "sol1", "sol2"}, and a line 0 or 1 in the side file. */
static void read_piqa(question *q, const char **label)
{
    ASSERT(q, (**label == '0' || **label == '1') && (*label)[1] == '\n', "its label is not 0 or 1");
    q->stem = text_of(q, q->record, "goal");
    q->choice[0] = text_of(q, q->record, "sol1");
    q->choice[1] = text_of(q, q->record, "sol2");
    q->choices = 2;
    q->right = **label == '1';
    *label += 2;
}

static void add_set(const source *s, questions *all)
{
    char *content = read_lines(s->file);
    char *labels = s->labels ? read_lines(s->labels) : NULL;
    const char *label = labels;
    size_t line = 1;
    for (const char *at = content, *end; *at; at = end + 1, line++) {
        cr_assert_lt(all->count, (size_t)QUESTIONS_MAX);
        question *q = &all->item[all->count++];
        mx_status st = { 0 };
        end = strchr(at, '\n');
        *q = (question){ .form = s->form, .file = s->file, .line = line };
        ASSERT(q, mx_json_parse(at, (size_t)(end - at), s->file, (uint32_t)line, &q->record, &st) == MX_OK, "%s",
               st.text);
        if (s->form == PIQA) {
            read_piqa(q, &label);
        } else {
            read_exam(q);
        }
    }
    cr_expect(!label || !*label, "%s has more lines than there are questions", s->labels);
    free(content);
    free(labels);
}

static questions *open_sets(const source *first, size_t count)
{
    questions *all = calloc(1, sizeof *all);
    cr_assert(all);
    for (size_t i = 0; i < count; i++) {
        add_set(&first[i], all);
    }
    return all;
}

static void close_sets(questions *all)
{
    for (size_t i = 0; i < all->count; i++) {
        json_decref(all->item[i].record);
    }
    free(all);
}

/* ---- comparing */

/* Lower case, letters, digits and bytes of other scripts; one space for all the rest. */
static void normalise(const char *text, char *ret, size_t size)
{
    size_t n = 0;
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        cr_assert_lt(n + 1, size);
        if (isalnum(c) || c >= 0x80) {
            ret[n++] = (char)tolower(c);
        } else if (n && ret[n - 1] != ' ') {
            ret[n++] = ' ';
        }
    }
    ret[n && ret[n - 1] == ' ' ? n - 1 : n] = 0;
}

typedef struct words {
    char stem[STEM_BYTES_MAX + 1]; /* normalised */
    char text[PAIR_BYTES_MAX];     /* stem and right answer, cut into the words below */
    const char *item[WORDS_MAX];   /* each once */
    size_t count;
} words;

static bool has_word(const words *w, const char *word)
{
    for (size_t i = 0; i < w->count; i++) {
        if (strcmp(w->item[i], word) == 0) {
            return true;
        }
    }
    return false;
}

static void split(const question *q, words *ret)
{
    char pair[PAIR_BYTES_MAX], *rest;
    normalise(q->stem, ret->stem, sizeof ret->stem);
    ASSERT(q, (size_t)snprintf(pair, sizeof pair, "%s %s", q->stem, q->choice[q->right]) < sizeof pair, "too long");
    normalise(pair, ret->text, sizeof ret->text);
    ret->count = 0;
    for (char *word = strtok_r(ret->text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (!has_word(ret, word)) {
            ASSERT(q, ret->count < WORDS_MAX, "too many words");
            ret->item[ret->count++] = word;
        }
    }
}

/* Jaccard: shared words over all words. */
static double likeness(const words *a, const words *b)
{
    size_t shared = 0;
    for (size_t i = 0; i < a->count; i++) {
        shared += has_word(b, a->item[i]);
    }
    return (double)shared / (double)(a->count + b->count - shared);
}

static bool is_tidy(const char *text, size_t bytes_max)
{
    const size_t n = strlen(text);
    if (n == 0 || n > bytes_max || text[0] == ' ' || text[n - 1] == ' ' || strstr(text, "  ") || strchr(text, '|')) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (iscntrl((unsigned char)text[i])) {
            return false;
        }
    }
    return true;
}

/* ---- claims */

Test(sample, each_set_has_enough_questions)
{
    for (size_t i = 0; i < SETS; i++) {
        questions *set = open_sets(&sets[i], 1);
        cr_expect_geq(set->count, sets[i].at_least, "%s: %zu questions", sets[i].file, set->count);
        close_sets(set);
    }
}

Test(sample, texts_are_tidy_and_keep_the_form_of_their_data_set)
{
    questions *all = open_sets(sets, SETS);
    for (size_t n = 0; n < all->count; n++) {
        const question *q = &all->item[n];
        ASSERT(q, is_tidy(q->stem, STEM_BYTES_MAX) && strchr(q->stem, ' '), "untidy: '%s'", q->stem);
        for (size_t i = 0; i < q->choices; i++) {
            EXPECT(q, is_tidy(q->choice[i], CHOICE_BYTES_MAX), "untidy: '%s'", q->choice[i]);
        }
        const char last = q->stem[strlen(q->stem) - 1];
        EXPECT(q, q->form != ARC || last == '?', "an ARC stem asks: '%s'", q->stem);
        EXPECT(q, q->form != OPENBOOKQA || q->choices == 4, "OpenBookQA has four choices, here are %zu", q->choices);
        EXPECT(q, q->form != OPENBOOKQA || isalnum((unsigned char)last), "the choice cannot go on from '%s'", q->stem);
    }
    close_sets(all);
}

Test(sample, arc_shows_the_odd_rows_of_the_real_set)
{
    questions *all = open_sets(sets, 2);
    size_t three = 0, five = 0, digits = 0;
    for (size_t n = 0; n < all->count; n++) {
        const question *q = &all->item[n];
        three += q->choices == 3;
        five += q->choices == 5;
        digits += isdigit((unsigned char)json_string_value(json_object_get(q->record, "answerKey"))[0]) != 0;
    }
    cr_expect(three > 0 && five > 0 && digits > 0, "%zu of three choices, %zu of five, %zu with digits", three, five,
              digits);
    close_sets(all);
}

Test(sample, choices_of_one_question_differ)
{
    questions *all = open_sets(sets, SETS);
    for (size_t n = 0; n < all->count; n++) {
        const question *q = &all->item[n];
        char text[CHOICES_MAX][CHOICE_BYTES_MAX + 1];
        for (size_t i = 0; i < q->choices; i++) {
            normalise(q->choice[i], text[i], sizeof text[i]);
            for (size_t k = 0; k < i; k++) {
                EXPECT(q, strcmp(text[i], text[k]) != 0, "'%s' twice", q->choice[i]);
            }
        }
    }
    close_sets(all);
}

/* No question occurs twice, within a file, between training and validation, or in another set; and none is a
 * light rewording of another: stem and right answer share at most half of their words. The nearest pair that
 * is meant to be two questions is at 0.47. */
Test(sample, questions_differ_across_all_files)
{
    questions *all = open_sets(sets, SETS);
    words *w = calloc(all->count, sizeof *w);
    cr_assert(w);
    for (size_t n = 0; n < all->count; n++) {
        const question *q = &all->item[n];
        split(q, &w[n]);
        for (size_t m = 0; m < n; m++) {
            const question *p = &all->item[m];
            EXPECT(q, !q->id || !p->id || strcmp(q->id, p->id) != 0, "id '%s' is also at %s:%zu", q->id, p->file,
                   p->line);
            EXPECT(q, strcmp(w[n].stem, w[m].stem) != 0, "the same stem is at %s:%zu", p->file, p->line);
            const double near = likeness(&w[n], &w[m]);
            EXPECT(q, near <= 0.5, "%.2f of the words are those of %s:%zu", near, p->file, p->line);
        }
    }
    free(w);
    close_sets(all);
}

/* A fair share for each place of the right answer, to within 3 questions a file (a fifth choice is rare and has
 * none): a model that always gives one letter gains nothing. */
Test(sample, right_answers_stand_in_every_place_equally_often)
{
    for (size_t i = 0; i < SETS; i++) {
        questions *set = open_sets(&sets[i], 1);
        const size_t places = sets[i].form == PIQA ? 2 : 4;
        size_t times[CHOICES_MAX] = { 0 };
        for (size_t n = 0; n < set->count; n++) {
            times[set->item[n].right]++;
        }
        for (size_t p = 0; p < places; p++) {
            const double off = (double)times[p] - (double)set->count / (double)places;
            cr_expect(fabs(off) <= 3, "%s: choice %zu is right %zu times of %zu", sets[i].file, p + 1, times[p],
                      set->count);
        }
        close_sets(set);
    }
}

/* The length of a choice must not give it away: right ones are as long as wrong ones (mean, 0.85 to 1.15), and
 * always taking the longest or the shortest (one of them when several are equal) is within 10 points of guessing. */
Test(sample, the_length_of_a_choice_says_nothing)
{
    for (size_t i = 0; i < SETS; i++) {
        questions *set = open_sets(&sets[i], 1);
        double right = 0, wrong = 0, wrongs = 0, guess = 0, longest = 0, shortest = 0;
        const double count = (double)set->count;
        for (size_t n = 0; n < set->count; n++) {
            const question *q = &set->item[n];
            const size_t length = strlen(q->choice[q->right]);
            size_t longer = 0, shorter = 0, equal = 0; /* than the right one; it equals itself */
            for (size_t c = 0; c < q->choices; c++) {
                const size_t other = strlen(q->choice[c]);
                longer += other > length;
                shorter += other < length;
                equal += other == length;
                wrong += c == q->right ? 0 : (double)other;
            }
            right += (double)length;
            wrongs += (double)q->choices - 1;
            guess += 1 / (double)q->choices;
            longest += longer ? 0 : 1 / (double)equal;
            shortest += shorter ? 0 : 1 / (double)equal;
        }
        const double ratio = right / count / (wrong / wrongs);
        cr_expect(ratio >= 0.85 && ratio <= 1.15, "%s: right / wrong length %.3f", sets[i].file, ratio);
        cr_expect(fabs(longest - guess) <= 0.10 * count, "%s: the longest is right in %.1f %%, guessing in %.1f %%",
                  sets[i].file, 100 * longest / count, 100 * guess / count);
        cr_expect(fabs(shortest - guess) <= 0.10 * count, "%s: the shortest is right in %.1f %%, guessing in %.1f %%",
                  sets[i].file, 100 * shortest / count, 100 * guess / count);
        close_sets(set);
    }
}
