/* One table, every way it can be written. */
#include "reports/table.h"

#include <criterion/criterion.h>

static mx_text written(mx_format format) {
    mx_table t;
    mx_text out;

    mx_table_init(&t, 3);
    t.right[1] = t.right[2] = true;
    mx_table_cell(&t, "name");
    mx_table_cell(&t, "n");
    mx_table_cell(&t, "score");
    mx_table_cell(&t, "a|b <c> \"d\", 5%%_&");
    mx_table_cell(&t, "007");
    mx_table_cell(&t, "-1.5 ± 2");
    mx_table_cell(&t, "two\nlines");
    mx_table_cell(&t, "12");
    mx_table_cell(&t, "%s", "");
    mx_text_init(&out, 1 << 16);
    mx_table_write(&t, format, &out);
    mx_table_finish(&t);
    return out;
}

Test(format, every_format_escapes_its_own_characters) {
    static const struct {
        mx_format format;
        const char *text;
    } expected[] = {
        { MX_FORMAT_JSON, "[\n{\"name\": \"a|b <c> \\\"d\\\", 5%_&\", \"n\": \"007\", \"score\": \"-1.5 ± 2\"},\n"
                          "{\"name\": \"two\\nlines\", \"n\": 12, \"score\": null}\n]\n" },
        { MX_FORMAT_CSV, "name,n,score\r\n\"a|b <c> \"\"d\"\", 5%_&\",007,-1.5 ± 2\r\n\"two\nlines\",12,\r\n" },
        { MX_FORMAT_MARKDOWN, "| name | n | score |\n|---|---:|---:|\n| a\\|b \\<c> \"d\", 5%\\_& | 007 | -1.5 ± 2 |\n"
                              "| two<br>lines | 12 |  |\n" },
        { MX_FORMAT_LATEX, "% needs \\usepackage{booktabs}\n\\begin{tabular}{lrr}\n\\toprule\nname & n & score \\\\\n\\midrule\n"
                           "a$|$b $<$c$>$ \"d\", 5\\%\\_\\& & 007 & $-$1.5 $\\pm$ 2 \\\\\ntwo\nlines & 12 &  \\\\\n"
                           "\\bottomrule\n\\end{tabular}\n" },
        { MX_FORMAT_HTML, "<table>\n<thead><tr><th>name</th><th class=\"n\">n</th><th class=\"n\">score</th></tr></thead>\n"
                          "<tbody><tr><td>a|b &lt;c&gt; &quot;d&quot;, 5%_&amp;</td><td class=\"n\">007</td><td class=\"n\">-1.5 ± 2</td></tr>\n"
                          "<tr><td>two\nlines</td><td class=\"n\">12</td><td class=\"n\"></td></tr>\n</tbody></table>\n" },
    };

    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        mx_text out = written(expected[i].format);

        cr_assert_str_eq(out.data, expected[i].text);
        mx_text_finish(&out);
    }
}

Test(format, what_only_looks_like_markup_is_left_alone) {
    static const struct {
        void (*escape)(mx_text *out, const char *text);
        const char *text, *escaped;
    } cases[] = {
        { mx_latex_escape, "mixlora top-2", "mixlora top-2" },
        { mx_latex_escape, "2026-11-22", "2026-11-22" },
        { mx_latex_escape, "[-1.5, +2.0] -3", "[$-$1.5, $+$2.0] $-$3" },
        { mx_markdown_escape, "arc_easy [1, 2]", "arc_easy [1, 2]" },
        { mx_markdown_escape, "_a_ *b* [c](d) <img>", "\\_a\\_ \\*b\\* \\[c](d) \\<img>" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mx_text out;

        mx_text_init(&out, 4096);
        cases[i].escape(&out, cases[i].text);
        cr_assert_str_eq(out.data, cases[i].escaped);
        mx_text_finish(&out);
    }
}

Test(format, words_are_known_or_refused) {
    mx_format f;
    mx_status st = { 0 };

    cr_assert(mx_format_find(NULL, &f, &st) == MX_OK && f == MX_FORMAT_TABLE);
    cr_assert(mx_format_find("latex", &f, &st) == MX_OK && f == MX_FORMAT_LATEX);
    cr_assert_eq(mx_format_find("marcdown", &f, &st), MX_E_USAGE);
    cr_assert_str_eq(st.hint, "did you mean 'markdown'?");
}
