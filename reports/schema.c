/* schema.c - schema.sql inside the program, byte for byte. */
#include "reports/schema.h"

/* clang-format off */
__asm__(".section .rodata\n"
        "mx_schema_sql_1:\n"
        ".incbin \"" MX_SCHEMA_FILE "\"\n"
        ".byte 0\n"
        ".previous\n");
/* clang-format on */
extern const char mx_schema_sql_1[];

const char *const mx_schema_step[MX_SCHEMA_VERSION] = { mx_schema_sql_1 };
