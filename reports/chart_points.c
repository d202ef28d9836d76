/* chart_points.c - estimates with their intervals: in rows (a forest plot), or against a cost; see chart.h. */
#include "reports/chart_draw.h"

#include "reports/table.h"

#include <math.h>
#include <string.h>

enum { ROW = 22, HEAD = 30, KEYS_MAX = 256 };

static bool opens_group(const mx_interval_chart *c, int i) {
    return i == 0 || strcmp(c->row[i].group, c->row[i - 1].group) != 0;
}

static void interval_row(const mx_interval_row *r, const mx_scale *x, double y, mx_text *out) {
    mx_text_print(out, "<g class=\"row s%d\" data-group=\"", r->style % MX_CHART_COLOURS);
    mx_html_escape(out, r->group);
    mx_text_print(out, "\" data-series=\"");
    mx_html_escape(out, r->name);
    mx_text_print(out, "\"");
    mx_draw_data(out, "v", r->estimate);
    mx_draw_data(out, "low", r->low);
    mx_draw_data(out, "high", r->high);
    mx_text_print(out, " data-dots=\"");
    for (int i = 0; i < r->dots; i++) {
        mx_text_print(out, "%s%.12g", i ? " " : "", r->dot[i]);
    }
    mx_text_print(out, "\">\n");
    if (isfinite(r->low)) {
        mx_text_print(out, "<path class=\"whisker\" d=\"M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8\"/>\n", mx_scale_at(x, r->low), y,
                      mx_scale_at(x, r->high), mx_scale_at(x, r->low), y - 4, mx_scale_at(x, r->high), y - 4);
    }
    for (int i = 0; i < r->dots; i++) { /* below the line, so that neither hides the other */
        mx_text_print(out, "<circle class=\"seed\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n", mx_scale_at(x, r->dot[i]), y + 7);
    }
    if (isfinite(r->reference)) {
        mx_text_print(out, "<path class=\"mark\" d=\"M%.1f %.1fv14\"/>\n", mx_scale_at(x, r->reference), y - 7);
    }
    if (isfinite(r->estimate)) {
        mx_draw_marker(out, r->style, mx_scale_at(x, r->estimate), y, 5);
    }
    mx_text_print(out, "</g>\n");
}

static void interval_extent(const mx_interval_chart *c, double *low, double *high, double *names, double *texts) {
    *names = *texts = 0;
    mx_extent(low, high, c->line);
    for (int i = 0; i < c->rows; i++) {
        const mx_interval_row *r = &c->row[i];

        mx_extent(low, high, r->estimate);
        mx_extent(low, high, r->low);
        mx_extent(low, high, r->high);
        mx_extent(low, high, r->reference);
        for (int k = 0; k < r->dots; k++) {
            mx_extent(low, high, r->dot[k]);
        }
        *names = fmax(*names, mx_draw_width(r->name));
        *texts = fmax(*texts, mx_draw_width(r->text));
    }
}

void mx_chart_intervals(const mx_interval_chart *c, mx_text *out) {
    double low = NAN, high = NAN, names, texts, left, right, top = 44, y = top, bottom, width = MX_CHART_WIDTH;
    bool some_dots = false;
    mx_key key[2];
    int keys = 0;
    mx_scale x;

    interval_extent(c, &low, &high, &names, &texts);
    left = fmin(names, 230) + 24;
    width = fmax(width, left + texts + 300); /* long names and words take room of their own, not the plot's */
    right = width - texts - 22;
    for (int i = 0; i < c->rows; i++) {
        y += (opens_group(c, i) ? HEAD : 0) + ROW;
        some_dots |= c->row[i].dots > 0;
    }
    bottom = y + 6;
    mx_draw_open(&c->chart, width, bottom + (c->reference || some_dots ? 68 : 44), out);
    x = mx_scale_fit(low, high, left, right, 8, false);
    mx_draw_axis_x(out, &x, top, bottom, c->x_label);
    mx_draw_text(out, width - 8, top - 8, 'e', "label", c->text_label);
    if (isfinite(c->line)) {
        mx_text_print(out, "<path class=\"level\" d=\"M%.1f %.1fV%.1f\"/>\n", mx_scale_at(&x, c->line), top, bottom);
        if (c->left && c->right) {
            double at = mx_scale_at(&x, c->line), half = mx_draw_width(c->left) / 2;

            /* to both sides of the level where they fit, else at the ends */
            mx_draw_text(out, fmax(at - 8, left + 2 * half), top - 24, 'e', "label", c->left);
            mx_draw_text(out, fmin(fmax(at + 8, left + 2 * half + 16), right), top - 24, 's', "label", c->right);
        }
    }
    y = top;
    for (int i = 0; i < c->rows; i++) {
        const mx_interval_row *r = &c->row[i];

        if (opens_group(c, i)) {
            y += HEAD;
            mx_draw_text(out, 6, y - 8, 's', "head", r->group);
            mx_text_print(out, "<path class=\"grid\" d=\"M6 %.1fH%.1f\"/>\n", y - 2, width - 6);
        }
        y += ROW;
        mx_draw_text(out, 14, y - 5, 's', "", r->name);
        mx_draw_text(out, width - 8, y - 5, 'e', "num", r->text);
        interval_row(r, &x, y - 10, out);
    }
    if (c->reference) {
        key[keys++] = (mx_key){ c->reference, -2, false, true };
    }
    mx_draw_keys(out, key, keys, left, bottom + 46, right - left);
    if (some_dots) {
        double at = left + (c->reference ? 60 + mx_draw_width(c->reference) : 0);

        mx_text_print(out, "<circle class=\"seed s6\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n", at + 4, bottom + 52);
        mx_draw_text(out, at + 14, bottom + 56, 's', "key", "one seed");
    }
    mx_draw_close(out);
}

/* Where the markers stand: those whose x nearly coincide side by side, in their order, about the middle of where they belong. */
static void spread(const mx_point_chart *c, const mx_scale *x, double *at) {
    enum { PITCH = 15 };
    int order[KEYS_MAX], n = 0;

    for (int i = 0; i < c->points && n < KEYS_MAX; i++) {
        int k = n++;

        at[i] = mx_scale_at(x, c->point[i].x);
        for (; k > 0 && at[order[k - 1]] > at[i]; k--) {
            order[k] = order[k - 1];
        }
        order[k] = i;
    }
    for (int first = 0, last; first < n; first = last) {
        double middle = 0, start;

        for (last = first + 1; last < n && at[order[last]] - at[order[last - 1]] < PITCH; last++) {
        }
        for (int k = first; k < last; k++) {
            middle += at[order[k]] / (last - first);
        }
        start = middle - PITCH * (last - first - 1) / 2.0;
        start = fmax(x->from + 6, fmin(start, x->to - 6 - PITCH * (last - first - 1)));
        for (int k = first; k < last; k++) {
            at[order[k]] = start + PITCH * (k - first);
        }
    }
}

void mx_chart_points(const mx_point_chart *c, mx_text *out) {
    double left = 66, right = MX_CHART_WIDTH - 20, tall = 270, xl = NAN, xh = NAN, yl = NAN, yh = NAN, top;
    mx_key key[KEYS_MAX];
    double at[KEYS_MAX];
    mx_text keys = { 0 };
    mx_scale x, y;
    int count = 0, points = c->points < KEYS_MAX ? c->points : KEYS_MAX;

    for (int i = 0; i < points; i++) {
        const mx_point *p = &c->point[i];

        mx_extent(&xl, &xh, p->x);
        mx_extent(&yl, &yh, p->y);
        mx_extent(&yl, &yh, p->low);
        mx_extent(&yl, &yh, p->high);
        key[count++] = (mx_key){ p->name, p->style, false, true };
    }
    mx_text_init(&keys, (size_t)1 << 20);
    top = 14 + mx_draw_keys(&keys, key, count, left, 4, right - left);
    mx_draw_open(&c->chart, MX_CHART_WIDTH, top + tall + 46, out);
    mx_text_add(out, keys.data, keys.length);
    mx_text_finish(&keys);
    x = mx_scale_fit(xl, xh, left, right, 8, c->log_x);
    y = mx_scale_fit(yl, yh, top + tall, top, 8, false);
    mx_draw_axis_x(out, &x, top, top + tall, c->x_label);
    mx_draw_axis_y(out, &y, left, right, c->y_label);
    spread(c, &x, at);
    for (int i = 0; i < points; i++) {
        const mx_point *p = &c->point[i];
        double px = at[i];

        mx_text_print(out, "<g class=\"point s%d\" data-series=\"", p->style % MX_CHART_COLOURS);
        mx_html_escape(out, p->name);
        mx_text_print(out, "\"");
        mx_draw_data(out, "x", p->x);
        mx_draw_data(out, "v", p->y);
        mx_draw_data(out, "low", p->low);
        mx_draw_data(out, "high", p->high);
        mx_text_print(out, ">\n");
        if (isfinite(p->low)) {
            mx_text_print(out, "<path class=\"whisker\" d=\"M%.1f %.1fV%.1fM%.1f %.1fh8M%.1f %.1fh8\"/>\n", px, mx_scale_at(&y, p->low),
                          mx_scale_at(&y, p->high), px - 4, mx_scale_at(&y, p->low), px - 4, mx_scale_at(&y, p->high));
        }
        mx_draw_marker(out, p->style, px, mx_scale_at(&y, p->y), 6);
        mx_text_print(out, "</g>\n");
    }
    mx_draw_close(out);
}
