/* embed.h - a file of this room inside the program, byte for byte and 0-terminated. */
#ifndef REPORTS_EMBED_H
#define REPORTS_EMBED_H

/* clang-format off */
#define MX_EMBED(symbol, file)                                                                                         \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"" MX_SCHEMA_FOLDER "/" file "\"\n.byte 0\n.previous\n");       \
    extern const char symbol[]
/* clang-format on */

#endif
