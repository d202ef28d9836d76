/* Drawings: round ticks, nothing outside, everything escaped, and the numbers beside the picture. */
#include "reports/chart.h"

#include "tests/support/well_formed.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

Test(chart, ticks_are_round_inside_and_few) {
    static const double low[] = { 0, -1, 12.3, 1e-9, -2e6, 0.0, 99.99, 1e12, -1e-3, 41.25 };
    static const double high[] = { 1, 1, 12.4, 2e-9, 3e6, 137, 100.01, 1e12 + 7, 1e-3, 64.9 };

    for (size_t i = 0; i < sizeof low / sizeof low[0]; i++) {
        for (int most = 2; most <= 12; most++) {
            double tick[MX_TICKS_MAX], step;
            int decimals, n = mx_chart_ticks(low[i], high[i], most, tick, &decimals);

            cr_assert(n <= most, "%g to %g: %d ticks, at most %d were asked for", low[i], high[i], n, most);
            cr_assert(n >= (most >= 4 ? 2 : 0), "%g to %g: only %d of %d ticks", low[i], high[i], n, most);
            for (int k = 0; k < n; k++) {
                double shown;
                char text[64];

                cr_assert(tick[k] >= low[i] - 1e-5 * (high[i] - low[i]) && tick[k] <= high[i] + 1e-5 * (high[i] - low[i]), "%g to %g has a tick at %g",
                          low[i], high[i], tick[k]);
                snprintf(text, sizeof text, "%.*f", decimals, tick[k]);
                shown = strtod(text, NULL);
                cr_assert(fabs(shown - tick[k]) <= 1e-12 * fmax(1, fabs(tick[k])), "%.17g is not told by %d decimals", tick[k], decimals);
            }
            for (int k = 2; k < n; k++) {
                step = tick[1] - tick[0];
                cr_assert(fabs(tick[k] - tick[k - 1] - step) < 1e-6 * step, "%g to %g: steps differ", low[i], high[i]);
            }
            if (n > 1) { /* the first digit of the step is 1, 2 or 5 */
                char digits[32];

                snprintf(digits, sizeof digits, "%.3e", tick[1] - tick[0]);
                cr_assert(strncmp(digits, "1.000", 5) == 0 || strncmp(digits, "2.000", 5) == 0 || strncmp(digits, "5.000", 5) == 0, "a step of %s", digits);
            }
        }
    }
}

/* Every point behind `before`, written by `format`, lies in the drawing. (Not by strstr and sscanf on the drawing itself: the
 * sanitizers have them measure all the rest of it each time.) */
static void check_points(const char *svg, const char *before, const char *format, double wide, double tall) {
    const char *end = svg + strlen(svg);

    for (const char *c = svg; (c = memmem(c, (size_t)(end - c), before, strlen(before))); c++) {
        char words[80];
        double x, y;

        snprintf(words, sizeof words, "%.79s", c);
        cr_assert(sscanf(words, format, &x, &y) == 2, "%s", words);
        cr_assert(x >= 0 && x <= wide && y >= 0 && y <= tall, "(%g, %g) is not in %g by %g: %s", x, y, wide, tall, words);
    }
}

/* Every coordinate of text, cells and paths lies in the drawing. */
static void check_inside(const char *svg) {
    double wide, tall;
    const char *box = strstr(svg, "viewBox=\"");

    cr_assert(box && sscanf(box, "viewBox=\"0 0 %lf %lf\"", &wide, &tall) == 2);
    check_points(svg, " x=\"", " x=\"%lf\" y=\"%lf\"", wide, tall);
    check_points(svg, " d=\"M", " d=\"M%lf %lf", wide, tall);
}

static void check(const mx_text *svg, const char *const *says, size_t count) {
    char why[256];

    cr_assert(well_formed(svg->data, why), "%s", why);
    cr_assert(!strstr(svg->data, "nan") && !strstr(svg->data, "inf\""), "a number that is none was written");
    cr_assert(strstr(svg->data, "role=\"img\"") && strstr(svg->data, "<title id=\"x-t\">") && strstr(svg->data, "<desc id=\"x-d\">"));
    for (size_t i = 0; i < count; i++) {
        cr_assert(strstr(svg->data, says[i]), "the drawing lacks %s", says[i]);
    }
    check_inside(svg->data);
}

#define CHECK(svg, ...)                                                     \
    do {                                                                    \
        static const char *const says[] = { __VA_ARGS__ };                  \
        check(&(svg), says, sizeof says / sizeof says[0]);                  \
    } while (0)

Test(chart, lines_break_where_there_is_no_number_and_names_are_escaped) {
    static const double x[] = { 0, 10, 20, 30 }, y[] = { 2.5, 1.25, NAN, 0.75 }, faint[] = { 2.4, 1.2, 1, 0.7 };
    mx_line line[] = { { .name = "<b>&\"", .style = 0, .n = 4, .x = x, .y = y }, { .name = "one seed", .style = 0, .faint = true, .n = 4, .x = x, .y = faint } };
    mx_line_panel panel[] = { { "a < b", line, 2, 0.5 }, { "two", line, 1, NAN }, { "three", line, 2, NAN } };
    mx_text svg;

    for (int panels = 1; panels <= 3; panels++) {
        mx_text_init(&svg, 1 << 20);
        mx_chart_lines(&(mx_line_chart){ .chart = { "x", "T & <t>", "D" }, .x_label = "step", .y_label = "loss, \"nats\"", .panel = panel, .panels = panels,
                                         .whole_x = true, .markers = true, .reference = "majority" },
                       &svg);
        CHECK(svg, "data-series=\"&lt;b&gt;&amp;&quot;\"", "data-y=\"2.5 1.25 - 0.75\"", "data-x=\"0 10 20 30\"", "data-level=\"0.5\"", "T &amp; &lt;t&gt;",
              ">step</text>", "loss, &quot;nats&quot;", "a &lt; b", ">majority</text>", "class=\"l faint s0 d0\"");
        cr_assert(!strstr(svg.data, "class=\"key\">one seed"), "a faint line has no key of its own");
        mx_text_finish(&svg);
    }
}

Test(chart, intervals_keep_their_numbers_and_their_groups) {
    static const double dots[] = { 50, 52.5, 55 };
    mx_interval_row row[] = { { "arc <easy>", "lora", 0, 52.5, 49, 56, dots, 3, 27.7, "52.5 [49.0, 56.0]" },
                              { "arc <easy>", "a name that is as long as such names become when words are many", 1, 50, NAN, NAN, NULL, 0, NAN, "50.0" },
                              { "mean", "lora", 0, 51, 48, 54, dots, 3, 27, "51.0" } };
    mx_text svg;

    mx_text_init(&svg, 1 << 20);
    mx_chart_intervals(&(mx_interval_chart){ .chart = { "x", "T", "D" }, .x_label = "accuracy, %", .text_label = "accuracy", .reference = "majority", .row = row,
                                             .rows = 3, .line = 50, .left = "worse", .right = "better" },
                       &svg);
    CHECK(svg, "data-group=\"arc &lt;easy&gt;\" data-series=\"lora\" data-v=\"52.5\" data-low=\"49\" data-high=\"56\" data-dots=\"50 52.5 55\"",
          "data-v=\"50\" data-dots=\"\"", ">accuracy, %</text>", ">one seed</text>", ">majority</text>", ">worse</text>", ">52.5 [49.0, 56.0]</text>");
    mx_text_finish(&svg);
}

Test(chart, points_stand_on_a_logarithmic_axis_only_where_it_helps) {
    mx_point far[] = { { "a", 0, 4884480, 50, 48, 52 }, { "b", 1, 26311680, 53, 50, 56 } }, near[] = { { "a", 0, 100, 50, NAN, NAN }, { "b", 1, 110, 53, NAN, NAN } };
    mx_text svg;

    mx_text_init(&svg, 1 << 20);
    mx_chart_points(&(mx_point_chart){ .chart = { "x", "T", "D" }, .x_label = "trained values", .y_label = "accuracy, %", .point = far, .points = 2, .log_x = true }, &svg);
    CHECK(svg, "data-series=\"a\" data-x=\"4884480\" data-v=\"50\" data-low=\"48\" data-high=\"52\"", ">5 M</text>", ">10 M</text>", ">20 M</text>");
    mx_text_finish(&svg);
    mx_text_init(&svg, 1 << 20);
    mx_chart_points(&(mx_point_chart){ .chart = { "x", "T", "D" }, .x_label = "tokens/s", .y_label = "", .point = near, .points = 2, .log_x = true }, &svg);
    CHECK(svg, ">100</text>", ">110</text>", "data-x=\"110\" data-v=\"53\">");
    mx_text_finish(&svg);
}

Test(chart, heat_maps_shade_by_value_and_have_a_bar_with_numbers) {
    static const double value[] = { 0, 12.5, 50, 100, NAN, 25 };
    mx_heat_panel panel[] = { { .title = "arc", .row_word = "layer", .column_word = "expert", .rows = 2, .columns = 3, .value = value },
                              { .title = "obqa", .row_word = "layer", .column_word = "expert", .rows = 3, .columns = 2, .value = value } };
    mx_text svg;
    int cells = 0;

    mx_text_init(&svg, 1 << 20);
    mx_chart_heat(&(mx_heat_chart){ .chart = { "x", "T", "D" }, .label = "share, %", .low = 0, .high = 100, .mark = 12.5, .mark_word = "even: 12.5 %", .panel = panel, .panels = 2 },
                  &svg);
    CHECK(svg, "data-row=\"0\" data-v=\"0 12.5 50\"", "data-row=\"1\" data-v=\"100 - 25\"", "<rect class=\"h0\"", "<rect class=\"h23\"",
          "layer 1, expert 2: 25</title>", ">share, %</text>", ">even: 12.5 %</text>", ">100</text>");
    for (const char *c = svg.data; (c = strstr(c, "</title></rect>")); c++) {
        cells++;
    }
    cr_assert_eq(cells, 10, "12 values, 2 of them blank, make 10 cells, not %d", cells);
    mx_text_finish(&svg);
}

Test(chart, many_panels_and_large_matrices_stay_inside) {
    static double value[64 * 128];
    mx_heat_panel panel[7];
    mx_text svg;

    for (int i = 0; i < 64 * 128; i++) {
        value[i] = i % 97;
    }
    for (int p = 0; p < 7; p++) {
        panel[p] = (mx_heat_panel){ .title = "a task of some length", .row_word = "layer", .column_word = "expert", .rows = 64, .columns = p % 2 ? 128 : 8, .value = value };
    }
    mx_text_init(&svg, 64 << 20);
    mx_chart_heat(&(mx_heat_chart){ .chart = { "x", "T", "D" }, .label = "share", .low = 0, .high = 96, .mark = NAN, .mark_word = "", .panel = panel, .panels = 7 }, &svg);
    CHECK(svg, ">120</text>");
    mx_text_finish(&svg);
}

Test(chart, shades_of_both_modes_have_monotone_lightness) {
    mx_text css;
    const char *dark;
    double last[2] = { 0 };

    mx_text_init(&css, 1 << 20);
    mx_chart_style(&css);
    dark = strstr(css.data, "prefers-color-scheme:dark");
    cr_assert(dark);
    for (int mode = 0; mode < 2; mode++) {
        const char *c = mode ? dark : css.data;

        for (int i = 0; i < 24; i++) {
            unsigned r, g, b;
            char rule[16];
            double light;

            snprintf(rule, sizeof rule, ".h%d{fill:#", i);
            c = strstr(c, rule);
            cr_assert(c && sscanf(c + strlen(rule), "%2x%2x%2x", &r, &g, &b) == 3, "no %s in mode %d", rule, mode);
            light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
            cr_assert(i == 0 || (mode ? light > last[mode] : light < last[mode]), "shade %d of mode %d is not between its neighbours", i, mode);
            last[mode] = light;
        }
    }
    mx_text_finish(&css);
}
