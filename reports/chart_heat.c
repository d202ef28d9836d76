/* chart_heat.c - matrices as coloured cells, with a colour bar that has numbers; see chart.h. */
#include "reports/chart_draw.h"

#include "reports/table.h"

#include <math.h>
#include <stdio.h>

typedef struct cells {
    double wide, tall, label; /* of one cell; the room of the row labels */
} cells;

static const char *label_of(const char *const *labels, int i) {
    static char ring[4][16];
    static int turn;
    char *text = ring[turn++ & 3];

    if (labels) {
        return labels[i];
    }
    snprintf(text, 16, "%d", i);
    return text;
}

static cells size_of(const mx_heat_panel *p) {
    cells s = { .wide = fmin(22, fmax(5, 230.0 / p->columns)), .tall = fmin(18, fmax(7, 400.0 / p->rows)) };

    for (int r = 0; r < p->rows; r++) {
        s.label = fmax(s.label, mx_draw_width(label_of(p->row, r)));
    }
    s.label += 28; /* the word beside it, read upwards */
    return s;
}

static int shade_of(const mx_heat_chart *c, double value) {
    double part = (value - c->low) / (c->high - c->low);
    int shade = (int)(part * MX_CHART_SHADES);

    return shade < 0 ? 0 : shade >= MX_CHART_SHADES ? MX_CHART_SHADES - 1 : shade;
}

/* Only as many labels as there is room for, at even distances. */
static int every(double pitch, double needed) {
    static const int steps[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 };

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (steps[i] * pitch >= needed) {
            return steps[i];
        }
    }
    return 1000;
}

static void draw_panel(const mx_heat_chart *c, const mx_heat_panel *p, cells s, double x, double y, mx_text *out) {
    double widest = 0;
    int step;

    mx_draw_text(out, x, y - 8, 's', "head", p->title);
    mx_text_print(out, "<g data-panel=\"");
    mx_html_escape(out, p->title);
    mx_text_print(out, "\">\n");
    for (int r = 0; r < p->rows; r++) {
        mx_text_print(out, "<g data-row=\"");
        mx_html_escape(out, label_of(p->row, r));
        mx_text_print(out, "\" data-v=\"");
        for (int k = 0; k < p->columns; k++) {
            double v = p->value[r * p->columns + k];

            mx_text_print(out, isfinite(v) ? "%s%.6g" : "%s-", k ? " " : "", v);
        }
        mx_text_print(out, "\">");
        for (int k = 0; k < p->columns; k++) {
            double v = p->value[r * p->columns + k];

            if (!isfinite(v)) {
                continue;
            }
            mx_text_print(out, "<rect class=\"h%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s ", shade_of(c, v),
                          x + k * s.wide, y + r * s.tall, s.wide - 0.6, s.tall - 0.6, p->row_word);
            mx_html_escape(out, label_of(p->row, r));
            mx_text_print(out, ", %s ", p->column_word);
            mx_html_escape(out, label_of(p->column, k));
            mx_text_print(out, ": %.3g</title></rect>", v);
        }
        mx_text_print(out, "</g>\n");
    }
    mx_text_print(out, "</g>\n");
    step = every(s.tall, 13);
    for (int r = 0; r < p->rows; r += step) {
        mx_draw_text(out, x - 5, y + (r + 0.5) * s.tall + 4, 'e', "tick", label_of(p->row, r));
    }
    for (int k = 0; k < p->columns; k++) {
        widest = fmax(widest, mx_draw_width(label_of(p->column, k)));
    }
    step = every(s.wide, widest + 5);
    for (int k = 0; k < p->columns; k += step) {
        mx_draw_text(out, x + (k + 0.5) * s.wide, y + p->rows * s.tall + 14, 'm', "tick", label_of(p->column, k));
    }
    mx_draw_text(out, x + p->columns * s.wide / 2, y + p->rows * s.tall + 30, 'm', "label", p->column_word);
    mx_draw_text_up(out, x - s.label + 10, y + p->rows * s.tall / 2, p->row_word);
}

static void draw_bar(const mx_heat_chart *c, double x, double y, mx_text *out) {
    enum { LONG = 288 };
    mx_scale s = { .low = c->low, .high = c->high, .from = x, .to = x + LONG };

    s.ticks = mx_chart_ticks(c->low, c->high, 6, s.tick, &s.decimals);
    mx_draw_text(out, x, y - 6, 's', "label", c->label);
    for (int i = 0; i < MX_CHART_SHADES; i++) {
        mx_text_print(out, "<rect class=\"h%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"12\"/>", i, x + i * (double)LONG / MX_CHART_SHADES, y,
                      (double)LONG / MX_CHART_SHADES + 0.3);
    }
    mx_text_print(out, "\n");
    for (int i = 0; i < s.ticks; i++) {
        mx_text_print(out, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>\n", mx_scale_at(&s, s.tick[i]), y + 12);
        mx_draw_text(out, mx_scale_at(&s, s.tick[i]), y + 28, 'm', "tick", mx_scale_label(&s, i));
    }
    if (isfinite(c->mark) && c->mark >= c->low && c->mark <= c->high) {
        double at = mx_scale_at(&s, c->mark);

        mx_text_print(out, "<path class=\"mark\" d=\"M%.1f %.1fv18\"/>\n", at, y - 3);
        mx_text_print(out, "<path class=\"mark\" d=\"M%.1f %.1fv12\"/>\n", x + LONG + 26, y);
        mx_draw_text(out, x + LONG + 34, y + 10, 's', "key", c->mark_word);
    }
}

/* Panels from left to right, wrapped; below them the colour bar. */
void mx_chart_heat(const mx_heat_chart *c, mx_text *out) {
    double x = 0, y = 26, tallest = 0, width = MX_CHART_WIDTH;
    mx_text body = { 0 };

    mx_text_init(&body, (size_t)256 << 20);
    for (int p = 0; p < c->panels; p++) {
        cells s = size_of(&c->panel[p]);
        double wide = fmax(c->panel[p].columns * s.wide, mx_draw_width(c->panel[p].title)) + s.label + 18;

        if (x > 0 && x + wide > width + 18) {
            x = 0;
            y += tallest + 70;
            tallest = 0;
        }
        draw_panel(c, &c->panel[p], s, x + s.label, y, &body);
        tallest = fmax(tallest, c->panel[p].rows * s.tall);
        x += wide;
    }
    draw_bar(c, 28, y + tallest + 64, &body);
    mx_draw_open(&c->chart, width, y + tallest + 64 + 36, out);
    mx_text_add(out, body.data, body.length);
    mx_draw_close(out);
    mx_text_finish(&body);
}
