/* cmd_methods.c - mixrun methods [METHOD]: what adapter.method may be. */
#include "base/text.h"
#include "model/methods/method.h"
#include "runner/command.h"
#include "runner/verbs.h"

static mx_code one(const char *name, mx_status *st) {
    const mx_method *m = mx_method_find(name);
    const char *near;
    const char *const *names = mx_method_names();
    size_t count = 0;
    mx_text out;

    if (!m) {
        while (names[count]) {
            count++;
        }
        near = mx_text_nearest(name, names, count);
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "there is no method '%s'", name);
        mx_hint(st, near ? "did you mean '%s'?" : "mixrun methods lists them%.0s", near ? near : "");
        return MX_E_USAGE;
    }
    mx_text_init(&out, 1 << 20);
    mx_text_print(&out, "%s: %s\n%s\n\nwords of the adapter map:\n", m->name, m->summary, m->paper);
    mx_option_schema(m->options, 2, &out);
    fputs(out.data, stdout);
    mx_text_finish(&out);
    return MX_OK;
}

static mx_code run(const mx_call *call, mx_status *st) {
    if (call->words == 1) {
        return one(call->word[0], st);
    }
    for (const mx_method *const *m = mx_methods; *m; m++) {
        printf("%-10s %s  (%s)\n", (*m)->name, (*m)->summary, (*m)->paper);
    }
    return MX_OK;
}

const mx_command mx_verb_methods = {
    .name = "methods",
    .usage = "methods [METHOD]",
    .summary = "the adapter methods; with a name: its recipe words",
    .help = "Lists what adapter.method may be, with the paper each follows; with a METHOD, every word of its adapter map.",
    .least = 0, .most = 1, .run = run,
};
