/* header.c - compiled once for each header: it must stand on its own, and twice. */
#include HEADER
#include HEADER

/* ISO C wants a declaration in every file. */
extern int mx_header_stands_alone;
