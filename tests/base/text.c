/* text.c - near words, and numbers in both directions. */
#include "base/text.h"

#include <criterion/criterion.h>
#include <string.h>

Test(text, suggests_only_what_is_near_enough) {
    static const char *const word[] = { "lora_r", "top_k", "seed", "lora_dropout", "learning_rate" };
    static const struct {
        const char *said, *meant;
    } slip[] = {
        { "topk", "top_k" },        { "sede", "seed" },  { "sd", NULL },           { "tpo_k", "top_k" },
        { "lora_dorpuot", "lora_dropout" },              { "LORA_R", "lora_r" },   { "leraning_rte", "learning_rate" },
        { "batch", NULL },          { "", NULL },        { "seedling", NULL },     { "lora_", "lora_r" },
    };

    for (size_t i = 0; i < sizeof slip / sizeof slip[0]; i++) {
        const char *near = mx_text_nearest(slip[i].said, word, sizeof word / sizeof word[0]);

        cr_assert(near == slip[i].meant || (near && slip[i].meant && strcmp(near, slip[i].meant) == 0), "%s: %s", slip[i].said,
                  near ? near : "none");
    }
    cr_assert_null(mx_text_nearest(
        "a_word_that_is_longer_than_any_slip_of_a_finger_could_ever_make_it_be_and_costly", word, 5));
}

Test(text, writes_numbers_as_people_read_them) {
    cr_assert_str_eq(mx_text_count(0), "0");
    cr_assert_str_eq(mx_text_count(999), "999");
    cr_assert_str_eq(mx_text_count(1234567), "1,234,567");
    cr_assert_str_eq(mx_text_count(INT64_MIN), "-9,223,372,036,854,775,808");
    cr_assert_str_eq(mx_text_bytes(1), "1 byte");
    cr_assert_str_eq(mx_text_bytes(512u << 20), "512 MiB");
    cr_assert_str_eq(mx_text_bytes(655u << 20), "0.64 GiB");
    cr_assert_str_eq(mx_text_bytes(1536), "1.5 KiB");
    cr_assert_str_eq(mx_text_seconds(70), "01:10");
    cr_assert_str_eq(mx_text_seconds(59.6), "01:00");
    cr_assert_str_eq(mx_text_seconds(7509), "2:05:09");
    cr_assert_str_eq(mx_text_seconds(-1), "--:--");
}

Test(text, reads_whole_decimal_numbers_and_nothing_else) {
    static const char *const real[] = { "1", "-1.5", "+2", ".5", "5.", "1e-4", "1E+3", "1e-400" };
    static const char *const not_real[] = { "", "-", ".", "e1", "1e", "0x10", "inf", "nan", "1 ", " 1", "1_0", "1,0", "1e999", "--1" };
    static const char *const not_whole[] = { "", "1.0", "1e3", "9223372036854775808", " 1", "1 ", "+", "0x1" };
    double d;
    int64_t n;

    for (size_t i = 0; i < sizeof real / sizeof real[0]; i++) {
        cr_assert(mx_text_to_double(real[i], &d), "%s", real[i]);
    }
    for (size_t i = 0; i < sizeof not_real / sizeof not_real[0]; i++) {
        cr_assert(!mx_text_to_double(not_real[i], &d), "%s", not_real[i]);
    }
    for (size_t i = 0; i < sizeof not_whole / sizeof not_whole[0]; i++) {
        cr_assert(!mx_text_to_int64(not_whole[i], &n), "%s", not_whole[i]);
    }
    cr_assert(mx_text_to_int64("-9223372036854775808", &n) && n == INT64_MIN);
    cr_assert(mx_text_to_int64("+12", &n) && n == 12);
}

Test(text, grows) {
    mx_text t;

    mx_text_init(&t, 100000);
    for (int i = 0; i < 10000; i++) {
        mx_text_print(&t, "%d,", i % 10);
    }
    cr_assert_eq(t.length, 20000);
    cr_assert_eq(strlen(t.data), 20000);
    mx_text_finish(&t);
    mx_text_finish(&t);
}
