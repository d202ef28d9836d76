/* schema.c - schema.sql and what came after it inside the program, byte for byte. */
#include "reports/schema.h"

#include "reports/embed.h"
#include "reports/sql_stamp.h" /* changes with the .sql files, which the compiler does not see */

MX_EMBED(mx_schema_sql_1, "schema.sql");
MX_EMBED(mx_schema_sql_2, "schema_2.sql");

const char *const mx_schema_step[MX_SCHEMA_VERSION] = { mx_schema_sql_1, mx_schema_sql_2 };
