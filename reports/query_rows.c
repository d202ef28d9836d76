/* query_rows.c - see query_rows.h.
 *
 * CSV and JSON are written row by row with every digit, for other programs: a table of any length passes through. A table for
 * people needs all rows to know its widths; numbers then have six digits. */
#include "reports/query_rows.h"

#include "reports/sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 64 * 1024,        /* bytes put at once */
    CELLS_MAX = 16 << 20,     /* bytes of cells a table for people may have */
    TABLE_MAX = 256 << 20,    /* and with its padding */
};

static mx_code flush(const mx_query_wish *wish, mx_text *out, size_t least, mx_status *st) {
    mx_code code = MX_OK;

    if (out->length > 0 && out->length >= least) {
        code = wish->put(wish->to, out->data, out->length, st);
        out->length = 0;
    }
    return code;
}

/* The next row; false at the end, or with *code. */
static bool next(mx_store *s, sqlite3_stmt *q, const mx_query_wish *wish, mx_code *code, mx_status *st) {
    int rc = sqlite3_step(q);

    *code = MX_OK;
    if (rc == SQLITE_INTERRUPT || (wish->stop && *wish->stop)) {
        *code = mx_fail(st, MX_E_STOPPED, MX_NOWHERE, "the query was broken off");
    } else if (rc == SQLITE_ERROR || rc == SQLITE_MISMATCH || rc == SQLITE_TOOBIG) { /* the query's own: integer overflow, ... */
        *code = mx_fail(st, MX_E_USAGE, MX_NOWHERE, "the query fails: %s", sqlite3_errmsg(mx_store_handle(s)));
    } else if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        *code = mx_sql_fail(s, st, "reading");
    }
    return *code == MX_OK && rc == SQLITE_ROW;
}

/* The fewest digits that read back to the same number. */
static const char *exact(double v, char text[32]) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    return text;
}

static void add_hex(sqlite3_stmt *q, int c, mx_text *out) {
    const unsigned char *bytes = sqlite3_column_blob(q, c);

    for (int i = 0; i < sqlite3_column_bytes(q, c); i++) {
        mx_text_print(out, "%02x", bytes[i]);
    }
}

/* ------------------------------------------------------------------------ CSV (RFC 4180) */

static void csv_text(const char *text, mx_text *out) {
    if (!strpbrk(text, ",\"\r\n")) {
        mx_text_add(out, text, strlen(text));
        return;
    }
    mx_text_add(out, "\"", 1);
    for (; *text; text++) {
        mx_text_add(out, "\"\"", *text == '"' ? 1 : 0);
        mx_text_add(out, text, 1);
    }
    mx_text_add(out, "\"", 1);
}

static void csv_cell(sqlite3_stmt *q, int c, mx_text *out) {
    char number[32];

    switch (sqlite3_column_type(q, c)) {
    case SQLITE_NULL: break;
    case SQLITE_FLOAT: mx_text_print(out, "%s", exact(sqlite3_column_double(q, c), number)); break;
    case SQLITE_BLOB: add_hex(q, c, out); break;
    default: csv_text(mx_sql_text(q, c), out);
    }
}

static mx_code csv(mx_store *s, sqlite3_stmt *q, const mx_query_wish *wish, mx_text *out, mx_status *st) {
    int columns = sqlite3_column_count(q);
    mx_code code;

    for (int c = 0; c < columns; c++) {
        mx_text_print(out, "%s", c ? "," : "");
        csv_text(sqlite3_column_name(q, c), out);
    }
    mx_text_print(out, "\r\n");
    while (next(s, q, wish, &code, st)) {
        for (int c = 0; c < columns; c++) {
            mx_text_print(out, "%s", c ? "," : "");
            csv_cell(q, c, out);
        }
        mx_text_print(out, "\r\n");
        MX_TRY(flush(wish, out, PIECE, st));
    }
    return code;
}

/* ------------------------------------------------------------------------ JSON */

/* A key for every column: equal names would be lost by whoever reads the object. */
static void key(sqlite3_stmt *q, int c, mx_text *out) {
    const char *name = sqlite3_column_name(q, c);
    char numbered[256];
    int earlier = 0;

    for (int i = 0; i < c; i++) {
        earlier += strcmp(sqlite3_column_name(q, i), name) == 0;
    }
    snprintf(numbered, sizeof numbered, "%.200s_%d", name, earlier + 1);
    mx_json_quote(out, earlier ? numbered : name);
}

static void json_value(sqlite3_stmt *q, int c, mx_text *out) {
    char number[32];
    double real;

    switch (sqlite3_column_type(q, c)) {
    case SQLITE_NULL: mx_text_print(out, "null"); break;
    case SQLITE_INTEGER: mx_text_print(out, "%lld", (long long)sqlite3_column_int64(q, c)); break;
    case SQLITE_FLOAT:
        real = sqlite3_column_double(q, c);
        mx_text_print(out, "%s", isfinite(real) ? exact(real, number) : "null"); /* JSON has no infinity */
        break;
    case SQLITE_BLOB:
        mx_text_print(out, "\"");
        add_hex(q, c, out);
        mx_text_print(out, "\"");
        break;
    default: mx_json_quote(out, mx_sql_text(q, c));
    }
}

static mx_code json(mx_store *s, sqlite3_stmt *q, const mx_query_wish *wish, mx_text *out, mx_status *st) {
    const char *before = "[\n";
    mx_code code;

    while (next(s, q, wish, &code, st)) {
        mx_text_print(out, "%s{", before);
        before = ",\n";
        for (int c = 0; c < sqlite3_column_count(q); c++) {
            mx_text_print(out, "%s", c ? ", " : "");
            key(q, c, out);
            mx_text_print(out, ": ");
            json_value(q, c, out);
        }
        mx_text_print(out, "}");
        MX_TRY(flush(wish, out, PIECE, st));
    }
    mx_text_print(out, "%s\n]\n", before[0] == '[' ? "[" : "");
    return code;
}

/* ------------------------------------------------------------------------ for people */

/* One line: a recipe inside a cell would tear the table apart. */
static void line_cell(mx_table *t, const char *text) {
    mx_text one;

    mx_text_init(&one, (size_t)1 << 30);
    for (; *text; text++) {
        mx_text_add(&one, *text == '\n' ? "\\n" : *text == '\t' ? "\\t" : text, *text == '\n' || *text == '\t' ? 2 : 1);
    }
    mx_table_cell(t, "%s", one.data);
    mx_text_finish(&one);
}

static void cell(mx_table *t, sqlite3_stmt *q, int c) {
    mx_text hex;
    double real = sqlite3_column_double(q, c);

    switch (sqlite3_column_type(q, c)) {
    case SQLITE_NULL: mx_table_cell(t, "%s", ""); break;
    case SQLITE_INTEGER: mx_table_cell(t, "%lld", (long long)sqlite3_column_int64(q, c)); break;
    case SQLITE_FLOAT:
        if (fabs(real) >= 1e6 && fabs(real) < 1e15) { /* not 1.23457e+07 */
            mx_table_cell(t, "%.0f", real);
        } else {
            mx_table_cell(t, "%.6g", real);
        }
        break;
    case SQLITE_BLOB:
        mx_text_init(&hex, (size_t)1 << 30);
        add_hex(q, c, &hex);
        mx_table_cell(t, "%s", hex.data);
        mx_text_finish(&hex);
        break;
    default: line_cell(t, mx_sql_text(q, c));
    }
}

static mx_code too_much(mx_status *st) {
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "the answer is too long for a table");
    mx_hint(st, "--format csv and json have no end; or add LIMIT");
    return MX_E_USAGE;
}

static mx_code page(mx_store *s, sqlite3_stmt *q, const mx_query_wish *wish, mx_text *out, mx_status *st) {
    int columns = sqlite3_column_count(q);
    size_t widest[MX_COLUMNS_MAX] = { 0 }, width = 0;
    bool text[MX_COLUMNS_MAX] = { false };
    mx_table t;
    mx_code code;

    if (columns > MX_COLUMNS_MAX) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%d columns are too many for a table of %d", columns, MX_COLUMNS_MAX);
        mx_hint(st, "--format csv and json have no end");
        return MX_E_USAGE;
    }
    mx_table_init(&t, columns);
    for (int c = 0; c < columns; c++) {
        line_cell(&t, sqlite3_column_name(q, c));
    }
    while (next(s, q, wish, &code, st)) {
        width = 0;
        for (int c = 0; c < columns; c++) {
            int type = sqlite3_column_type(q, c);
            bool number = type == SQLITE_INTEGER || type == SQLITE_FLOAT;
            size_t bytes = number ? 24 : (size_t)sqlite3_column_bytes(q, c) * 2; /* as hex, or with its tabs shown: at most */

            if (bytes > CELLS_MAX || t.cells.length > CELLS_MAX) {
                code = too_much(st);
                goto done;
            }
            widest[c] = bytes > widest[c] ? bytes : widest[c];
            width += widest[c];
            text[c] |= type == SQLITE_TEXT || type == SQLITE_BLOB;
            t.right[c] |= number;
            cell(&t, q, c);
        }
        if (width > TABLE_MAX / (size_t)(t.rows + 1)) {
            code = too_much(st);
            goto done;
        }
    }
    for (int c = 0; c < columns; c++) {
        t.right[c] &= !text[c];
    }
    if (code == MX_OK) {
        mx_table_write(&t, wish->format, out);
    }
done:
    mx_table_finish(&t);
    return code;
}

mx_code mx_query_rows(mx_store *s, struct sqlite3_stmt *q, const mx_query_wish *wish, mx_status *st) {
    mx_text out;
    mx_code code;

    mx_text_init(&out, (size_t)4 << 30);
    switch (wish->format) {
    case MX_FORMAT_CSV: code = csv(s, q, wish, &out, st); break;
    case MX_FORMAT_JSON: code = json(s, q, wish, &out, st); break;
    default: code = page(s, q, wish, &out, st);
    }
    if (code == MX_OK) {
        code = flush(wish, &out, 0, st);
    }
    mx_text_finish(&out);
    return code;
}
