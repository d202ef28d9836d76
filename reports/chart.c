/* chart.c - what all drawings share; see chart.h and chart_draw.h. */
#include "reports/chart_draw.h"

#include "reports/table.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- numbers --- */

void mx_extent(double *low, double *high, double value) {
    if (isfinite(value)) {
        *low = isnan(*low) || value < *low ? value : *low;
        *high = isnan(*high) || value > *high ? value : *high;
    }
}

int mx_chart_ticks(double low, double high, int most, double ret[MX_TICKS_MAX], int *ret_decimals) {
    static const double part[] = { 1, 2, 5 };
    int exponent, n;

    assert(isfinite(low) && isfinite(high) && high > low && most >= 2);
    most = most > MX_TICKS_MAX ? MX_TICKS_MAX : most;
    exponent = (int)floor(log10((high - low) / most)) - 1;
    for (int i = 0;; i++) { /* from too many to few enough; a power of ten below divides exactly where a product would not */
        int e = exponent + i / 3;
        double power = pow(10, abs(e)), first, last;

#define STEPS(x) (e < 0 ? (x) * power / part[i % 3] : (x) / power / part[i % 3])
        first = ceil(STEPS(low) - 1e-6);
        last = floor(STEPS(high) + 1e-6);
#undef STEPS
        if (last - first + 1 > most) {
            continue;
        }
        n = 0;
        for (double k = first; k <= last; k++) {
            ret[n++] = (e < 0 ? k * part[i % 3] / power : k * part[i % 3] * power) + 0.0; /* + 0: no -0 */
        }
        *ret_decimals = e < 0 ? -e : 0;
        return n;
    }
}

/* 1, 2, 3, 5 and 7 where they fit, else 1, 2 and 5, else powers of ten. */
static int log_ticks(double low, double high, int most, double ret[MX_TICKS_MAX]) {
    static const char *const digits[] = { "12357", "125", "1" };
    int n = 0;

    for (size_t set = 0; set < sizeof digits / sizeof digits[0]; set++) {
        n = 0;
        for (int e = (int)floor(log10(low)); e <= (int)ceil(log10(high)); e++) {
            for (const char *digit = digits[set]; *digit; digit++) {
                double value = (*digit - '0') * pow(10, e);

                if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9) && n < MX_TICKS_MAX) {
                    ret[n++] = value;
                }
            }
        }
        if (n <= most) {
            break;
        }
    }
    return n;
}

mx_scale mx_scale_fit(double low, double high, double from, double to, int ticks, bool log) {
    mx_scale s = { .from = from, .to = to };
    double air;

    if (isnan(low) || isnan(high)) { /* nothing to show: the caller says so in words, the axis is still an axis */
        low = 0;
        high = 1;
    }
    if (log && low > 0 && high / low >= 3) { /* nearer ones have too few round numbers between them */
        s.log = true;
        s.low = low / pow(high / low, 0.05);
        s.high = high * pow(high / low, 0.05);
        s.ticks = log_ticks(s.low, s.high, ticks, s.tick);
        return s;
    }
    if (high - low <= 1e-12 * fmax(fabs(low), fabs(high))) {
        air = high == 0 ? 1 : fabs(high) * 0.1;
    } else {
        air = (high - low) * 0.04;
    }
    s.low = low - (low == 0 ? 0 : air);
    s.high = high + air;
    s.ticks = mx_chart_ticks(s.low, s.high, ticks, s.tick, &s.decimals);
    return s;
}

double mx_scale_at(const mx_scale *s, double value) {
    double part = s->log ? log(value / s->low) / log(s->high / s->low) : (value - s->low) / (s->high - s->low);

    return s->from + part * (s->to - s->from);
}

const char *mx_scale_label(const mx_scale *s, int tick) {
    static char ring[16][40];
    static int turn;
    char *text = ring[turn++ & 15];
    double v = s->tick[tick], most = fmax(fabs(s->low), fabs(s->high)), unit = 1;
    const char *word = "";
    int decimals = s->decimals;

    static const struct {
        double unit;
        const char *word;
    } units[] = { { 1e12, " T" }, { 1e9, " G" }, { 1e6, " M" }, { 1e3, " k" } };

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if ((s->log ? fabs(v) : most) >= units[i].unit * (units[i].unit > 1e3 ? 1 : 10) && v != 0) {
            unit = units[i].unit;
            word = units[i].word;
            break;
        }
    }
    for (decimals = 0; decimals < 9 && fabs(round(v / unit * pow(10, decimals)) / pow(10, decimals) - v / unit) > 1e-6 * fabs(v / unit);) {
        decimals++;
    }
    if (!s->log && unit == 1) {
        decimals = s->decimals; /* all of an axis alike: 0.0, 0.5, 1.0 */
    }
    snprintf(text, 40, "%s%.*f%s", v < 0 ? "−" : "", decimals, fabs(v / unit), word);
    return text;
}

double mx_draw_width(const char *text) {
    double width = 0;

    for (; *text; text++) {
        if (((unsigned char)*text & 0xC0) == 0x80) {
            continue;
        }
        width += strchr("iljtf.,:;|!'()[] r-", *text) ? 4.4 : strchr("mwMW%@", *text) ? 10.4 : *text >= 'A' && *text <= 'Z' ? 8.4 : 7.1;
    }
    return width;
}

void mx_draw_data(mx_text *out, const char *name, double value) {
    if (isfinite(value)) {
        mx_text_print(out, " data-%s=\"%.15g\"", name, value);
    }
}

/* --- pieces --- */

void mx_draw_open(const mx_chart *c, double width, double height, mx_text *out) {
    mx_text_print(out, "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 %.0f %.0f\" aria-labelledby=\"%s-t %s-d\">\n<title id=\"%s-t\">",
                  width, height, c->id, c->id, c->id);
    mx_html_escape(out, c->title);
    mx_text_print(out, "</title>\n<desc id=\"%s-d\">", c->id);
    mx_html_escape(out, c->description);
    mx_text_print(out, "</desc>\n");
}

void mx_draw_close(mx_text *out) {
    mx_text_print(out, "</svg>\n");
}

void mx_draw_text(mx_text *out, double x, double y, char anchor, const char *kind, const char *text) {
    mx_text_print(out, "<text x=\"%.1f\" y=\"%.1f\"%s", x, y, anchor == 'm' ? " text-anchor=\"middle\"" : anchor == 'e' ? " text-anchor=\"end\"" : "");
    if (*kind) {
        mx_text_print(out, " class=\"%s\"", kind);
    }
    mx_text_print(out, ">");
    mx_html_escape(out, text);
    mx_text_print(out, "</text>\n");
}

void mx_draw_text_up(mx_text *out, double x, double y, const char *text) {
    mx_text_print(out, "<text transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\" class=\"label\">", x, y);
    mx_html_escape(out, text);
    mx_text_print(out, "</text>\n");
}

void mx_draw_axis_x(mx_text *out, const mx_scale *x, double top, double bottom, const char *label) {
    double past = -1e9;

    mx_text_print(out, "<path class=\"grid\" d=\"");
    for (int i = 0; i < x->ticks; i++) {
        mx_text_print(out, "M%.1f %.1fV%.1f", mx_scale_at(x, x->tick[i]), top, bottom + 4);
    }
    mx_text_print(out, "\"/>\n<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>\n", x->from, bottom, x->to);
    for (int i = 0; i < x->ticks; i++) {
        const char *text = mx_scale_label(x, i);
        double at = mx_scale_at(x, x->tick[i]), half = mx_draw_width(text) / 2;

        if (at - half > past + 4) { /* crowded ones go without a number */
            mx_draw_text(out, at, bottom + 17, 'm', "tick", text);
            past = at + half;
        }
    }
    mx_draw_text(out, (x->from + x->to) / 2, bottom + 34, 'm', "label", label);
}

void mx_draw_axis_y(mx_text *out, const mx_scale *y, double left, double right, const char *label) {
    double wide = 0;

    mx_text_print(out, "<path class=\"grid\" d=\"");
    for (int i = 0; i < y->ticks; i++) {
        mx_text_print(out, "M%.1f %.1fH%.1f", left - 4, mx_scale_at(y, y->tick[i]), right);
    }
    mx_text_print(out, "\"/>\n<path class=\"axis\" d=\"M%.1f %.1fV%.1f\"/>\n", left, y->from, y->to);
    for (int i = 0; i < y->ticks; i++) {
        const char *text = mx_scale_label(y, i);
        double w = mx_draw_width(text);

        wide = w > wide ? w : wide;
        mx_draw_text(out, left - 7, mx_scale_at(y, y->tick[i]) + 4, 'e', "tick", text);
    }
    if (*label) {
        mx_draw_text_up(out, left - 16 - wide, (y->from + y->to) / 2, label);
    }
}

/* Shapes of about equal weight; filled ones and open ones alternate. */
void mx_draw_marker(mx_text *out, int style, double x, double y, double r) {
    int colour = style % MX_CHART_COLOURS, shape = (style + style / MX_CHART_COLOURS) % MX_CHART_MARKERS;
    double d = r * 0.9, t = r * 1.15;

    mx_text_print(out, "<path class=\"m%s s%d\" d=\"", shape < 4 ? "" : " open", colour);
    switch (shape % 4) {
    case 0: mx_text_print(out, "M%.1f %.1fa%.1f %.1f 0 1 0 %.1f 0a%.1f %.1f 0 1 0 %.1f 0z", x - r, y, r, r, 2 * r, r, r, -2 * r); break;
    case 1: mx_text_print(out, "M%.1f %.1fh%.1fv%.1fh%.1fz", x - d, y - d, 2 * d, 2 * d, -2 * d); break;
    case 2: mx_text_print(out, "M%.1f %.1fl%.1f %.1fh%.1fz", x, y - t, t, 1.9 * t, -2 * t); break;
    default: mx_text_print(out, "M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz", x, y - t * 1.1, t * 1.1, t * 1.1, -t * 1.1, t * 1.1, -t * 1.1, -t * 1.1);
    }
    mx_text_print(out, "\"/>\n");
}

double mx_draw_keys(mx_text *out, const mx_key *key, int keys, double x, double y, double width) {
    double at = x, top = y;

    for (int i = 0; i < keys; i++) {
        double sample = key[i].line ? 26 : 14, w = sample + 6 + mx_draw_width(key[i].name) + 18;

        if (at + w > x + width && at > x) {
            at = x;
            y += 19;
        }
        if (key[i].style == -1) {
            mx_text_print(out, "<path class=\"level\" d=\"M%.1f %.1fh26\"/>\n", at, y + 6);
        } else if (key[i].style == -2) {
            mx_text_print(out, "<path class=\"mark\" d=\"M%.1f %.1fv12\"/>\n", at + 7, y);
        } else {
            if (key[i].line) {
                mx_text_print(out, "<path class=\"l s%d d%d\" d=\"M%.1f %.1fh26\"/>\n", key[i].style % MX_CHART_COLOURS,
                              key[i].style % 4, at, y + 6);
            }
            if (key[i].marker) {
                mx_draw_marker(out, key[i].style, at + sample / 2, y + 6, 4.5);
            }
        }
        mx_draw_text(out, at + sample + 6, y + 10, 's', "key", key[i].name);
        at += w;
    }
    return keys ? y + 19 - top : 0;
}

/* --- style --- */

typedef struct shade_stop {
    unsigned char r, g, b;
} shade_stop;

/* One hue, lightness strictly monotone: read in grey, too. In the dark the bright end is the large one. */
static void shades(mx_text *out, const shade_stop stop[5]) {
    for (int i = 0; i < MX_CHART_SHADES; i++) {
        double at = i * 4.0 / (MX_CHART_SHADES - 1), part;
        int k = at >= 4 ? 3 : (int)at;

        part = at - k;
        mx_text_print(out, ".h%d{fill:#%02x%02x%02x}", i, (unsigned)lround(stop[k].r + part * (stop[k + 1].r - stop[k].r)),
                      (unsigned)lround(stop[k].g + part * (stop[k + 1].g - stop[k].g)),
                      (unsigned)lround(stop[k].b + part * (stop[k + 1].b - stop[k].b)));
    }
    mx_text_print(out, "\n");
}

/* Okabe and Ito's palette without its yellow, which is not seen on white; in the dark the blue and the black are lighter. */
static const char fixed_style[] =
    ":root{--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b5568c;--s4:#c98a00;--s5:#56b4e9;--s6:#444444}\n"
    "svg.chart{display:block;width:100%;height:auto;font:12px/1.2 system-ui,'Segoe UI','DejaVu Sans',Arial,sans-serif}\n"
    "svg.chart text{fill:var(--ink)}svg.chart text.tick,svg.chart text.key,svg.chart text.label{fill:var(--soft)}"
    "svg.chart text.key{fill:var(--ink)}svg.chart text.head{font-weight:600}svg.chart text.num{font-variant-numeric:tabular-nums}\n"
    ".grid{stroke:var(--rule);stroke-width:1;fill:none}.axis{stroke:var(--soft);stroke-width:1;fill:none}"
    ".level{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:5 4;fill:none}.mark{stroke:var(--ink);stroke-width:1.6;fill:none}\n"
    ".l{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}.l.faint{stroke-width:1;opacity:.28}"
    ".d1{stroke-dasharray:7 3}.d2{stroke-dasharray:2 3}.d3{stroke-dasharray:9 3 2 3}\n"
    ".m{fill:currentColor;stroke:var(--paper);stroke-width:.8}.m.open{fill:var(--paper);stroke:currentColor;stroke-width:1.7}"
    ".whisker{stroke:currentColor;stroke-width:2;fill:none}.seed{fill:currentColor;fill-opacity:.45;stroke:none}\n"
    ".s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}.s4{color:var(--s4)}.s5{color:var(--s5)}.s6{color:var(--s6)}\n";

void mx_chart_style(mx_text *out) {
    static const shade_stop light[5] = { { 0xf0, 0xf5, 0xfb }, { 0xc3, 0xd9, 0xee }, { 0x6b, 0xa9, 0xd6 }, { 0x21, 0x6b, 0xb0 }, { 0x08, 0x2c, 0x60 } };
    static const shade_stop dark[5] = { { 0x1c, 0x25, 0x30 }, { 0x1f, 0x4b, 0x75 }, { 0x3c, 0x86, 0xbd }, { 0x96, 0xc8, 0xe6 }, { 0xf2, 0xf8, 0xff } };

    mx_text_print(out, "%s", fixed_style);
    mx_text_print(out, "svg.chart{min-width:%dpx;max-width:%dpx}\n", MX_CHART_NARROW, MX_CHART_WIDTH + 180);
    shades(out, light);
    mx_text_print(out, "@media screen and (prefers-color-scheme:dark){\n"
                       ":root{--s0:#5aa7e8;--s1:#f0814a;--s2:#2ec497;--s3:#dd8fbb;--s4:#e8b13c;--s5:#a3d9f7;--s6:#c9c9c9}\n");
    shades(out, dark);
    mx_text_print(out, "}\n");
}
