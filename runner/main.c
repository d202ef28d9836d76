/* main.c - the command line in, an exit code out. The only file that prints errors. */
#include "runner/commands.h"

#include "base/text.h"
#include "runner/environment.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void on_signal(int number) {
    if (mx_stop) { /* asked twice: at once */
        _exit(128 + number);
    }
    mx_stop = number;
}

static void handle_signals(void) {
    struct sigaction a = { .sa_handler = on_signal };

    sigemptyset(&a.sa_mask);
    a.sa_flags = SA_RESTART;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaddset(&a.sa_mask, SIGINT);
    sigaddset(&a.sa_mask, SIGTERM);
    sigprocmask(SIG_UNBLOCK, &a.sa_mask, NULL); /* a sweep starts its members with both held back until now */
    signal(SIGPIPE, SIG_IGN);
}

/* "mixrun x.yaml" is "mixrun run x.yaml". */
static bool looks_like_recipe(const char *word) {
    size_t n = strlen(word);

    return strchr(word, '/') || (n > 5 && strcmp(word + n - 5, ".yaml") == 0) || (n > 4 && strcmp(word + n - 4, ".yml") == 0);
}

static mx_code unknown_verb(const char *word, mx_status *st) {
    const char *names[64];
    size_t count = 0;
    const char *near;

    for (const mx_command *const *c = mx_commands; *c; c++) {
        names[count++] = (*c)->name;
    }
    near = mx_text_nearest(word, names, count);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "'%s' is neither a verb nor a recipe (a .yaml file)", word);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_hint(st, "mixrun help lists the verbs");
    }
    return MX_E_USAGE;
}

static bool wants_help(int argc, char **argv, int first) {
    for (int i = first; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

static mx_code dispatch(int argc, char **argv, mx_arena *arena, mx_problems *problems, mx_status *st) {
    static mx_call call;
    int first = 2;

    if (argc < 2 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        mx_commands_overview(argc < 2 ? stderr : stdout);
        return argc < 2 ? MX_E_USAGE : MX_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("%s\n", mx_version_text());
        return MX_OK;
    }
    call = (mx_call){ .arena = arena, .problems = problems, .command = mx_command_find(argv[1]) };
    if (!call.command && (looks_like_recipe(argv[1]) || argv[1][0] == '-')) {
        call.command = mx_command_find("run");
        first = 1;
    }
    if (!call.command) {
        return unknown_verb(argv[1], st);
    }
    if (wants_help(argc, argv, first)) {
        mx_command_help(call.command, stdout);
        return MX_OK;
    }
    MX_TRY(mx_call_read(&call, argc, argv, first, st));
    if (call.command->asks_to_stop) {
        handle_signals();
    }
    return call.command->run(&call, st);
}

int main(int argc, char **argv) {
    mx_arena arena;
    mx_problems problems;
    mx_status st = { 0 };
    mx_code code;
    int exit_code;

    mx_arena_init(&arena, (size_t)16 << 30);
    mx_problems_init(&problems);
    code = dispatch(argc, argv, &arena, &problems, &st);
    if (fflush(stdout) != 0 && code == MX_OK) { /* a full disk behind a redirection is a failure */
        code = mx_fail(&st, MX_E_IO, MX_NOWHERE, "writing to standard output: %s", strerror(errno));
    }
    if (problems.count > 0) {
        mx_problems_print(&problems, stderr);
    } else if (code && st.code) {
        mx_status_print(&st, stderr);
    }
    exit_code = mx_exit_code(code);
    mx_problems_finish(&problems);
    mx_arena_finish(&arena);
    return exit_code;
}
