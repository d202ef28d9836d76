/* chart_lines.c - lines over steps or layers, in one panel or several; see chart.h. */
#include "reports/chart_draw.h"

#include "reports/table.h"

#include <math.h>
#include <string.h>

enum { PANEL_HEIGHT = 230, KEYS_MAX = 256 };

static void extents(const mx_line_panel *p, double *xl, double *xh, double *yl, double *yh) {
    for (int i = 0; i < p->lines; i++) {
        for (int64_t k = 0; k < p->line[i].n; k++) {
            if (isfinite(p->line[i].y[k])) {
                mx_extent(xl, xh, p->line[i].x[k]);
                mx_extent(yl, yh, p->line[i].y[k]);
            }
        }
    }
    mx_extent(yl, yh, p->reference);
}

/* The path, and its numbers beside it. */
static void draw_line(const mx_line *l, const mx_scale *x, const mx_scale *y, bool markers, mx_text *out) {
    bool pen_down = false;

    mx_text_print(out, "<path class=\"l%s s%d d%d\" data-series=\"", l->faint ? " faint" : "", l->style % MX_CHART_COLOURS, l->style % 4);
    mx_html_escape(out, l->name);
    mx_text_print(out, "\" data-x=\"");
    for (int64_t k = 0; k < l->n; k++) {
        mx_text_print(out, "%s%.9g", k ? " " : "", l->x[k]);
    }
    mx_text_print(out, "\" data-y=\"");
    for (int64_t k = 0; k < l->n; k++) {
        mx_text_print(out, isfinite(l->y[k]) ? "%s%.9g" : "%s-", k ? " " : "", l->y[k]);
    }
    mx_text_print(out, "\" d=\"");
    for (int64_t k = 0; k < l->n; k++) {
        if (isfinite(l->y[k])) {
            mx_text_print(out, "%c%.1f %.1f", pen_down ? 'L' : 'M', mx_scale_at(x, l->x[k]), mx_scale_at(y, l->y[k]));
        }
        pen_down = isfinite(l->y[k]);
    }
    mx_text_print(out, "\"/>\n");
    for (int64_t k = 0; k < l->n && markers && !l->faint; k++) {
        if (isfinite(l->y[k])) {
            mx_draw_marker(out, l->style, mx_scale_at(x, l->x[k]), mx_scale_at(y, l->y[k]), 3.6);
        }
    }
}

static void draw_panel(const mx_line_chart *c, const mx_line_panel *p, mx_scale x, mx_scale y, bool first_column, mx_text *out) {
    double left = x.from, right = x.to, top = y.to, bottom = y.from;

    if (*p->title) {
        mx_draw_text(out, left, top - 9, 's', "head", p->title);
    }
    mx_draw_axis_x(out, &x, top, bottom, c->x_label);
    mx_draw_axis_y(out, &y, left, right, first_column ? c->y_label : "");
    if (isfinite(p->reference)) {
        mx_text_print(out, "<path class=\"level\" data-level=\"%.9g\" d=\"M%.1f %.1fH%.1f\"/>\n", p->reference, left,
                      mx_scale_at(&y, p->reference), right);
    }
    for (int faint = 1; faint >= 0; faint--) { /* means over seeds */
        for (int i = 0; i < p->lines; i++) {
            if (p->line[i].faint == faint) {
                draw_line(&p->line[i], &x, &y, c->markers, out);
            }
        }
    }
}

/* Names once, in the order they come. */
static int keys_of(const mx_line_chart *c, mx_key key[KEYS_MAX]) {
    int keys = 0;

    for (int p = 0; p < c->panels; p++) {
        for (int i = 0; i < c->panel[p].lines && keys < KEYS_MAX - 1; i++) {
            const mx_line *l = &c->panel[p].line[i];
            bool known = l->faint;

            for (int k = 0; k < keys && !known; k++) {
                known = strcmp(key[k].name, l->name) == 0;
            }
            if (!known) {
                key[keys++] = (mx_key){ l->name, l->style, true, c->markers };
            }
        }
    }
    if (c->reference) {
        key[keys++] = (mx_key){ c->reference, -1, true, false };
    }
    return keys;
}

/* Three abreast when the titles are short enough. */
static int columns_of(const mx_line_chart *c) {
    int columns = c->panels == 1 ? 1 : c->panels % 3 == 0 || c->panels > 6 ? 3 : 2;

    for (int p = 0; p < c->panels; p++) {
        double title = mx_draw_width(c->panel[p].title);

        columns = title > 490 ? 1 : title > 235 && columns == 3 ? 2 : columns;
    }
    return columns;
}

void mx_chart_lines(const mx_line_chart *c, mx_text *out) {
    int columns = columns_of(c), rows = (c->panels + columns - 1) / columns;
    double gap = 62, left = 66, wide = (MX_CHART_WIDTH - left - 14 - gap * (columns - 1)) / columns;
    double tall = columns == 1 ? PANEL_HEIGHT + 40 : PANEL_HEIGHT - 30, pitch = tall + 76;
    double xl = NAN, xh = NAN, all_yl = NAN, all_yh = NAN, keys_height, head = 12;
    mx_key key[KEYS_MAX];
    mx_text body = { 0 }; /* the drawing's height is known when the keys are */

    for (int p = 0; p < c->panels; p++) {
        extents(&c->panel[p], &xl, &xh, &all_yl, &all_yh);
        head = *c->panel[p].title ? 30 : head;
    }
    mx_text_init(&body, (size_t)64 << 20);
    keys_height = mx_draw_keys(&body, key, keys_of(c, key), left, 4, MX_CHART_WIDTH - left - 10);
    for (int p = 0; p < c->panels; p++) {
        double x0 = left + (p % columns) * (wide + gap), y0 = keys_height + head + (p / columns) * pitch;
        double pxl = NAN, pxh = NAN, yl = NAN, yh = NAN;
        mx_scale x, y;

        extents(&c->panel[p], &pxl, &pxh, &yl, &yh);
        if (c->same_y) {
            yl = all_yl;
            yh = all_yh;
        }
        if (c->from_zero) {
            mx_extent(&yl, &yh, 0);
        }
        x = mx_scale_fit(xl, xh, x0, x0 + wide, columns == 1 ? 10 : 5, false);
        y = mx_scale_fit(yl, yh, y0 + tall, y0, columns == 1 ? 8 : 6, false);
        if (c->whole_x && x.decimals > 0) { /* half a layer is none */
            x.ticks = 0;
            for (double v = ceil(xl); v <= xh && x.ticks < MX_TICKS_MAX; v++) {
                x.tick[x.ticks++] = v;
            }
            x.decimals = 0;
        }
        draw_panel(c, &c->panel[p], x, y, p % columns == 0, &body);
    }
    mx_draw_open(&c->chart, MX_CHART_WIDTH, keys_height + head + rows * pitch - 30, out);
    mx_text_add(out, body.data, body.length);
    mx_draw_close(out);
    mx_text_finish(&body);
}
