/* schema.h - the statements that bring a database from each version to the next. */
#ifndef REPORTS_SCHEMA_H
#define REPORTS_SCHEMA_H

enum { MX_SCHEMA_VERSION = 2 };

/* Step v brings a database of version v to v + 1; step 0 makes an empty file one of ours. */
extern const char *const mx_schema_step[MX_SCHEMA_VERSION];

#endif
