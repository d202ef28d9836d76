/* base_model.c - one small model as a folder, as shards and as a GGUF: the same tensors come out of each; what is
 * missing, left over or not finite is refused. */
#include "model/base_model.h"

#include "base/text.h"
#include "model/hub.h"
#include "model/safetensors.h"
#include "tests/support/made_file.h"

#include <criterion/criterion.h>
#include <math.h>

/* Hidden 32, inner 64, 2 layers, 4 heads of 8 with 2 key/value heads, 10 tokens, all biases, untied head. */
enum { HIDDEN = 32, INNER = 64, LAYERS = 2, HEADS = 4, KV_HEADS = 2, WIDTH = 8, VOCAB = 10, TENSORS_MAX = 64 };
static const char CONFIG[] = "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,"
                             "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                             "\"vocab_size\":10,\"max_position_embeddings\":128,\"attention_bias\":true,"
                             "\"mlp_bias\":true,\"tie_word_embeddings\":false}";

typedef struct tensor {
    char name[64], gguf[64];
    int64_t rows, columns; /* columns 0: a vector */
    int heads;             /* rows permuted in GGUF */
    float *data;
} tensor;

typedef struct tiny {
    mx_arena arena;
    const char *top;
    tensor tensor[TENSORS_MAX];
    size_t count;
} tiny;

static void add(tiny *t, const char *name, const char *gguf, int64_t rows, int64_t columns, int heads) {
    tensor *x = &t->tensor[t->count];
    int64_t n = rows * (columns ? columns : 1);

    snprintf(x->name, sizeof x->name, "%s", name);
    snprintf(x->gguf, sizeof x->gguf, "%s", gguf);
    x->rows = rows;
    x->columns = columns;
    x->heads = heads;
    x->data = MX_TAKE(&t->arena, float, n);
    for (int64_t i = 0; i < n; i++) {
        x->data[i] = (float)((int64_t)t->count * 10000 + i); /* every value of the model differs */
    }
    t->count++;
}

static void add_layer(tiny *t, int layer) {
    static const struct {
        const char *name, *gguf;
        int64_t rows, columns;
        int heads;
        bool biased;
    } PARTS[] = {
        { "self_attn.q_proj", "attn_q", HEADS * WIDTH, HIDDEN, HEADS, true },
        { "self_attn.k_proj", "attn_k", KV_HEADS * WIDTH, HIDDEN, KV_HEADS, true },
        { "self_attn.v_proj", "attn_v", KV_HEADS * WIDTH, HIDDEN, 0, true },
        { "self_attn.o_proj", "attn_output", HIDDEN, HEADS * WIDTH, 0, true },
        { "mlp.gate_proj", "ffn_gate", INNER, HIDDEN, 0, true },
        { "mlp.up_proj", "ffn_up", INNER, HIDDEN, 0, true },
        { "mlp.down_proj", "ffn_down", HIDDEN, INNER, 0, true },
        { "input_layernorm", "attn_norm", HIDDEN, 0, 0, false },
        { "post_attention_layernorm", "ffn_norm", HIDDEN, 0, 0, false },
    };

    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        for (int bias = 0; bias <= PARTS[i].biased; bias++) {
            const char *kind = bias ? "bias" : "weight";

            add(t, mx_arena_text(&t->arena, "model.layers.%d.%s.%s", layer, PARTS[i].name, kind),
                mx_arena_text(&t->arena, "blk.%d.%s.%s", layer, PARTS[i].gguf, kind), PARTS[i].rows,
                bias ? 0 : PARTS[i].columns, PARTS[i].heads);
        }
    }
}

static tiny *begin(void) {
    static tiny t;

    mx_arena_init(&t.arena, 64 << 20);
    t.top = made_folder();
    add(&t, "model.embed_tokens.weight", "token_embd.weight", VOCAB, HIDDEN, 0);
    for (int layer = 0; layer < LAYERS; layer++) {
        add_layer(&t, layer);
    }
    add(&t, "model.norm.weight", "output_norm.weight", HIDDEN, 0, 0);
    add(&t, "lm_head.weight", "output.weight", VOCAB, HIDDEN, 0);
    return &t;
}

static void end(tiny *t) {
    made_folder_remove(t->top);
    mx_arena_finish(&t->arena);
}

static const char *path_of(tiny *t, const char *name) {
    return mx_arena_text(&t->arena, "%s/%s", t->top, name);
}

static void put_text(tiny *t, const char *name, const char *text) {
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(path_of(t, name), text, strlen(text), &st), MX_OK, "%s", st.text);
}

static void put_tensors(tiny *t, const char *name, size_t first, size_t count) {
    mx_named_values values[TENSORS_MAX];
    mx_status st = { 0 };

    for (size_t i = 0; i < count; i++) {
        const tensor *x = &t->tensor[first + i];

        values[i] = (mx_named_values){ .name = x->name, .rank = x->columns ? 2 : 1, .dim = { x->rows, x->columns },
                                       .data = x->data };
    }
    cr_assert_eq(mx_safetensors_write(path_of(t, name), values, count, NULL, &st), MX_OK, "%s", st.text);
}

/* llama.cpp's permute: within a head of D rows, stored row 2i + h is row i + h D/2. */
static int64_t stored_row(const tensor *x, int64_t stored) {
    int64_t head = stored / WIDTH, within = stored % WIDTH;

    return x->heads ? head * WIDTH + within / 2 + within % 2 * (WIDTH / 2) : stored;
}

static void put_gguf(tiny *t, const char *name) {
    made m = { 0 };
    uint64_t offset = 0;

    gguf_begin(&m, 3, t->count, 7);
    gguf_key_text(&m, "general.architecture", "llama");
    gguf_key_u32(&m, "llama.embedding_length", HIDDEN);
    gguf_key_u32(&m, "llama.feed_forward_length", INNER);
    gguf_key_u32(&m, "llama.block_count", LAYERS);
    gguf_key_u32(&m, "llama.context_length", 128);
    gguf_key_u32(&m, "llama.attention.head_count", HEADS);
    gguf_key_u32(&m, "llama.attention.head_count_kv", KV_HEADS);
    for (size_t i = 0; i < t->count; i++) {
        const tensor *x = &t->tensor[i];

        gguf_tensor(&m, x->gguf, (uint64_t)x->rows, (uint64_t)x->columns, 0, offset);
        offset += (uint64_t)(x->rows * (x->columns ? x->columns : 1)) * 4;
        offset = (offset + 31) / 32 * 32;
    }
    for (size_t i = 0; i < t->count; i++) {
        const tensor *x = &t->tensor[i];
        int64_t columns = x->columns ? x->columns : 1;

        made_align(&m, 32);
        for (int64_t row = 0; row < x->rows; row++) {
            made_put(&m, x->data + stored_row(x, row) * columns, (size_t)columns * sizeof(float));
        }
    }
    made_write(&m, path_of(t, name));
    made_finish(&m);
}

static mx_base_file *open_good(tiny *t, const char *path) {
    mx_base_file *f;
    mx_status st = { 0 };

    cr_assert_eq(mx_base_file_open(path, &t->arena, &f, &st), MX_OK, "%s: %s", st.at.file ? st.at.file : "", st.text);
    return f;
}

static void expect_refusal(tiny *t, const char *path, mx_code expected, const char *words) {
    mx_base_file *f;
    mx_status st = { 0 };

    cr_expect_eq(mx_base_file_open(path, &t->arena, &f, &st), expected, "%s", words);
    cr_expect_str_eq(st.text, words);
    cr_expect_null(f);
}

/* Row `row` in Hugging Face's order, out of whatever order the source has. */
static const float *source_row(const mx_weight_source *w, int64_t row) {
    int64_t head, within, width, stored = row;

    if (w->unpermute_heads) {
        width = w->out / w->unpermute_heads;
        head = row / width;
        within = row % width;
        stored = head * width + within % (width / 2) * 2 + within / (width / 2);
    }
    return (const float *)((const uint8_t *)w->bytes + (size_t)(stored * w->in) * sizeof(float));
}

static void check_all_tensors(tiny *t, const mx_base_file *f) {
    float vector[INNER];
    mx_status st = { 0 };

    for (size_t i = 0; i < t->count; i++) {
        const tensor *x = &t->tensor[i];
        mx_weight_source w;

        if (x->columns) {
            cr_assert_eq(mx_base_file_weight(f, x->name, &w, &st), MX_OK, "%s", st.text);
            cr_assert(w.out == x->rows && w.in == x->columns && w.type == MX_FILE_F32);
            for (int64_t row = 0; row < w.out; row++) {
                cr_expect_eq(memcmp(source_row(&w, row), x->data + row * w.in, (size_t)w.in * sizeof(float)), 0,
                             "%s, row %d", x->name, (int)row);
            }
        } else {
            cr_assert_eq(mx_base_file_vector(f, x->name, vector, x->rows, &st), MX_OK, "%s", st.text);
            cr_expect_eq(memcmp(vector, x->data, (size_t)x->rows * sizeof(float)), 0, "%s", x->name);
        }
    }
}

Test(base_model, a_folder_a_sharded_folder_and_a_gguf_give_the_same_tensors) {
    tiny *t = begin();
    mx_base_file *f;
    char index[8192] = "{\"weight_map\":{";

    put_gguf(t, "tiny.gguf");
    put_text(t, "config.json", CONFIG);
    put_tensors(t, "model-00001-of-00002.safetensors", 0, 20);
    put_tensors(t, "model-00002-of-00002.safetensors", 20, t->count - 20);
    for (size_t i = 0; i < t->count; i++) {
        snprintf(index + strlen(index), sizeof index - strlen(index), "%s\"%s\":\"model-0000%d-of-00002.safetensors\"",
                 i ? "," : "", t->tensor[i].name, i < 20 ? 1 : 2);
    }
    strcat(index, "}}");
    put_text(t, "model.safetensors.index.json", index);
    f = open_good(t, t->top);
    cr_expect_str_eq(mx_base_file_description(f), "F32 safetensors, 2 shards");
    cr_expect_null(mx_base_file_gguf(f));
    check_all_tensors(t, f);
    mx_base_file_close(f);

    put_tensors(t, "model.safetensors", 0, t->count);
    f = open_good(t, t->top);
    cr_expect_str_eq(mx_base_file_description(f), "F32 safetensors");
    check_all_tensors(t, f);
    mx_base_file_close(f);

    f = open_good(t, path_of(t, "tiny.gguf"));
    cr_expect_str_eq(mx_base_file_description(f), "F32 gguf");
    cr_expect_not_null(mx_base_file_gguf(f));
    cr_expect(mx_base_file_shape(f)->qkv_bias && mx_base_file_shape(f)->mlp_bias && !mx_base_file_shape(f)->tied_head);
    check_all_tensors(t, f);
    mx_base_file_close(f);
    end(t);
}

Test(base_model, a_tied_head_may_stand_in_the_folder_all_the_same) {
    tiny *t = begin();
    char *config = strdup(CONFIG);
    mx_base_file *f;

    memcpy(strstr(config, "\"tie_word_embeddings\":false"), "\"tie_word_embeddings\":true ", 27);
    put_text(t, "config.json", config);
    put_tensors(t, "model.safetensors", 0, t->count);
    f = open_good(t, t->top);
    cr_expect(mx_base_file_shape(f)->tied_head);
    cr_expect_eq(mx_base_file_values(f), mx_shape_values(mx_base_file_shape(f)));
    mx_base_file_close(f);
    free(config);
    end(t);
}

Test(base_model, what_is_missing_left_over_or_of_another_size_is_refused) {
    tiny *t = begin();
    tensor *last = &t->tensor[t->count - 1];

    expect_refusal(t, path_of(t, "no.gguf"), MX_E_MISSING, "there is no such file or folder");
    expect_refusal(t, t->top, MX_E_MISSING, "is no model's folder: it has no config.json");
    put_text(t, "config.json", CONFIG);
    expect_refusal(t, t->top, MX_E_MISSING, "has neither model.safetensors nor model.safetensors.index.json");
    put_text(t, "pytorch_model.bin", "");
    expect_refusal(t, t->top, MX_E_MISSING, "has neither model.safetensors nor model.safetensors.index.json; "
                                            "pytorch_model.bin is a Python pickle and is not read");
    put_tensors(t, "model.safetensors", 0, t->count - 1);
    expect_refusal(t, t->top, MX_E_DATA, "tensor 'lm_head.weight' is missing");
    last->rows = 9;
    put_tensors(t, "model.safetensors", 0, t->count);
    expect_refusal(t, t->top, MX_E_DATA,
                   "tensor 'lm_head.weight' has 2 dimensions, 9 by 32; the model's sizes make it 10 by 32");
    last->rows = 10;
    add(t, "model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight", WIDTH, 0, 0);
    put_tensors(t, "model.safetensors", 0, t->count);
    expect_refusal(t, t->top, MX_E_DATA, "tensor 'model.layers.0.self_attn.q_norm.weight' has no place in LLaMA's "
                                         "architecture as this model's sizes describe it");
    put_gguf(t, "tiny.gguf");
    expect_refusal(t, path_of(t, "tiny.gguf"), MX_E_DATA, "tensor 'blk.0.attn_q_norm.weight' has no place in LLaMA's "
                                                          "architecture as this model's sizes describe it");
    t->count--;
    snprintf(t->tensor[5].gguf, sizeof t->tensor[5].gguf, "rope_freqs.weights");
    put_gguf(t, "tiny.gguf");
    expect_refusal(t, path_of(t, "tiny.gguf"), MX_E_DATA, "tensor 'blk.0.attn_v.weight' is missing");
    end(t);
}

Test(base_model, an_index_cannot_lead_out_of_its_folder_or_lie) {
    tiny *t = begin();

    put_text(t, "config.json", CONFIG);
    put_text(t, "model.safetensors.index.json", "{\"weight_map\":{\"lm_head.weight\":\"../x.safetensors\"}}");
    expect_refusal(t, t->top, MX_E_DATA, "'lm_head.weight' is not in a file of this folder");
    put_text(t, "model.safetensors.index.json", "{\"weight_map\":{\"lm_head.weight\":\"/etc/passwd\"}}");
    expect_refusal(t, t->top, MX_E_DATA, "'lm_head.weight' is not in a file of this folder");
    put_text(t, "model.safetensors.index.json", "{\"weight_map\":{}}");
    expect_refusal(t, t->top, MX_E_DATA, "has no \"weight_map\"");
    put_tensors(t, "a.safetensors", 0, 20);
    put_tensors(t, "b.safetensors", 19, t->count - 19);
    put_text(t, "model.safetensors.index.json",
             "{\"weight_map\":{\"lm_head.weight\":\"a.safetensors\",\"model.norm.weight\":\"b.safetensors\"}}");
    expect_refusal(t, t->top, MX_E_DATA, "'lm_head.weight' is not in 'a.safetensors', where it should be");
    put_text(t, "model.safetensors.index.json", "{\"weight_map\":{\"model.embed_tokens.weight\":\"a.safetensors\","
             "\"model.norm.weight\":\"b.safetensors\"}}");
    expect_refusal(t, t->top, MX_E_DATA, "a tensor is in two shards");
    end(t);
}

Test(base_model, values_that_are_not_finite_are_refused_when_they_are_read) {
    tiny *t = begin();
    mx_base_file *f;
    mx_weight_source w;
    mx_status st = { 0 };
    float vector[HIDDEN];

    t->tensor[0].data[3 * HIDDEN + 31] = -INFINITY;
    t->tensor[t->count - 2].data[5] = NAN;
    put_text(t, "config.json", CONFIG);
    put_tensors(t, "model.safetensors", 0, t->count);
    f = open_good(t, t->top);
    mx_base_file_find(f, "model.embed_tokens.weight", &w);
    cr_expect_eq(w.out, VOCAB, "finding reads no value");
    cr_expect_eq(mx_base_file_weight(f, "model.embed_tokens.weight", &w, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "tensor 'model.embed_tokens.weight' holds a value that is not finite, in row 3");
    st = (mx_status){ 0 };
    cr_expect_eq(mx_base_file_vector(f, "model.norm.weight", vector, HIDDEN, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "tensor 'model.norm.weight' holds a value that is not finite, in row 0");
    mx_base_file_close(f);
    end(t);
}

static const char *wide_config(tiny *t, int vocab) {
    static const char WORD[] = "\"vocab_size\":10";
    const char *at = strstr(CONFIG, WORD);

    return mx_arena_text(&t->arena, "%.*s\"vocab_size\":%d%s", (int)(at - CONFIG), CONFIG, vocab, at + sizeof WORD - 1);
}

enum { PLACES = 3 };
typedef struct stored_type {
    uint32_t ggml;
    mx_file_type type;
    int place[PLACES];          /* of a row's values' or scales' upper two bytes: first, middle, last; -1: none */
    uint16_t most, infinity, no_number; /* those two bytes: the largest finite value, and two that are not */
} stored_type;

/* The file's last tensor, the head, becomes one of this type (its rows are shorter) with these two bytes there. */
static void retype_head(const char *path, const stored_type *b, int row, int place, uint16_t bits) {
    static const char NAME[] = "\15\0\0\0\0\0\0\0output.weight"; /* with its length, or attn_output.weight would do */
    size_t row_bytes = mx_file_type_row_bytes(b->type, HIDDEN), size;
    uint8_t *type, *data;
    char *text;
    mx_status st = { 0 };

    cr_assert_eq(mx_file_read(path, 1 << 20, &text, &size, &st), MX_OK, "%s", st.text);
    type = memmem(text, size, NAME, sizeof NAME - 1);
    cr_assert_not_null(type);
    memcpy(type + sizeof NAME - 1 + 4 + 16, &b->ggml, 4); /* past rank and dimensions */
    data = (uint8_t *)text + size - VOCAB * HIDDEN * sizeof(float);
    memset(data, 0x11, row_bytes * VOCAB);
    memcpy(data + (size_t)row * row_bytes + place, &bits, 2);
    cr_assert_eq(mx_file_write(path, text, size, &st), MX_OK, "%s", st.text);
    free(text);
}

static void head_is(tiny *t, const stored_type *type, int row, int place, uint16_t bits, bool finite) {
    const char *path = path_of(t, "one.gguf");
    mx_base_file *f;
    mx_weight_source w = { 0 };
    mx_status st = { 0 };
    char says[200];

    snprintf(says, sizeof says, "tensor 'output.weight' holds a %s that is not finite, in row %d",
             type->type > MX_FILE_BF16 ? "scale" : "value", row);
    put_gguf(t, "one.gguf");
    retype_head(path, type, row, place, bits);
    f = open_good(t, path);
    cr_expect_eq(mx_base_file_weight(f, "lm_head.weight", &w, &st), finite ? MX_OK : MX_E_DATA, "%s, row %d, byte %d, %04x",
                 mx_file_type_name(type->type), row, place, bits);
    cr_expect(!finite || w.type == type->type);
    cr_expect_str_eq(st.text, finite ? "" : says);
    mx_base_file_close(f);
}

Test(base_model, what_is_not_finite_is_refused_at_its_row_in_every_type) {
    static const stored_type TYPES[] = {
        { 0, MX_FILE_F32, { 2, 66, 126 }, 0xff7f, 0x7f80, 0xffc0 }, { 1, MX_FILE_F16, { 0, 30, 62 }, 0xfbff, 0x7c00, 0xfe00 },
        { 30, MX_FILE_BF16, { 0, 30, 62 }, 0xff7f, 0xff80, 0x7f81 }, { 8, MX_FILE_Q8_0, { 0, -1, -1 }, 0xfbff, 0x7c00, 0xfe00 },
        { 2, MX_FILE_Q4_0, { 0, -1, -1 }, 0xfbff, 0xfc00, 0x7c01 },  { 3, MX_FILE_Q4_1, { 0, 2, -1 }, 0xfbff, 0x7c00, 0xfe00 },
        { 6, MX_FILE_Q5_0, { 0, -1, -1 }, 0xfbff, 0x7c00, 0xfe00 },  { 7, MX_FILE_Q5_1, { 0, 2, -1 }, 0xfbff, 0x7c00, 0xfe00 },
    };
    tiny *t = begin();

    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        for (int j = 0; j < PLACES && TYPES[i].place[j] >= 0; j++) {
            for (int row = 0; row < VOCAB; row += row ? 5 : 4) { /* the first, a middle one, the last */
                head_is(t, &TYPES[i], row, TYPES[i].place[j], TYPES[i].most, true);
                head_is(t, &TYPES[i], row, TYPES[i].place[j], TYPES[i].infinity, false);
                head_is(t, &TYPES[i], row, TYPES[i].place[j], TYPES[i].no_number, false);
            }
        }
    }
    end(t);
}

/* So many rows that they are shared among processors: the first that is at fault is told. */
Test(base_model, of_many_rows_that_are_not_finite_the_first_is_told) {
    enum { ROWS = 9001 };
    static const int bad[] = { 0, 1, ROWS / 2 - 1, ROWS / 2, ROWS - 1 };
    tiny *t = begin();
    tensor *head = &t->tensor[t->count - 1];
    int64_t last = (int64_t)ROWS * HIDDEN - 1;
    char says[200];

    put_text(t, "config.json", wide_config(t, ROWS));
    t->tensor[0].rows = head->rows = ROWS;
    t->tensor[0].data = head->data = MX_TAKE(&t->arena, float, last + 1);
    cr_assert_str_eq(head->name, "lm_head.weight");
    memset(head->data, 0, sizeof(float) * (size_t)(last + 1));
    head->data[last] = NAN;
    for (int i = sizeof bad / sizeof *bad; i-- > 0;) { /* what was wrong behind it stays */
        mx_base_file *f;
        mx_weight_source w;
        mx_status st = { 0 };

        head->data[(int64_t)bad[i] * HIDDEN + i] = i % 2 ? INFINITY : NAN;
        put_tensors(t, "model.safetensors", 0, t->count);
        f = open_good(t, t->top);
        cr_expect_eq(mx_base_file_weight(f, "lm_head.weight", &w, &st), MX_E_DATA);
        snprintf(says, sizeof says, "tensor 'lm_head.weight' holds a value that is not finite, in row %s", mx_text_count(bad[i]));
        cr_expect_str_eq(st.text, says);
        mx_base_file_close(f);
    }
    end(t);
}

Test(base_model, the_sum_tells_bases_apart_and_is_remembered) {
    tiny *t = begin();
    mx_base_file *f;
    mx_status st = { 0 };
    char first[MX_SHA256_TEXT], second[MX_SHA256_TEXT], third[MX_SHA256_TEXT], plain[MX_SHA256_TEXT];

    setenv("XDG_CACHE_HOME", path_of(t, "cache"), 1);
    put_gguf(t, "tiny.gguf");
    put_text(t, "config.json", CONFIG);
    put_tensors(t, "model.safetensors", 0, t->count);
    f = open_good(t, path_of(t, "tiny.gguf"));
    cr_assert_eq(mx_base_file_hash(f, first, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_sha256_file(path_of(t, "tiny.gguf"), plain, &st), MX_OK);
    cr_expect_str_eq(first, plain, "of a GGUF it is sha256sum's");
    cr_expect(mx_folder_exists(path_of(t, "cache/mixrun/sha256")));
    cr_assert_eq(mx_base_file_hash(f, second, &st), MX_OK);
    cr_expect_str_eq(first, second);
    mx_base_file_close(f);

    f = open_good(t, t->top);
    cr_assert_eq(mx_base_file_hash(f, first, &st), MX_OK, "%s", st.text);
    mx_base_file_close(f);
    put_text(t, "tokenizer.json", "{}");
    f = open_good(t, t->top);
    cr_assert_eq(mx_base_file_hash(f, second, &st), MX_OK, "%s", st.text);
    mx_base_file_close(f);
    cr_expect_str_neq(first, second, "another tokenizer is another base");
    t->tensor[0].data[0] = 1.5f;
    put_tensors(t, "model.safetensors", 0, t->count);
    f = open_good(t, t->top);
    cr_assert_eq(mx_base_file_hash(f, third, &st), MX_OK, "%s", st.text);
    cr_expect_str_neq(second, third, "other weights are another base");
    mx_base_file_close(f);
    end(t);
}

Test(base_model, the_default_base_opens) {
    mx_status st = { 0 };
    mx_hub_base base;
    mx_arena arena;
    mx_base_file *f;
    mx_weight_source w;
    const mx_shape *s;
    float norm[576];
    char sum[MX_SHA256_TEXT];

    mx_arena_init(&arena, 8 << 20);
    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, &arena, &base, &st)) {
        cr_skip_test("%s", st.text);
    }
    cr_assert_eq(mx_base_file_open(base.path, &arena, &f, &st), MX_OK, "%s", st.text);
    s = mx_base_file_shape(f);
    cr_expect(s->hidden == 576 && s->inner == 1536 && s->layers == 30 && s->heads == 9 && s->kv_heads == 3 &&
              s->head_dim == 64 && s->vocab == 49152 && s->max_positions == 8192);
    cr_expect(s->tied_head && s->rope_theta == 100000 && s->bos_id == 1 && s->eos_id == 2);
    cr_expect_str_eq(mx_base_file_description(f), "Q4_1 gguf");
    cr_expect_eq(mx_base_file_values(f), 134515008);
    cr_assert_eq(mx_base_file_weight(f, "model.layers.29.self_attn.k_proj.weight", &w, &st), MX_OK, "%s", st.text);
    cr_expect(w.out == 192 && w.in == 576 && w.type == MX_FILE_Q4_1 && w.unpermute_heads == 3);
    cr_assert_eq(mx_base_file_weight(f, "model.embed_tokens.weight", &w, &st), MX_OK, "%s", st.text);
    cr_expect(w.type == MX_FILE_Q8_0 && w.unpermute_heads == 0);
    cr_assert_eq(mx_base_file_vector(f, "model.norm.weight", norm, 576, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_base_file_hash(f, sum, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(sum, base.model->sha256);
    mx_base_file_close(f);
    mx_arena_finish(&arena);
}

Test(base_model, the_vectors_base_opens) {
    const char *folder = getenv("MIXRUN_VECTORS");
    mx_status st = { 0 };
    mx_arena arena;
    mx_base_file *f;
    const char *path;

    mx_arena_init(&arena, 8 << 20);
    path = mx_arena_text(&arena, "%s/tiny-a", folder ? folder : "");
    if (!folder || !mx_folder_exists(path)) {
        cr_skip_test("MIXRUN_VECTORS has no tiny-a");
    }
    cr_assert_eq(mx_base_file_open(path, &arena, &f, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(mx_base_file_description(f), "F32 safetensors");
    mx_base_file_close(f);
    mx_arena_finish(&arena);
}
