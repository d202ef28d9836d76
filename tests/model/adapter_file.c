/* adapter_file.c - names as PEFT and MoE-PEFT have them; saving that replaces whole; reading that believes nothing. */
#include "model/adapter_file.h"

#include "tests/support/made_file.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

static const float A[6] = { 1, 2, 3, 4, 5, 6 }, M[2] = { -7, 8 };
static const mx_named_values TWO[] = {
    { .name = "x.lora_A.weight", .rank = 2, .dim = { 2, 3 }, .data = A },
    { .name = "x.lora_magnitude_vector", .rank = 1, .dim = { 2 }, .data = M },
};

static void save(const char *folder, size_t count, const char *word) {
    json_t *config = json_pack("{s:s}", "peft_type", word);
    mx_status st = { 0 };

    cr_assert_eq(mx_adapter_save(folder, TWO, count, config, &st), MX_OK, "%s", st.text);
    json_decref(config);
}

/* How many names a folder holds. */
static int names_in(const char *folder) {
    DIR *d = opendir(folder);
    const struct dirent *e;
    int n = 0;

    cr_assert_not_null(d);
    while ((e = readdir(d))) {
        n += *e->d_name != '.';
    }
    closedir(d);
    return n;
}

static mx_adapter_file *open_saved(const char *folder, mx_arena *arena) {
    mx_adapter_file *f;
    mx_status st = { 0 };

    cr_assert_eq(mx_adapter_open(folder, arena, &f, &st), MX_OK, "%s", st.text);
    return f;
}

Test(adapter_file, names_are_those_of_the_vectors) {
    static const struct {
        const char *file;
        mx_adapter_layout layout;
        int expert;
        const char *module, *part;
    } CASES[] = {
        { "lora", MX_LAYOUT_PEFT, -1, "self_attn.q_proj", "lora_A.weight" },
        { "dora", MX_LAYOUT_PEFT, -1, "mlp.down_proj", "lora_magnitude_vector" },
        { "mixlora-e4k2", MX_LAYOUT_MIXLORA, -1, "mlp.moe_gate", "weight" },
        { "mixlora-e4k2", MX_LAYOUT_MIXLORA, -1, "self_attn.o_proj", "lora_B.weight" },
        { "mixlora-e4k2", MX_LAYOUT_MIXLORA, 3, "mlp.gate_proj", "lora_A.weight" },
        { "mixdora-e4k2", MX_LAYOUT_MIXLORA, 2, "mlp.up_proj", "lora_magnitude_vector" },
    };
    const char *folder = getenv("MIXRUN_VECTORS");
    mx_arena arena;

    mx_arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const char *path = mx_arena_text(&arena, "%s/tiny-a/%s.safetensors", folder ? folder : "", CASES[i].file);
        mx_safetensors *s;
        mx_status st = { 0 };

        if (!folder || !mx_file_exists(path)) {
            cr_skip_test("MIXRUN_VECTORS has no tiny-a");
        }
        cr_assert_eq(mx_safetensors_open(path, &s, &st), MX_OK, "%s", st.text);
        for (int layer = 0; layer < 3; layer++) {
            const char *name = mx_adapter_name(&arena, CASES[i].layout, layer, CASES[i].module, CASES[i].expert,
                                               CASES[i].part);

            cr_expect_not_null(mx_safetensors_find(s, name), "%s has no %s", CASES[i].file, name);
        }
        mx_safetensors_close(s);
    }
    mx_arena_finish(&arena);
}

Test(adapter_file, what_is_saved_is_read_back_and_replaced_whole) {
    const char *top = made_folder();
    mx_arena arena;
    const char *folder;
    mx_adapter_file *f;
    mx_status st = { 0 };
    float a[6], m[2];

    mx_arena_init(&arena, 1 << 20);
    folder = mx_arena_text(&arena, "%s/runs/one/", top); /* the slash must not put anything inside */
    cr_expect_eq(mx_adapter_check_folder(folder, &st), MX_OK, "a new folder is fine");
    save(folder, 1, "FIRST");
    cr_expect_eq(mx_adapter_check_folder(folder, &st), MX_OK, "an adapter of ours is fine");
    save(folder, 2, "SECOND");
    cr_expect_eq(names_in(folder), 2);
    cr_expect_eq(names_in(mx_arena_text(&arena, "%s/runs", top)), 1, "nothing is left beside it");

    f = open_saved(folder, &arena);
    cr_expect_str_eq(json_string_value(json_object_get(mx_adapter_config(f), "peft_type")), "SECOND");
    cr_expect_eq(mx_adapter_read(f, TWO[0].name, 2, TWO[0].dim, a, &st), MX_OK, "%s", st.text);
    cr_expect_eq(mx_adapter_check_all_read(f, NULL), MX_E_DATA);
    cr_expect_eq(mx_adapter_read(f, TWO[1].name, 1, TWO[1].dim, m, &st), MX_OK, "%s", st.text);
    cr_expect_eq(mx_adapter_check_all_read(f, &st), MX_OK, "%s", st.text);
    cr_expect(memcmp(a, A, sizeof A) == 0 && memcmp(m, M, sizeof M) == 0);
    mx_adapter_close(f);
    made_folder_remove(top);
    mx_arena_finish(&arena);
}

Test(adapter_file, a_folder_with_anything_else_in_it_is_never_replaced) {
    const char *top = made_folder();
    json_t *config = json_object();
    mx_arena arena;
    mx_status st = { 0 };
    const char *note;

    mx_arena_init(&arena, 1 << 20);
    note = mx_arena_text(&arena, "%s/notes.txt", top);
    cr_assert_eq(mx_file_write(note, "mine", 4, &st), MX_OK);
    cr_expect_eq(mx_adapter_save(top, TWO, 2, config, &st), MX_E_IO);
    cr_expect_str_eq(st.text, mx_arena_text(&arena, "%s: holds 'notes.txt', which is no part of an adapter, so it "
                                            "is not replaced; save to a folder of its own", top));
    cr_expect(mx_file_exists(note));
    cr_expect_eq(names_in(top), 1);
    st = (mx_status){ 0 };
    cr_expect_eq(mx_adapter_save(note, TWO, 2, config, &st), MX_E_IO, "a file is in the way");
    cr_expect_str_eq(st.text, mx_arena_text(&arena, "%s: cannot hold an adapter: Not a directory", note));
    json_decref(config);
    made_folder_remove(top);
    mx_arena_finish(&arena);
}

Test(adapter_file, a_save_that_fails_leaves_the_earlier_adapter) {
    const char *top = made_folder();
    mx_arena arena;
    json_t *config = json_object();
    mx_status st = { 0 };
    const char *folder;
    mx_adapter_file *f;

    mx_arena_init(&arena, 1 << 20);
    folder = mx_arena_text(&arena, "%s/one", top);
    save(folder, 2, "FIRST");
    /* A file where the folder beside it must go. */
    cr_assert_eq(mx_file_write(mx_arena_text(&arena, "%s/two", top), "", 0, &st), MX_OK);
    cr_expect_eq(mx_adapter_save(mx_arena_text(&arena, "%s/two/three", top), TWO, 2, config, &st), MX_E_IO);
    f = open_saved(folder, &arena);
    cr_expect_str_eq(json_string_value(json_object_get(mx_adapter_config(f), "peft_type")), "FIRST");
    mx_adapter_close(f);
    json_decref(config);
    made_folder_remove(top);
    mx_arena_finish(&arena);
}

static void expect_missing(const char *folder, mx_arena *arena, const char *words) {
    mx_adapter_file *f;
    mx_status st = { 0 };

    cr_expect_eq(mx_adapter_open(folder, arena, &f, &st), MX_E_MISSING);
    cr_expect_str_eq(st.text, words);
    cr_expect_null(f);
}

Test(adapter_file, what_is_no_adapter_is_told_in_words) {
    const char *top = made_folder();
    mx_arena arena;
    mx_status st = { 0 };

    mx_arena_init(&arena, 1 << 20);
    expect_missing("/nowhere", &arena,
                   "there is no such folder; an adapter is a folder with adapter_config.json and "
                   "adapter_model.safetensors");
    expect_missing(top, &arena, "is no adapter: it has no adapter_config.json");
    cr_assert_eq(mx_file_write(mx_arena_text(&arena, "%s/adapter_config.json", top), "{}", 2, &st), MX_OK);
    expect_missing(top, &arena, "is no adapter: it has no adapter_model.safetensors");
    cr_assert_eq(mx_file_write(mx_arena_text(&arena, "%s/adapter_model.bin", top), "", 0, &st), MX_OK);
    expect_missing(top, &arena, "adapter_model.bin is a Python pickle and is not read; save the adapter as "
                                "adapter_model.safetensors");
    made_folder_remove(top);
    mx_arena_finish(&arena);
}

static mx_adapter_file *open_made(const char *top, mx_arena *arena, const char *header, size_t data) {
    made m = safetensors_made(header, data);
    mx_status st = { 0 };

    made_write(&m, mx_arena_text(arena, "%s/adapter_model.safetensors", top));
    made_finish(&m);
    cr_assert_eq(mx_file_write(mx_arena_text(arena, "%s/adapter_config.json", top), "{}", 2, &st), MX_OK);
    return open_saved(top, arena);
}

static void expect_unread(mx_adapter_file *f, const char *name, int rank, int64_t first, int64_t second,
                          const char *words) {
    float to[64];
    mx_status st = { 0 };

    cr_expect_eq(mx_adapter_read(f, name, rank, (int64_t[]){ first, second }, to, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, words);
    cr_expect_str_eq(st.at.file, mx_adapter_values_path(f));
}

Test(adapter_file, wrong_tensors_are_refused_with_words) {
    const char *top = made_folder();
    mx_arena arena;
    mx_adapter_file *f;
    mx_status st = { 0 };

    mx_arena_init(&arena, 1 << 20);
    f = open_made(top, &arena, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                  "\"i\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[24,32]}}", 32);
    expect_unread(f, "b", 1, 1, 0, "tensor 'b' is missing");
    expect_unread(f, "a", 2, 3, 2, "tensor 'a' is 2 x 3; this adapter's is 3 x 2");
    expect_unread(f, "a", 1, 6, 0, "tensor 'a' is 2 x 3; this adapter's is 6");
    expect_unread(f, "i", 1, 2, 0, "tensor 'i' is stored as I32; can be read: F32, F16, BF16");
    cr_expect_eq(mx_adapter_check_all_read(f, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "tensor 'a' has no place in this adapter");
    mx_adapter_close(f);
    made_folder_remove(top);
    mx_arena_finish(&arena);
}

Test(adapter_file, half_floats_are_widened_and_values_that_are_not_finite_refused) {
    const char *top = made_folder();
    mx_arena arena;
    mx_adapter_file *f;
    mx_status st = { 0 };
    made m = { 0 };
    float to[2];
    static const uint16_t BF16[2] = { 0x3f80, 0xc000 }, F16[2] = { 0x3c00, 0x7c00 };
    static const char HEADER[] = "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                                 "\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}";

    mx_arena_init(&arena, 1 << 20);
    made_u64(&m, strlen(HEADER));
    made_put(&m, HEADER, strlen(HEADER));
    made_put(&m, BF16, sizeof BF16);
    made_put(&m, F16, sizeof F16);
    made_write(&m, mx_arena_text(&arena, "%s/adapter_model.safetensors", top));
    made_finish(&m);
    cr_assert_eq(mx_file_write(mx_arena_text(&arena, "%s/adapter_config.json", top), "{}", 2, &st), MX_OK);
    f = open_saved(top, &arena);
    cr_expect_eq(mx_adapter_read(f, "b", 1, (int64_t[]){ 2 }, to, &st), MX_OK, "%s", st.text);
    cr_expect(to[0] == 1 && to[1] == -2);
    expect_unread(f, "h", 1, 2, 0, "tensor 'h' holds a value that is not finite, number 1");
    mx_adapter_close(f);
    made_folder_remove(top);
    mx_arena_finish(&arena);
}
