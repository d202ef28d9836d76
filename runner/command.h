/* command.h - the verbs of the command line: one file each, one line each in commands.c. */
#ifndef RUNNER_COMMAND_H
#define RUNNER_COMMAND_H

#include "base/arena.h"
#include "base/status.h"

enum { MX_FLAGS_MAX = 16, MX_WORDS_MAX = 512 };

/* A flag of a verb. Dashes and underscores inside a name are the same. */
typedef struct mx_flag {
    const char *name;  /* "vectors": --vectors */
    char letter;       /* 'v': -v; 0: none */
    const char *value; /* what its value is called in the help ("DIR"); NULL: takes none */
    const char *help;
} mx_flag;

typedef struct mx_call mx_call;
typedef struct mx_command {
    const char *name, *usage, *summary;
    const char *help; /* paragraphs below the usage */
    const mx_flag *flag; /* ends with name NULL */
    int least, most;     /* positional words; most -1: any number */
    bool loose;        /* a flag that is not in the list, --name VALUE or --name=VALUE, is the word name=VALUE */
    bool asks_to_stop;   /* Ctrl-C is handled: it sets mx_stop instead of ending the process */
    mx_code (*run)(const mx_call *call, mx_status *st);
} mx_command;

/* A command line taken apart. */
struct mx_call {
    const mx_command *command;
    mx_arena *arena;
    mx_problems *problems;           /* for MX_E_RECIPE: main prints them */
    const char *word[MX_WORDS_MAX]; /* positional */
    int word_number[MX_WORDS_MAX];  /* their place in argv, for errors */
    int words;
    const char *value[MX_FLAGS_MAX]; /* of flag i: its value, "" for one that takes none; NULL: not given */
};

/* Set by SIGINT and SIGTERM for commands that handle them. */
extern volatile int mx_stop;

/* The value of a flag ("" when it takes none), or NULL when it was not given. */
const char *mx_call_flag(const mx_call *call, const char *name);
/* A flag's value as a count ("4GiB" too when `bytes`); MX_E_USAGE otherwise. *ret untouched when not given. */
MX_MUST_CHECK mx_code mx_call_number(const mx_call *call, const char *name, bool bytes, int64_t *ret, mx_status *st);

extern const mx_command *const mx_commands[]; /* alphabetical, NULL-terminated */
const mx_command *mx_command_find(const char *name);

#endif
