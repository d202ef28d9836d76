/* chart_draw.h - for the files that draw: scales, axes, markers, legends. Users include chart.h. */
#ifndef REPORTS_CHART_DRAW_H
#define REPORTS_CHART_DRAW_H

#include "reports/chart.h"

/* One unit of a drawing is one CSS pixel at its natural width; the page never shrinks it below MX_CHART_NARROW, so that text of 12
 * units stays above 11 pixels. */
enum { MX_CHART_WIDTH = 720, MX_CHART_NARROW = 670, MX_CHART_COLOURS = 7, MX_CHART_MARKERS = 8, MX_CHART_SHADES = 24 };

/* From data to pixels. */
typedef struct mx_scale {
    double low, high, from, to; /* data; pixels */
    bool log;
    int ticks, decimals;
    double tick[MX_TICKS_MAX];
} mx_scale;
/* Round ends about low..high, with a little air, and their ticks. */
mx_scale mx_scale_fit(double low, double high, double from, double to, int ticks, bool log);
double mx_scale_at(const mx_scale *s, double value);
/* The tick's label: "12.5", "20 k", "5 M"; good for the next 15 calls. */
const char *mx_scale_label(const mx_scale *s, int tick);

/* Widens *low..*high by a finite value. Both begin as NAN. */
void mx_extent(double *low, double *high, double value);

/* How wide a text of 12 units will be, about. */
double mx_draw_width(const char *text);
void mx_draw_open(const mx_chart *c, double width, double height, mx_text *out);
void mx_draw_close(mx_text *out);
/* anchor: 's'tart, 'm'iddle, 'e'nd. `kind`: a class of the style sheet, "" for plain. */
void mx_draw_text(mx_text *out, double x, double y, char anchor, const char *kind, const char *text);
/* The same, read upwards. */
void mx_draw_text_up(mx_text *out, double x, double y, const char *text);
/* Ticks, their labels, grid lines across, and the label. */
void mx_draw_axis_x(mx_text *out, const mx_scale *x, double top, double bottom, const char *label);
void mx_draw_axis_y(mx_text *out, const mx_scale *y, double left, double right, const char *label);
void mx_draw_marker(mx_text *out, int style, double x, double y, double radius);
/* A key with a marker per name, wrapped to the width; returns the height it took. `line`: a piece of line behind the marker. */
typedef struct mx_key {
    const char *name;
    int style; /* -1: the reference level's dashes; -2: the short reference mark */
    bool line, marker;
} mx_key;
double mx_draw_keys(mx_text *out, const mx_key *key, int keys, double x, double y, double width);
/* " data-NAME=\"...\"" with every digit. */
void mx_draw_data(mx_text *out, const char *name, double value);

#endif
