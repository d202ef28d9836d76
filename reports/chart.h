/* chart.h - plots, drawn as SVG inside an HTML page.
 *
 * Colours, fonts and dashes come from the page's style sheet (mx_chart_style), so that one drawing is read in the light, in the
 * dark and on paper. Series differ by colour (Okabe and Ito 2008), by marker and by dash. Every drawing has a title and a
 * description for those who do not see it, and carries the numbers it shows in data- attributes, so that a program can read them
 * back. Axes end where the data end and begin at zero only when asked; a caption says so. Everything borrowed for the call. */
#ifndef REPORTS_CHART_H
#define REPORTS_CHART_H

#include "base/text.h"

enum { MX_CHART_STYLES = 56 }; /* told apart by colour and marker */

typedef struct mx_chart {
    const char *id;                  /* unique in its page: letters, digits, '-' */
    const char *title, *description; /* the description says what is seen, in words */
} mx_chart;

/* The part of the page's style sheet that drawings need. */
void mx_chart_style(mx_text *out);

/* One line, or one seed's faint line behind a mean. */
typedef struct mx_line {
    const char *name;    /* in the legend when not faint */
    int style;
    bool faint;
    int64_t n;
    const double *x, *y; /* where y is not finite the line is broken */
} mx_line;
typedef struct mx_line_panel {
    const char *title; /* "": none */
    const mx_line *line;
    int lines;
    double reference;  /* a level drawn across; NAN: none */
} mx_line_panel;
typedef struct mx_line_chart {
    mx_chart chart;
    const char *x_label, *y_label; /* with units */
    const mx_line_panel *panel;
    int panels;
    bool same_y;          /* one y axis for all panels */
    bool from_zero;       /* y begins at 0 */
    bool whole_x;         /* x counts something */
    bool markers;
    const char *reference; /* what the level is, for the legend; NULL: none has one */
} mx_line_chart;
void mx_chart_lines(const mx_line_chart *c, mx_text *out);

/* One estimate with its interval, and the seeds behind it as dots. */
typedef struct mx_interval_row {
    const char *group, *name; /* rows of a group stand together under its name */
    int style;
    double estimate, low, high; /* low NAN: no interval */
    const double *dot;
    int dots;
    double reference;           /* a short mark in this row; NAN: none */
    const char *text;           /* the numbers in words, at the right */
} mx_interval_row;
typedef struct mx_interval_chart {
    mx_chart chart;
    const char *x_label, *text_label, *reference; /* reference: what the short mark is; NULL: none */
    const mx_interval_row *row;
    int rows;
    double line;              /* a level through all rows; NAN: none */
    const char *left, *right; /* of the level: "baseline better"; NULL: nothing */
} mx_interval_chart;
void mx_chart_intervals(const mx_interval_chart *c, mx_text *out);

/* Markers whose x nearly coincide are set side by side: a caption says so. At most 256. */
typedef struct mx_point {
    const char *name;
    int style;
    double x, y, low, high; /* low NAN: no interval; x and y are finite */
} mx_point;
typedef struct mx_point_chart {
    mx_chart chart;
    const char *x_label, *y_label;
    const mx_point *point;
    int points;
    bool log_x; /* where the points lie far enough apart for it to matter */
} mx_point_chart;
void mx_chart_points(const mx_point_chart *c, mx_text *out);

/* A matrix as coloured cells. */
typedef struct mx_heat_panel {
    const char *title, *row_word, *column_word; /* "layer", "expert" */
    int rows, columns;
    const double *value;               /* row by row; not finite: left blank */
    const char *const *row, *const *column; /* labels; NULL: numbers from 0 */
} mx_heat_panel;
typedef struct mx_heat_chart {
    mx_chart chart;
    const char *label;                 /* what the colour is, with its unit */
    double low, high;                  /* of the colour bar */
    double mark;                       /* a place on the colour bar worth a name; NAN: none */
    const char *mark_word;
    const mx_heat_panel *panel;
    int panels;
} mx_heat_chart;
void mx_chart_heat(const mx_heat_chart *c, mx_text *out);

/* At most `most` round numbers (1, 2 or 5 times a power of ten apart) from at or above low to at or below high; *ret_decimals is
 * how many they need. */
enum { MX_TICKS_MAX = 24 };
int mx_chart_ticks(double low, double high, int most, double ret[MX_TICKS_MAX], int *ret_decimals);

#endif
