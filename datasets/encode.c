/* encode.c - questions become tokens: context and continuation apart, cut where they are too long. */
#include "datasets/encode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* What one question needs while it is encoded; reused from question to question. */
typedef struct workshop {
    const mx_tokenizer *tokenizer;
    const mx_encode_options *o;
    const char *file; /* in errors */
    mx_text context, whole;
    mx_tokens context_ids, whole_ids;
} workshop;

/* The BOS rule, not the EOS rule: nothing ends where a continuation begins. */
static mx_code encode(const mx_tokenizer *t, const char *text, size_t length, bool begins, mx_tokens *ret, mx_status *st)
{
    const mx_tokenizer_rule *rule = mx_tokenizer_rules(t);

    ret->count = 0;
    MX_TRY(mx_tokenizer_encode(t, text, length, begins ? MX_TOKENIZER_RULES : 0, ret, st));
    if (begins && rule->add_eos && ret->count && ret->id[ret->count - 1] == rule->eos) {
        ret->count--;
    }
    return MX_OK;
}

/* Length without the white space at the end, as Python's str.rstrip. */
static size_t stripped_length(const char *text, size_t length)
{
    while (length) {
        size_t from = length - 1;
        utf8proc_int32_t c;

        while (from && ((unsigned char)text[from] & 0xc0) == 0x80) {
            from--;
        }
        if (utf8proc_iterate((const utf8proc_uint8_t *)text + from, (utf8proc_ssize_t)(length - from), &c) <= 0 ||
            !mx_prompt_is_space(c)) {
            break;
        }
        length = from;
    }
    return length;
}

/* Tokens of w->context into context_ids, and of context and continuation together into whole_ids, so that the
 * continuation's are whole_ids[context_ids.count ..). */
static mx_code encode_pair(workshop *w, const mx_question *q, int32_t choice, mx_status *st)
{
    const mx_tokenizer_rule *rule = mx_tokenizer_rules(w->tokenizer);
    size_t stripped;

    w->context.length = w->whole.length = 0;
    mx_question_context(q, w->o->form, choice, &w->context);
    stripped = stripped_length(w->context.data, w->context.length);
    mx_text_add(&w->whole, w->context.data, w->context.length); /* the spaces count as the continuation's this way */
    mx_question_continuation(q, w->o->form, choice, &w->whole);
    if (stripped) {
        MX_TRY(encode(w->tokenizer, w->context.data, stripped, true, &w->context_ids, st));
        return encode(w->tokenizer, w->whole.data, w->whole.length, true, &w->whole_ids, st);
    }
    if (rule->bos < 0 && rule->eos < 0) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = w->file, .line = q->line },
                       "the prompt is empty, and the tokenizer has neither BOS nor EOS to begin with");
    }
    /* as the harness: an empty context is the prefix token, and the continuation is encoded alone */
    w->context_ids.count = 0;
    return encode(w->tokenizer, w->whole.data, w->whole.length, false, &w->whole_ids, st);
}

/* One choice as a sequence, not cut yet. */
static mx_code encode_choice(workshop *w, const mx_question *q, int32_t choice, mx_arena *arena, mx_encoded_sequence *ret,
                             mx_status *st)
{
    const mx_tokenizer_rule *rule = mx_tokenizer_rules(w->tokenizer);
    mx_mark at = { .file = w->file, .line = q->line };
    size_t context, from, count;
    int32_t *token;

    MX_TRY(encode_pair(w, q, choice, st));
    from = w->context_ids.count;
    if (w->whole_ids.count <= from) {
        return mx_fail(st, MX_E_DATA, at, "choice '%s' adds no token to the prompt", q->choice[choice].label);
    }
    context = from ? from : 1; /* the prefix token */
    count = context + (w->whole_ids.count - from) + w->o->add_eos;
    if (count > INT32_MAX / 2) {
        return mx_fail(st, MX_E_DATA, at, "the question has %zu tokens", count);
    }
    if (w->o->add_eos && rule->eos < 0) {
        return mx_fail(st, MX_E_DATA, at, "add_eos is asked for, but the tokenizer has no EOS token");
    }
    token = MX_TAKE(arena, int32_t, count);
    token[0] = rule->bos >= 0 ? rule->bos : rule->eos;
    if (from) {
        memcpy(token, w->context_ids.id, from * sizeof *token);
    }
    memcpy(token + context, w->whole_ids.id + from, (w->whole_ids.count - from) * sizeof *token);
    if (w->o->add_eos) {
        token[count - 1] = rule->eos;
    }
    *ret = (mx_encoded_sequence){ token, (int32_t)count, (int32_t)context, choice };
    return MX_OK;
}

/* --- too long --- */

/* From the left, each by itself. */
static int64_t cut_left(mx_encoded_sequence *s, int64_t room)
{
    int32_t over = s->count > room ? (int32_t)(s->count - room) : 0;

    s->token += over;
    s->count -= over;
    s->first_target -= over;
    return over;
}

/* `over` tokens from the end of the context: what is kept in front of the continuation moves there in place. */
static void cut_context_end(mx_encoded_sequence *s, int32_t over, mx_arena *arena)
{
    int32_t *token = MX_TAKE(arena, int32_t, s->count - over), keep = s->first_target - over;

    memcpy(token, s->token, (size_t)keep * sizeof *token);
    memcpy(token + keep, s->token + s->first_target, (size_t)(s->count - s->first_target) * sizeof *token);
    *s = (mx_encoded_sequence){ token, s->count - over, keep, s->choice };
}

static mx_code cut(const workshop *w, const mx_question *q, mx_encoded_sequence *s, int32_t n, mx_arena *arena,
                   mx_encoded *e, mx_encoded_list *list, mx_status *st)
{
    const int64_t room = w->o->sequence_len + 1; /* the last token is predicted, never fed */
    int64_t over = 0, dropped = 0;

    for (int32_t i = 0; i < n; i++) {
        list->longest = s[i].count > list->longest ? s[i].count : list->longest;
        over = s[i].count - room > over ? s[i].count - room : over;
        if (s[i].count - s[i].first_target >= room) {
            return mx_fail(st, MX_E_DATA, (mx_mark){ .file = w->file, .line = q->line },
                           "choice '%s' alone has %d tokens, and sequence_len is %lld", q->choice[s[i].choice].label,
                           s[i].count - s[i].first_target, (long long)w->o->sequence_len);
        }
    }
    if (over == 0) {
        return MX_OK;
    }
    for (int32_t i = 0; i < n; i++) {
        if (w->o->form == MX_PROMPT_LOGLIKELIHOOD) {
            dropped += cut_left(&s[i], room);
            e->prefix = 0;
        } else {
            int32_t here = over < s[i].first_target ? (int32_t)over : s[i].first_target - 1;

            /* of a shared context the same part stays for all, so that it remains shared */
            cut_context_end(&s[i], here, arena);
            dropped = here;
            e->prefix = e->prefix ? s[i].first_target : 0;
        }
    }
    e->truncated = true;
    list->truncated++;
    list->tokens_dropped += dropped;
    return MX_OK;
}

/* --- the three ways to ask --- */

static mx_code ask_label(workshop *w, const mx_question *q, mx_arena *arena, mx_encoded *e, mx_encoded_list *list,
                         mx_status *st)
{
    mx_encoded_sequence *s = MX_TAKE(arena, mx_encoded_sequence, 1);
    int32_t *token;
    size_t count;

    if (q->gold >= 0 && mx_label_gold(q) < 0) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = w->file, .line = q->line },
                       "the right label '%s' is not among the task's candidates", q->choice[q->gold].label);
    }
    w->context.length = 0;
    mx_question_context(q, w->o->form, 0, &w->context);
    MX_TRY(encode(w->tokenizer, w->context.data ? w->context.data : "", w->context.length, true, &w->context_ids, st));
    count = w->context_ids.count;
    if (count == 0 || count > INT32_MAX / 2) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = w->file, .line = q->line }, "the prompt has %zu tokens", count);
    }
    list->longest = (int64_t)count > list->longest ? (int64_t)count : list->longest;
    if ((int64_t)count > w->o->sequence_len) {
        e->truncated = true;
        list->truncated++;
        list->tokens_dropped += (int64_t)count - w->o->sequence_len;
        count = (size_t)w->o->sequence_len;
    }
    token = MX_TAKE(arena, int32_t, count);
    memcpy(token, w->context_ids.id, count * sizeof *token);
    *s = (mx_encoded_sequence){ token, (int32_t)count, (int32_t)count, 0 };
    e->sequence = s;
    e->sequences = 1;
    e->label = true;
    return MX_OK;
}

static mx_code ask_choices(workshop *w, const mx_question *q, mx_arena *arena, mx_encoded *e, mx_encoded_list *list,
                           mx_status *st)
{
    bool answer = w->o->ask == MX_ASK_ANSWER;
    int32_t n = answer ? 1 : q->choices;
    mx_encoded_sequence *s = MX_TAKE(arena, mx_encoded_sequence, n);

    if (answer && q->gold < 0) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = w->file, .line = q->line }, "the right answer is not known");
    }
    for (int32_t i = 0; i < n; i++) {
        MX_TRY(encode_choice(w, q, answer ? q->gold : i, arena, &s[i], st));
    }
    e->sequence = s;
    e->sequences = n;
    e->prefix = n > 1 && mx_task_prompt_of(q->task, w->o->form)->shared ? s[0].first_target : 0;
    MX_TRY(cut(w, q, s, n, arena, e, list, st));
    if (answer && w->o->loss_on_all) {
        s[0].first_target = 1;
    }
    return MX_OK;
}

mx_code mx_encode(const mx_questions *questions, const mx_tokenizer *tokenizer, const mx_encode_options *o, mx_arena *arena,
                  mx_encoded_list *ret, mx_status *st)
{
    workshop w = { .tokenizer = tokenizer, .o = o, .file = questions->file[0].path };
    mx_code code = MX_OK;

    assert(o->sequence_len > 0);
    *ret = (mx_encoded_list){ .item = MX_TAKE(arena, mx_encoded, questions->count + 1) };
    if (!mx_task_prompt_of(questions->task, o->form)) {
        return mx_fail(st, MX_E_RECIPE, MX_NOWHERE, "task '%s' has no prompt form '%s'", questions->task->name,
                       mx_prompt_form_names[o->form]);
    }
    mx_text_init(&w.context, SIZE_MAX / 4);
    mx_text_init(&w.whole, SIZE_MAX / 4);
    for (int64_t i = 0; i < questions->count && !code; i++) {
        mx_encoded *e = &ret->item[i];

        e->question = &questions->item[i];
        code = o->ask == MX_ASK_LABEL ? ask_label(&w, e->question, arena, e, ret, st)
                                      : ask_choices(&w, e->question, arena, e, ret, st);
        ret->count++;
    }
    mx_text_finish(&w.context);
    mx_text_finish(&w.whole);
    mx_tokens_finish(&w.context_ids);
    mx_tokens_finish(&w.whole_ids);
    return code;
}

/* --- labels --- */

mx_code mx_label_ids(const mx_task *task, const mx_tokenizer *tokenizer, mx_arena *arena, int32_t **ret_id,
                     int32_t *ret_count, mx_status *st)
{
    const mx_texts *label = &task->prompts.reference.candidates;
    int32_t *id = MX_TAKE(arena, int32_t, label->count + 1);
    mx_tokens tokens = { 0 };
    mx_code code = MX_OK;

    for (size_t i = 0; i < label->count; i++) {
        const char *text = mx_arena_text(arena, " %s", label->item[i]);

        code = encode(tokenizer, text, strlen(text), false, &tokens, st);
        if (code) {
            goto done;
        }
        if (tokens.count == 0) {
            code = mx_fail(st, MX_E_DATA, MX_NOWHERE, "label '%s' of task '%s' has no token", label->item[i], task->name);
            goto done;
        }
        id[i] = tokens.id[tokens.count - 1];
        for (size_t k = 0; k < i; k++) {
            if (id[k] == id[i]) {
                code = mx_fail(st, MX_E_DATA, MX_NOWHERE,
                               "labels '%s' and '%s' of task '%s' end in the same token: label_logits cannot tell them apart",
                               label->item[k], label->item[i], task->name);
                goto done;
            }
        }
    }
    *ret_id = id;
    *ret_count = (int32_t)label->count;
done:
    mx_tokens_finish(&tokens);
    return code;
}

int32_t mx_label_gold(const mx_question *q)
{
    const mx_texts *label;

    if (q->gold < 0) {
        return -1;
    }
    label = &q->task->prompts.reference.candidates;
    for (size_t i = 0; i < label->count; i++) {
        if (strcmp(label->item[i], q->choice[q->gold].label) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}
