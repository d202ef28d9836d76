/* safetensors.c - the format's rules on made files, the samples of its own authors, and what we write. */
#include "model/safetensors.h"

#include "tests/support/made_file.h"

#include <criterion/criterion.h>

/* Parsed from memory of exactly its size, so that AddressSanitizer sees the first byte past it. */
static mx_code parse(const made *m, size_t size, mx_safetensors **ret, uint8_t **ret_copy, mx_status *st) {
    uint8_t *copy = malloc(size ? size : 1);

    if (size) {
        memcpy(copy, m->bytes, size);
    }
    *ret_copy = copy;
    *st = (mx_status){ 0 };
    return mx_safetensors_parse(copy, size, "made.safetensors", ret, st);
}

static const char GOOD[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                           "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
                           "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[8,8]}}  ";

Test(safetensors, a_good_file_is_read_by_name_and_by_offset) {
    made m = safetensors_made(GOOD, 20);
    uint8_t *copy;
    mx_safetensors *s;
    mx_status st;
    const mx_safetensor *t;

    cr_assert_eq(parse(&m, m.size, &s, &copy, &st), MX_OK, "%s", st.text);
    cr_expect_eq(mx_safetensors_count(s), 3);
    cr_expect_str_eq(mx_safetensors_at(s, 0)->name, "a");
    cr_expect_str_eq(mx_safetensors_at(s, 2)->name, "b");
    t = mx_safetensors_find(s, "b");
    cr_assert_not_null(t);
    cr_expect(t->type == MX_FILE_BF16 && t->rank == 2 && t->dim[0] == 2 && t->dim[1] == 3 && t->size == 12);
    cr_expect_eq(((const uint8_t *)t->bytes)[0], 8);
    t = mx_safetensors_find(s, "a");
    cr_expect(t && t->type == MX_FILE_TYPES && t->rank == 0 && t->size == 8);
    cr_expect_str_eq(t->dtype, "I64");
    cr_expect_null(mx_safetensors_find(s, "c"));
    cr_expect_str_eq(mx_safetensors_metadata(s, "format"), "pt");
    cr_expect_null(mx_safetensors_metadata(s, "other"));
    mx_safetensors_close(s);
    free(copy);
    made_finish(&m);
}

Test(safetensors, every_truncation_is_refused) {
    made m = safetensors_made(GOOD, 20);

    for (size_t size = 0; size < m.size; size++) {
        uint8_t *copy;
        mx_safetensors *s;
        mx_status st;

        cr_expect_eq(parse(&m, size, &s, &copy, &st), MX_E_DATA, "%zu of %zu bytes were taken for whole", size, m.size);
        free(copy);
    }
    made_finish(&m);
}

#define T(shape, dtype, from, to) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

Test(safetensors, hostile_headers_are_refused_with_words) {
    static const struct {
        const char *header;
        size_t data;
        const char *words;
    } CASES[] = {
        { "[]", 0, "is not a safetensors file: its header does not begin with '{'" },
        { "{\"a\":}", 0, "the header is broken at byte 13: not JSON: unexpected token near '}'" },
        { "{\"a\":1}", 0, "tensor 'a' has no dtype" },
        { "{\"__metadata__\":1}", 0, "\"__metadata__\" is not a map" },
        { "{\"__metadata__\":{\"k\":1}}", 0, "\"__metadata__\" has a value that is not a text" },
        { "{\"a\":" T("[1]", "F5", "0", "4") "}", 4, "tensor 'a' is of the unknown type 'F5'" },
        { "{\"a\":" T("1", "F32", "0", "4") "}", 4, "tensor 'a' has no shape of at most 8 dimensions" },
        { "{\"a\":" T("[1,1,1,1,1,1,1,1,1]", "F32", "0", "4") "}", 4,
          "tensor 'a' has no shape of at most 8 dimensions" },
        { "{\"a\":" T("[-1]", "F32", "0", "4") "}", 4, "tensor 'a' has a dimension that is no size" },
        { "{\"a\":" T("[1.0]", "F32", "0", "4") "}", 4, "tensor 'a' has a dimension that is no size" },
        { "{\"a\":" T("[4294967296,4294967296]", "F32", "0", "4") "}", 4,
          "tensor 'a' has more values than a file can hold" },
        { "{\"a\":" T("[1]", "F32", "-4", "0") "}", 4, "tensor 'a' has no \"data_offsets\": [begin, end]" },
        { "{\"a\":" T("[1]", "F32", "4", "0") "}", 4, "tensor 'a' has no \"data_offsets\": [begin, end]" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4,
          "tensor 'a' has no \"data_offsets\": [begin, end]" },
        { "{\"a\":" T("[2]", "F32", "0", "8") "}", 4,
          "tensor 'a' ends at byte 70, the file has 66: is the download complete?" },
        { "{\"a\":" T("[2]", "F32", "0", "9223372036854775807") "}", 4,
          "tensor 'a' ends at byte 9,223,372,036,854,775,807, the file has 84: is the download complete?" },
        { "{\"a\":" T("[2]", "F16", "0", "8") "}", 8, "tensor 'a' takes 8 bytes, its shape and type 4" },
        { "{\"a\":" T("[2]", "F32", "0", "8") ",\"b\":" T("[2]", "F32", "4", "12") "}", 12,
          "tensors 'a' and 'b' overlap" },
        { "{\"a\":" T("[1]", "F32", "0", "4") ",\"b\":" T("[1]", "F32", "8", "12") "}", 12,
          "4 bytes before tensor 'b' belong to none" },
        { "{\"a\":" T("[1]", "F32", "0", "4") "}", 7, "3 bytes at the end belong to no tensor" },
        { "{\"a\":" T("[1]", "F32", "0", "4") ",\"a\":" T("[1]", "F32", "0", "4") "}", 4,
          "the header is broken at byte 62: not JSON: duplicate object key near '\"a\"'" },
    };

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        made m = safetensors_made(CASES[i].header, CASES[i].data);
        uint8_t *copy;
        mx_safetensors *s;
        mx_status st;

        cr_expect_eq(parse(&m, m.size, &s, &copy, &st), MX_E_DATA, "not refused: %s", CASES[i].header);
        cr_expect_str_eq(st.text, CASES[i].words);
        cr_expect_str_eq(st.at.file ? st.at.file : "", "made.safetensors");
        mx_safetensors_close(s);
        free(copy);
        made_finish(&m);
    }
}

Test(safetensors, a_header_longer_than_the_file_or_the_format_allows_is_refused) {
    static const struct {
        uint64_t length;
        const char *words;
    } CASES[] = {
        { UINT64_MAX, "is not a safetensors file: its header would be longer than 100,000,000 bytes" },
        { 100000001, "is not a safetensors file: its header would be longer than 100,000,000 bytes" },
        { 3, "the header ends at byte 11, the file has 10: is the download complete?" },
        { 0, "is not a safetensors file: its header does not begin with '{'" },
    };

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        made m = { 0 };
        uint8_t *copy;
        mx_safetensors *s;
        mx_status st;

        made_u64(&m, CASES[i].length);
        made_put(&m, "{}", 2);
        cr_expect_eq(parse(&m, m.size, &s, &copy, &st), MX_E_DATA);
        cr_expect_str_eq(st.text, CASES[i].words);
        free(copy);
        made_finish(&m);
    }
}

Test(safetensors, the_authors_samples_are_read) {
    const char *folder = getenv("MIXRUN_TEST_MODELS");
    static const char *const DTYPES[] = { "U8", "U16", "U32", "I8", "F64", "F16", "F32", "I16", "I32" };
    static const char NAMES[] = "BHIbdefhi";
    char path[4096];
    mx_safetensors *s;
    mx_status st = { 0 };

    snprintf(path, sizeof path, "%s/safetensors-samples/overall.safetensors", folder ? folder : "");
    if (!folder || !mx_file_exists(path)) {
        cr_skip_test("MIXRUN_TEST_MODELS has no safetensors-samples");
    }
    cr_assert_eq(mx_safetensors_open(path, &s, &st), MX_OK, "%s", st.text);
    cr_expect_eq(mx_safetensors_count(s), sizeof NAMES - 1);
    cr_expect_str_eq(mx_safetensors_metadata(s, "test"), "a");
    for (size_t i = 0; i < sizeof NAMES - 1; i++) {
        const char name[2] = { NAMES[i], 0 };
        const mx_safetensor *t = mx_safetensors_find(s, name);
        mx_safetensors *alone;

        cr_assert_not_null(t, "%s", name);
        cr_expect(t->rank == 1 && t->dim[0] == 6);
        cr_expect_str_eq(t->dtype, DTYPES[i]);
        snprintf(path, sizeof path, "%s/safetensors-samples/%s.safetensors", folder, name);
        cr_assert_eq(mx_safetensors_open(path, &alone, &st), MX_OK, "%s: %s", path, st.text);
        cr_expect(mx_safetensors_count(alone) == 1 && mx_safetensors_at(alone, 0)->size == t->size &&
                  memcmp(mx_safetensors_at(alone, 0)->bytes, t->bytes, t->size) == 0, "%s differs", name);
        mx_safetensors_close(alone);
    }
    mx_safetensors_close(s);
}

Test(safetensors, what_is_written_is_read_back_to_the_bit) {
    static const float A[6] = { 1, -0.0f, 3e38f, 1e-45f, 5, 6 }, B[1] = { 7 };
    static const mx_named_values VALUES[] = {
        { .name = "z.weight", .rank = 2, .dim = { 2, 3 }, .data = A },
        { .name = "a", .rank = 1, .dim = { 1 }, .data = B },
        { .name = "none", .rank = 1, .dim = { 0 }, .data = NULL },
    };
    const char *folder = made_folder();
    char path[256];
    mx_safetensors *s;
    mx_status st = { 0 };
    mx_map map;
    json_t *metadata = json_pack("{s:s}", "step", "12");

    snprintf(path, sizeof path, "%s/x.safetensors", folder);
    /* Written twice: the second replaces the first. */
    cr_assert_eq(mx_safetensors_write(path, VALUES, 1, NULL, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_safetensors_open(path, &s, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(mx_safetensors_metadata(s, "format"), "pt");
    mx_safetensors_close(s);
    cr_assert_eq(mx_safetensors_write(path, VALUES, 3, metadata, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_safetensors_open(path, &s, &st), MX_OK, "%s", st.text);
    cr_expect_eq(mx_safetensors_count(s), 3);
    cr_expect_str_eq(mx_safetensors_metadata(s, "step"), "12");
    cr_expect_eq(memcmp(mx_safetensors_find(s, "z.weight")->bytes, A, sizeof A), 0);
    cr_expect_eq(memcmp(mx_safetensors_find(s, "a")->bytes, B, sizeof B), 0);
    mx_safetensors_close(s);
    cr_assert_eq(mx_map_open(path, &map, &st), MX_OK);
    cr_expect_eq((map.size - sizeof A - sizeof B) % 8, 0, "tensors begin at a multiple of 8");
    mx_map_close(&map);
    json_decref(metadata);
    made_folder_remove(folder);
}

Test(safetensors, a_folder_that_is_not_there_is_told) {
    mx_status st = { 0 };

    cr_expect_eq(mx_safetensors_write("/nowhere/x.safetensors", NULL, 0, NULL, &st), MX_E_IO);
    cr_expect_str_eq(st.text, "cannot be written: No such file or directory");
    cr_expect_str_eq(st.at.file, "/nowhere/x.safetensors");
}
