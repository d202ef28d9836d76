/* schema.c - schema.sql and what came after it inside the program, byte for byte. */
#include "reports/schema.h"

/* clang-format off */
#define MX_EMBED(symbol, file)                                                                                         \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"" MX_SCHEMA_FOLDER "/" file "\"\n.byte 0\n.previous\n");       \
    extern const char symbol[]
/* clang-format on */

MX_EMBED(mx_schema_sql_1, "schema.sql");
MX_EMBED(mx_schema_sql_2, "schema_2.sql");

const char *const mx_schema_step[MX_SCHEMA_VERSION] = { mx_schema_sql_1, mx_schema_sql_2 };
