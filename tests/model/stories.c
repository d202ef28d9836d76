/* stories260K writes its story: greedy text of llama2.c's run.c, token by token.
 *
 * The model's .bin (legacy export: seven int32, then f32 tensors) is rewritten as a Hugging Face folder first. Its rotary pairs
 * are interleaved; Hugging Face's are (j, j + D/2), so rows of q and k are put in that order. */
#include "base/file.h"
#include "model/trial.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 200, BOS = 1 };

typedef struct converter {
    mx_arena arena;
    char *file;
    size_t size, at;
    mx_named_values list[64];
    size_t count;
} converter;

/* The next rows x columns values of the file. */
static float *next(converter *c, int64_t values) {
    float *ret = MX_TAKE(&c->arena, float, values);

    cr_assert_leq(c->at + 4 * (size_t)values, c->size);
    memcpy(ret, c->file + c->at, 4 * (size_t)values);
    c->at += 4 * (size_t)values;
    return ret;
}

static void name(converter *c, const char *text, float *data, int64_t rows, int64_t columns) {
    c->list[c->count++] = (mx_named_values){ .name = text, .rank = columns > 1 ? 2 : 1, .dim = { rows, columns, 1, 1 },
                                             .data = data };
}

/* A tensor of all layers, one after the other; heads > 0: rotary rows to be put in order. */
static void layers(converter *c, int64_t count, const char *what, int64_t rows, int64_t columns, int64_t heads) {
    for (int64_t i = 0; i < count; i++) {
        float *from = next(c, rows * columns), *to = from;
        int64_t d = heads ? rows / heads : 0;

        if (heads) {
            to = MX_TAKE(&c->arena, float, rows * columns);
            for (int64_t r = 0; r < rows; r++) {
                int64_t h = r / d, j = r % d;

                memcpy(to + (h * d + j / 2 + j % 2 * (d / 2)) * columns, from + r * columns, 4 * (size_t)columns);
            }
        }
        name(c, mx_arena_text(&c->arena, "model.layers.%lld.%s.weight", (long long)i, what), to, rows, columns);
    }
}

static int64_t convert(converter *c, const char *folder, int64_t *ret_vocab) {
    int32_t head[7]; /* dim, hidden, layers, heads, kv heads, vocab, seq */
    int64_t dim, inner, n, heads, kv, vocab, wide;
    const char *config;
    mx_status st = { 0 };

    memcpy(head, c->file, sizeof head);
    c->at = sizeof head;
    dim = head[0], inner = head[1], n = head[2], heads = head[3], kv = head[4], vocab = head[5];
    wide = dim / heads * kv;
    name(c, "model.embed_tokens.weight", next(c, vocab * dim), vocab, dim);
    layers(c, n, "input_layernorm", dim, 1, 0);
    layers(c, n, "self_attn.q_proj", dim, dim, heads);
    layers(c, n, "self_attn.k_proj", wide, dim, kv);
    layers(c, n, "self_attn.v_proj", wide, dim, 0);
    layers(c, n, "self_attn.o_proj", dim, dim, 0);
    layers(c, n, "post_attention_layernorm", dim, 1, 0);
    layers(c, n, "mlp.gate_proj", inner, dim, 0);
    layers(c, n, "mlp.down_proj", dim, inner, 0);
    layers(c, n, "mlp.up_proj", inner, dim, 0);
    name(c, "model.norm.weight", next(c, dim), dim, 1);
    config = mx_arena_text(&c->arena,
                           "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\", "
                           "\"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_hidden_layers\": %lld, "
                           "\"num_attention_heads\": %lld, \"num_key_value_heads\": %lld, \"vocab_size\": %lld, "
                           "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"max_position_embeddings\": %d, "
                           "\"tie_word_embeddings\": true}",
                           (long long)dim, (long long)inner, (long long)n, (long long)heads, (long long)kv,
                           (long long)vocab, head[6]);
    cr_assert_eq(mx_file_write(mx_arena_text(&c->arena, "%s/config.json", folder), config, strlen(config), &st), MX_OK,
                 "%s", st.text);
    cr_assert_eq(mx_safetensors_write(mx_arena_text(&c->arena, "%s/model.safetensors", folder), c->list, c->count, NULL,
                                      &st), MX_OK, "%s", st.text);
    *ret_vocab = vocab;
    return dim;
}

/* The pieces of tok512.bin: longest length, then score, length, bytes for each. */
static char **read_pieces(converter *c, const char *path, int64_t vocab) {
    char **piece = MX_TAKE(&c->arena, char *, vocab), *file;
    size_t size, at = 4;
    mx_status st = { 0 };

    cr_assert_eq(mx_file_read(path, 1 << 20, &file, &size, &st), MX_OK, "%s", st.text);
    for (int64_t i = 0; i < vocab; i++) {
        int32_t length;

        cr_assert_leq(at + 8, size);
        memcpy(&length, file + at + 4, 4);
        cr_assert(length >= 0 && at + 8 + (size_t)length <= size);
        piece[i] = mx_arena_copy(&c->arena, file + at + 8, (size_t)length);
        at += 8 + (size_t)length;
    }
    free(file);
    return piece;
}

/* As run.c prints: after BOS a leading space falls away, <0xNN> is a byte. */
static void say(mx_text *out, const char *piece, int32_t before) {
    unsigned byte;

    if (before == BOS && piece[0] == ' ') {
        piece++;
    }
    if (sscanf(piece, "<0x%02X>", &byte) == 1) {
        char c = (char)byte;

        mx_text_add(out, &c, 1);
    } else {
        mx_text_add(out, piece, strlen(piece));
    }
}

static int32_t likeliest(const float *logits, int64_t n) {
    int64_t best = 0;

    for (int64_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

static void write_story(const char *folder, char **piece, int64_t vocab, mx_arena *arena, mx_text *out) {
    mx_backend_options o = { .device = "cpu", .threads = 1 };
    const mx_method *method = mx_method_find("base");
    mx_model_limits limits = { .rows = TOKENS + 1, .loss_rows = 1, .segments = 1, .spans = 1, .tasks = 1,
                               .label_logits = true };
    int32_t token[TOKENS + 1] = { BOS }, position[TOKENS + 1], zero[TOKENS + 1] = { 0 };
    float *logits = MX_TAKE(arena, float, vocab);
    mx_adapter *list[1];
    mx_pass pass = { 0 };
    const mx_layout *layout;
    mx_base_file *file;
    mx_backend *b;
    mx_model *model;
    mx_trainee *t;
    mx_status st = { 0 };

    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_base_file_open(folder, arena, &file, &st), MX_OK, "%s", st.text);
    layout = mx_layout_make(method, mx_method_defaults(method, arena), mx_base_file_shape(file), arena);
    cr_assert_eq(mx_model_open(b, file, layout, &limits, &model, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_trainee_open(b, layout, mx_model_frozen(model), false, &t, &st), MX_OK, "%s", st.text);
    list[0] = &t->adapter;
    for (int64_t n = 1; n <= TOKENS; n++) {
        mx_segment segment = { .count = (int32_t)n };
        mx_sequence sequence = { 0 };
        int32_t last = (int32_t)(n - 1), target = 0;
        mx_span span = { .count = 1 };
        mx_batch batch = { .rows = n, .live = n, .token = token, .position = position, .question = zero, .task = zero,
                           .row_segment = zero, .segment = &segment, .segments = 1, .sequence = &sequence,
                           .loss_rows = 1, .loss_row = &last, .loss_target = &target, .span = &span, .spans = 1 };

        position[n - 1] = last;
        mx_model_forward(model, list, 1, &batch, &pass);
        cr_assert_eq(mx_model_label_logits(model, NULL, 0, logits, &st), MX_OK, "%s", st.text);
        token[n] = likeliest(logits, vocab);
        if (token[n] == BOS) {
            break;
        }
        say(out, piece[token[n]], token[n - 1]);
    }
    mx_trainee_close(t);
    mx_model_close(model);
    mx_base_file_close(file);
    b->close(b);
}

Test(stories, greedy_text_is_what_run_c_printed) {
    const char *root = getenv("MIXRUN_TEST_MODELS");
    char folder[] = "/tmp/mixrun-stories-XXXXXX", *expected;
    size_t expected_size;
    int64_t vocab;
    converter c = { 0 };
    mx_status st = { 0 };
    mx_text story;

    if (!root) {
        cr_skip_test("MIXRUN_TEST_MODELS is not set");
    }
    mx_arena_init(&c.arena, (size_t)1 << 28);
    mx_text_init(&story, 1 << 16);
    cr_assert(mkdtemp(folder));
    cr_assert_eq(mx_file_read(mx_arena_text(&c.arena, "%s/stories260K/stories260K.bin", root), 1 << 24, &c.file, &c.size,
                              &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_file_read(mx_arena_text(&c.arena, "%s/stories260K/run-c.t0.n200.txt", root), 1 << 16, &expected,
                              &expected_size, &st), MX_OK, "%s", st.text);
    cr_expect_eq(convert(&c, folder, &vocab), 64);
    write_story(folder, read_pieces(&c, mx_arena_text(&c.arena, "%s/stories260K/tok512.bin", root), vocab), vocab, &c.arena,
                &story);
    mx_text_print(&story, "\n");
    cr_expect_str_eq(story.data, expected);
    free(expected);
    free(c.file);
    mx_text_finish(&story);
    cr_assert_eq(mx_folder_remove(folder, &st), MX_OK);
    mx_arena_finish(&c.arena);
}
