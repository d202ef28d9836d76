/* sweep_run.c - see sweep_run.h: children started, watched, waited for. */
#include "runner/sweep_run.h"

#include "base/text.h"
#include "runner/environment.h"
#include "runner/sweep_emit.h"
#include "runner/sweep_picture.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

enum { JOBS_MAX = 256, LOG_LINES = 5 };

typedef enum place { TO_DO, AT_WORK, DONE, FAILED, STOPPED, ELSEWHERE } place;

typedef struct member {
    const mx_sweep_member *is;
    int64_t number; /* from 1, doubles not counted */
    const char *title;
    place place;
    double cost;    /* of all its tokens, in the unit all members share */
    int64_t run_id; /* that answers it; 0: none, or not known */
    const char *reason;
    bool last_look; /* it was elsewhere, and was asked about again */
} member;

typedef struct child {
    pid_t pid;
    int log; /* what it said */
    member *member;
    int64_t began_ms, first_step; /* -1: not known yet */
    mx_picture_line line;
} child;

typedef struct sweeper {
    const mx_sweep_wish *wish;
    mx_arena *arena;
    mx_arena look; /* rewound before every look at the store */
    mx_store *store;
    member *member;
    int64_t members;
    child child[JOBS_MAX];
    int children;
    mx_picture picture;
    size_t memory; /* the host's, for all children, when there is no limit */
    double cost_done, began; /* of this process */
    bool told_to_stop;
} sweeper;

/* -------------------------------------------------------------------- members */

static mx_code gather(sweeper *s, mx_status *st) {
    const mx_sweep *w = s->wish->sweep;

    s->member = MX_TAKE(s->arena, member, w->members + 1);
    for (int64_t i = 0; i < w->members; i++) {
        const mx_sweep_variant *v = &w->variant[w->member[i].variant];
        member *m = &s->member[s->members];
        mx_member_state state;
        mx_run_row run;

        if (w->member[i].same_as) {
            continue;
        }
        *m = (member){ .is = &w->member[i], .number = ++s->members, .title = mx_member_title(w, &w->member[i], s->arena) };
        m->cost = (double)(v->tokens > 0 ? v->tokens : 1) * (v->flops + v->base_flops > 0 ? v->flops + v->base_flops : 1);
        mx_arena_rewind(&s->look);
        MX_TRY(mx_member_look(s->store, w, m->is, &s->look, &state, &run, st));
        if (state == MX_MEMBER_FINISHED && !s->wish->rerun) {
            m->place = DONE;
            m->run_id = run.run_id;
        }
    }
    return MX_OK;
}

static int64_t count(const sweeper *s, place where) {
    int64_t n = 0;

    for (int64_t i = 0; i < s->members; i++) {
        n += s->member[i].place == where;
    }
    return n;
}

static const mx_sweep_variant *variant_of(const sweeper *s, const member *m) {
    return &s->wish->sweep->variant[m->is->variant];
}

static size_t computing_memory(const mx_sweep_variant *v) {
    return v->device_memory ? v->device_memory : v->memory;
}

/* Several runs on one GPU: what they may need together, before they begin. */
static void tell_shared_gpu(sweeper *s) {
    const mx_sweep_variant *largest = NULL;
    int64_t at_once = count(s, TO_DO) < s->wish->jobs ? count(s, TO_DO) : s->wish->jobs;

    for (int64_t i = 0; i < s->members; i++) {
        const mx_sweep_variant *v = variant_of(s, &s->member[i]);

        if (s->member[i].place == TO_DO && v->device_memory && (!largest || v->device_memory > largest->device_memory)) {
            largest = v;
        }
    }
    if (largest && at_once > 1) {
        size_t together = (size_t)at_once * largest->device_memory;

        mx_picture_say(&s->picture, "%lld at once need up to %s of the GPU's memory, of which %s are free%s\n", (long long)at_once,
                       mx_text_bytes(together), mx_text_bytes(largest->device_free),
                       together > largest->device_free ? ": fewer run at a time where they do not fit" : "");
    }
}

/* What would not fit is refused before anything starts; all variants that do not are told by the first. */
static mx_code refuse_too_big(const sweeper *s, mx_status *st) {
    for (int64_t i = 0; i < s->members; i++) {
        const mx_sweep_variant *v = &s->wish->sweep->variant[s->member[i].is->variant];

        if (s->member[i].place == TO_DO && v->memory_limit_hit) {
            mx_fail(st, MX_E_MEMORY, v->at, "variant '%s' does not fit: %s", v->name, v->refusal.text);
            mx_hint(st, "%s", v->refusal.hint[0] ? v->refusal.hint : "leave it out with exclude, or make it smaller");
            return MX_E_MEMORY;
        }
    }
    return MX_OK;
}

/* -------------------------------------------------------------------- children */

static int processors(void) {
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* Results do not depend on it. */
static long long threads_of_each(const mx_sweep_wish *wish) {
    int64_t share = processors() / wish->jobs;

    return wish->threads > 0 ? wish->threads : share > 1 ? share : 1;
}

/* This very program, with the same file and arguments, for one member. */
static char *const *command(const sweeper *s, const member *m) {
    const mx_sweep_wish *wish = s->wish;
    const mx_sweep_variant *v = &wish->sweep->variant[m->is->variant];
    const char **argv = MX_TAKE(s->arena, const char *, wish->words + 16);
    char digits[MX_MEMBER_DIGITS];
    int n = 0;

    mx_member_digits(wish->sweep, m->is, digits);
    argv[n++] = "mixrun";
    argv[n++] = "sweep";
    argv[n++] = mx_arena_text(s->arena, "--member=%lld:%s", (long long)m->is->position, digits);
    argv[n++] = mx_arena_text(s->arena, "--db=%s", wish->db);
    argv[n++] = "--quiet";
    if (wish->rerun) {
        argv[n++] = "--rerun";
    }
    if (wish->memory_limit > 0) {
        argv[n++] = mx_arena_text(s->arena, "--memory-limit=%lld", (long long)wish->memory_limit);
    }
    if (v->recipe->threads == 0 && (wish->threads > 0 || (wish->jobs > 1 && !getenv("OMP_NUM_THREADS")))) {
        argv[n++] = mx_arena_text(s->arena, "--threads=%lld", threads_of_each(wish));
    }
    argv[n++] = "--";
    for (int i = 0; i < wish->words; i++) {
        argv[n++] = wish->word[i];
    }
    return (char *const *)(void *)argv;
}

/* In the child: a group of its own, so that the terminal's Ctrl-C reaches the parent alone; asked to save when the parent dies. */
static void become(char *const *argv, int log, pid_t parent) {
    int null = open("/dev/null", O_RDWR);
    sigset_t ended;

    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &ended, NULL); /* SIGINT and SIGTERM wait until the new program handles them (main.c) */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGINT);
    if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0) {
        _exit(126);
    }
    execv("/proc/self/exe", argv); /* by this name it is found even when the file was replaced since */
    fprintf(stderr, "mixrun cannot start itself: %s\n", strerror(errno));
    _exit(127);
}

static mx_code start(sweeper *s, member *m, mx_status *st) {
    char *const *argv = command(s, m);
    child *c = &s->child[s->children];
    pid_t parent = getpid();
    sigset_t stops, before;

    *c = (child){ .member = m, .began_ms = mx_now_ms(), .first_step = -1 };
    c->log = memfd_create("mixrun-member", MFD_CLOEXEC);
    fflush(NULL); /* what is buffered is the parent's to write */
    sigemptyset(&stops);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGTERM);
    sigprocmask(SIG_BLOCK, &stops, &before); /* no stop is lost between fork and the new program */
    c->pid = c->log < 0 ? -1 : fork();
    if (c->pid == 0) {
        become(argv, c->log, parent);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (c->pid < 0) {
        mx_code code = mx_fail(st, MX_E_IO, MX_NOWHERE, "no process for %s: %s", m->title, strerror(errno));

        if (c->log >= 0) {
            close(c->log);
        }
        return code;
    }
    c->line = (mx_picture_line){ .number = m->number, .title = m->title, .loss = NAN, .rate = NAN, .began = mx_seconds(), .left = -1 };
    m->place = AT_WORK;
    s->children++;
    if (!s->picture.progress.live) { /* there its own line says so */
        mx_picture_tell(&s->picture, m->number, m->title, "started");
    }
    return MX_OK;
}

/* The last lines a child wrote, in the arena. */
static const char *last_words(const sweeper *s, int log) {
    enum { SHOWN = 2000 };
    off_t size = lseek(log, 0, SEEK_END), from = size > SHOWN ? size - SHOWN : 0;
    char *text = MX_TAKE(s->arena, char, SHOWN + 1);
    ssize_t n = size > 0 ? pread(log, text, SHOWN, from) : 0;
    int lines = 0;

    while (n > 0 && text[n - 1] == '\n') {
        n--;
    }
    text[n > 0 ? n : 0] = '\0';
    for (ssize_t i = n - 1; i >= 0; i--) {
        if (text[i] == '\n' && ++lines == LOG_LINES) {
            return text + i + 1;
        }
    }
    return text;
}

/* A process that ended without a word of its own to the store: said by whoever waited for it. */
static mx_code record_death(sweeper *s, const mx_run_row *run, const char *reason, mx_status *st) {
    mx_code code = mx_store_begin(s->store, st);

    if (code == MX_OK) {
        code = mx_store_run_died(s->store, run->run_id, run->pid, reason, st);
    }
    if (code == MX_OK) {
        code = mx_store_commit(s->store, st);
    }
    if (code) {
        mx_store_rollback(s->store);
    }
    return code;
}

static const char *how_it_ended(const sweeper *s, const child *c, int status) {
    const char *words = last_words(s, c->log);

    if (WIFSIGNALED(status)) {
        return mx_arena_text(s->arena, "killed by signal %d (%s)", WTERMSIG(status),
                             WTERMSIG(status) == SIGKILL ? "out of memory?" : strsignal(WTERMSIG(status)));
    }
    if (strncmp(words, "mixrun: error: ", 15) == 0) {
        words += 15;
    }
    return words[0] ? words : mx_arena_text(s->arena, "ended with code %d", WEXITSTATUS(status));
}

/* What became of a child that did not finish its run. */
static mx_code settle(sweeper *s, const child *c, int status, mx_status *st) {
    member *m = c->member;
    mx_member_state state;
    mx_run_row run, other;
    bool found;

    MX_TRY(mx_store_run_left_by(s->store, c->pid, c->began_ms, &s->look, &found, &run, st));
    m->place = found && strcmp(run.state, "finished") == 0 ? DONE : FAILED; /* it may have been killed on its way out */
    m->run_id = found ? run.run_id : 0;
    m->reason = how_it_ended(s, c, status);
    if (found && strcmp(run.state, "running") == 0) {
        return record_death(s, &run, m->reason, st);
    }
    if (found) {
        m->reason = mx_arena_copy(s->arena, run.reason, strlen(run.reason));
        return MX_OK;
    }
    MX_TRY(mx_member_look(s->store, s->wish->sweep, m->is, &s->look, &state, &other, st));
    if (state == MX_MEMBER_ALIVE || (state == MX_MEMBER_FINISHED && !s->wish->rerun)) { /* another was quicker */
        m->place = state == MX_MEMBER_ALIVE ? ELSEWHERE : DONE;
        m->run_id = other.run_id;
    }
    return MX_OK;
}

static mx_code wait_for(sweeper *s, int i, int status, mx_status *st) {
    child c = s->child[i];
    member *m = c.member;
    mx_code code = MX_OK;
    mx_run_row run;
    bool found = false;

    s->child[i] = s->child[--s->children];
    mx_arena_rewind(&s->look);
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == mx_exit_code(MX_E_STOPPED))) {
        code = mx_store_run_left_by(s->store, c.pid, c.began_ms, &s->look, &found, &run, st);
        m->place = WEXITSTATUS(status) == 0 ? DONE : STOPPED;
        m->run_id = found ? run.run_id : 0;
    } else {
        code = settle(s, &c, status, st);
    }
    close(c.log);
    if (m->place == DONE) {
        s->cost_done += m->cost;
        mx_picture_tell(&s->picture, m->number, m->title, "run %lld finished in %s", (long long)m->run_id,
                        mx_text_seconds(mx_seconds() - c.line.began));
    } else if (m->place == STOPPED) {
        mx_picture_tell(&s->picture, m->number, m->title, m->run_id ? "run %lld stopped, and can go on" : "stopped before it began",
                        (long long)m->run_id);
    } else if (m->place == ELSEWHERE) {
        mx_picture_tell(&s->picture, m->number, m->title, "run %lld is running elsewhere: left alone", (long long)m->run_id);
    } else {
        mx_picture_tell(&s->picture, m->number, m->title, "failed: %s", m->reason);
    }
    return code;
}

/* -------------------------------------------------------------------- who goes next */

/* The limit is of the memory that is computed in; a GPU's runs share that GPU. One run alone is its own plan's to refuse. */
static bool fits(const sweeper *s, const member *m) {
    const mx_sweep_variant *v = variant_of(s, m);
    size_t computing = computing_memory(v), host = v->memory, device = v->device_memory;

    for (int i = 0; i < s->children; i++) {
        const mx_sweep_variant *c = variant_of(s, s->child[i].member);

        computing += computing_memory(c);
        host += c->memory;
        device += strcmp(c->device, v->device) == 0 ? c->device_memory : 0;
    }
    return s->children == 0 ||
           (device <= v->device_free && (s->wish->memory_limit > 0 ? computing <= (size_t)s->wish->memory_limit : host <= s->memory));
}

/* The store is asked again before each start: others may share the work. */
static mx_code start_next(sweeper *s, bool *ret_more, mx_status *st) {
    *ret_more = false;
    for (int64_t i = 0; i < s->members; i++) {
        member *m = &s->member[i];
        mx_member_state state;
        mx_run_row run;

        if (m->place != TO_DO) {
            continue;
        }
        if (!fits(s, m)) {
            return MX_OK;
        }
        mx_arena_rewind(&s->look);
        MX_TRY(mx_member_look(s->store, s->wish->sweep, m->is, &s->look, &state, &run, st));
        if (state == MX_MEMBER_ALIVE) {
            m->place = ELSEWHERE;
            m->run_id = run.run_id;
            if (!m->last_look) {
                mx_picture_tell(&s->picture, m->number, m->title, "run %lld is running on %s as process %lld: left alone",
                                (long long)run.run_id, run.host, (long long)run.pid);
            }
        } else if (state == MX_MEMBER_FINISHED && !s->wish->rerun) {
            m->place = DONE;
            m->run_id = run.run_id;
        } else {
            *ret_more = true;
            return start(s, m, st);
        }
    }
    for (int64_t i = 0; i < s->members && s->children == 0; i++) { /* what was elsewhere may have ended since */
        if (s->member[i].place == ELSEWHERE && !s->member[i].last_look) {
            s->member[i].place = TO_DO;
            s->member[i].last_look = *ret_more = true;
        }
    }
    return MX_OK;
}

/* -------------------------------------------------------------------- the picture */

static mx_code look_at(sweeper *s, child *c, mx_status *st) {
    mx_picture_line *l = &c->line;
    mx_run_row run;
    bool found;

    mx_arena_rewind(&s->look);
    MX_TRY(mx_store_run_of_process(s->store, c->pid, c->began_ms, &s->look, &found, &run, st));
    if (!found) {
        return MX_OK;
    }
    if (c->first_step < 0) { /* a run that is taken up stands where it was until its checkpoint is read */
        c->first_step = run.step;
    }
    c->member->run_id = run.run_id;
    l->step = run.step;
    l->steps = run.steps;
    l->left = run.step > c->first_step && run.step < run.steps
                  ? (mx_seconds() - l->began) / (double)(run.step - c->first_step) * (double)(run.steps - run.step)
                  : -1;
    MX_TRY(mx_store_metric_last(s->store, run.run_id, "loss", &l->loss, st));
    return mx_store_metric_last(s->store, run.run_id, "tokens_per_second", &l->rate, st);
}

/* Seconds until all is done, by what this process has got done so far. */
static double left_of_all(const sweeper *s) {
    double done = s->cost_done, ahead = 0;

    for (int i = 0; i < s->children; i++) {
        const child *c = &s->child[i];

        if (c->first_step >= 0 && c->line.steps > 0) {
            done += c->member->cost * (double)(c->line.step - c->first_step) / (double)c->line.steps;
            ahead -= c->member->cost * (double)c->line.step / (double)c->line.steps;
        }
    }
    for (int64_t i = 0; i < s->members; i++) {
        ahead += s->member[i].place == TO_DO || s->member[i].place == AT_WORK ? s->member[i].cost : 0;
    }
    return done > 0 ? (mx_seconds() - s->began) / done * ahead : -1;
}

static mx_code show(sweeper *s, mx_status *st) {
    mx_picture_line *line = MX_TAKE(&s->look, mx_picture_line, JOBS_MAX);

    for (int i = 0; i < s->children; i++) {
        MX_TRY(look_at(s, &s->child[i], st));
    }
    mx_arena_rewind(&s->look);
    line = MX_TAKE(&s->look, mx_picture_line, JOBS_MAX);
    for (int i = 0; i < s->children; i++) {
        line[i] = s->child[i].line;
    }
    mx_picture_show(&s->picture, line, s->children, count(s, DONE), left_of_all(s));
    return MX_OK;
}

/* -------------------------------------------------------------------- the loop */

static void pass_on_stop(sweeper *s) {
    s->told_to_stop = true;
    mx_picture_say(&s->picture, "stopping: %d running %s\n", s->children, s->children == 1 ? "run saves its state" : "runs save their state");
    for (int i = 0; i < s->children; i++) {
        kill(s->child[i].pid, SIGINT);
    }
}

static mx_code reap(sweeper *s, mx_status *st) {
    for (int i = s->children - 1; i >= 0; i--) {
        int status;
        pid_t got = waitpid(s->child[i].pid, &status, WNOHANG);

        if (got == s->child[i].pid) {
            MX_TRY(wait_for(s, i, status, st));
        } else if (got < 0 && errno != EINTR) {
            return mx_fail(st, MX_E_IO, MX_NOWHERE, "waiting for %s: %s", s->child[i].member->title, strerror(errno));
        }
    }
    return MX_OK;
}

static mx_code work(sweeper *s, mx_status *st) {
    const struct timespec wait = { .tv_nsec = 250000000 };
    sigset_t ended;

    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    signal(SIGCHLD, SIG_DFL); /* a parent of ours may have ignored it: then children could not be waited for */
    sigprocmask(SIG_BLOCK, &ended, NULL);
    for (;;) {
        bool more = !mx_stop;

        MX_TRY(reap(s, st));
        if (mx_stop && !s->told_to_stop) {
            pass_on_stop(s);
        }
        while (more && s->children < s->wish->jobs) {
            MX_TRY(start_next(s, &more, st));
        }
        if (s->children == 0 && (!more || mx_stop)) {
            return MX_OK;
        }
        if (mx_picture_due(&s->picture)) {
            MX_TRY(show(s, st));
        }
        sigtimedwait(&ended, NULL, &wait); /* until a child ends, a signal comes, or it is time to look */
    }
}

/* The store or the system failed the parent: children are not left without one. */
static void stop_children(sweeper *s) {
    for (int i = 0; i < s->children; i++) {
        kill(s->child[i].pid, SIGINT);
    }
    for (int i = 0; i < s->children; i++) {
        waitpid(s->child[i].pid, NULL, 0);
        close(s->child[i].log);
    }
    s->children = 0;
}

/* -------------------------------------------------------------------- what came of it */

/* "run 19: 'loss is not finite at step 212': mixrun show 19", the first few. */
static const char *failures(const sweeper *s, const char *db_flag) {
    enum { TOLD = 3 };
    const char *text = "";
    int64_t told = 0, all = count(s, FAILED);

    for (int64_t i = 0; i < s->members && told < TOLD; i++) {
        const member *m = &s->member[i];
        int length;

        if (m->place != FAILED) {
            continue;
        }
        length = (int)strcspn(m->reason, "\n"); /* the rest was told when it failed */
        text = m->run_id ? mx_arena_text(s->arena, "%s%srun %lld, %s: '%.*s': mixrun show %lld%s", text, told ? "; " : "",
                                         (long long)m->run_id, m->title, length, m->reason, (long long)m->run_id, db_flag)
                         : mx_arena_text(s->arena, "%s%s%s: '%.*s'", text, told ? "; " : "", m->title, length, m->reason);
        told++;
    }
    return all > told ? mx_arena_text(s->arena, "%s; and %lld more", text, (long long)(all - told)) : text;
}

static mx_code tell(const sweeper *s, mx_status *st) {
    const mx_sweep *w = s->wish->sweep;
    const char *name = mx_shell_word(w->name, s->arena);
    const char *db_flag = strcmp(s->wish->db, "mixrun.db") == 0 ? "" : mx_arena_text(s->arena, " --db %s", mx_shell_word(s->wish->db, s->arena));
    long long done = count(s, DONE), failed = count(s, FAILED), stopped = count(s, STOPPED), elsewhere = count(s, ELSEWHERE);

    if (mx_stop || (stopped && !failed)) {
        mx_fail(st, MX_E_STOPPED, MX_NOWHERE, "stopped: %lld of %lld runs finished, %lld can go on, %lld not begun%s", done,
                (long long)s->members, stopped, (long long)count(s, TO_DO),
                failed ? mx_arena_text(s->arena, ", %lld failed (%s)", failed, failures(s, db_flag)) : "");
        mx_hint(st, s->wish->rerun && stopped ? "mixrun ls --state stopped%s lists them; mixrun resume RUN goes on with each" : "start the sweep again to go on%.0s",
                db_flag);
        return MX_E_STOPPED;
    }
    if (failed) {
        mx_fail(st, MX_E_PARTIAL, MX_NOWHERE, "%lld finished, %s%s%lld failed (%s)", done,
                stopped ? mx_arena_text(s->arena, "%lld stopped, ", stopped) : "",
                elsewhere ? mx_arena_text(s->arena, "%lld running elsewhere, ", elsewhere) : "", failed, failures(s, db_flag));
        mx_hint(st, "start it again to retry what is missing");
        return MX_E_PARTIAL;
    }
    if (elsewhere) {
        mx_fail(st, MX_E_PARTIAL, MX_NOWHERE, "%lld finished, %lld still running elsewhere", done, elsewhere);
        mx_hint(st, "mixrun ls%s tells how far they are; start the sweep again when they are done", db_flag);
        return MX_E_PARTIAL;
    }
    printf(" %s: all %lld runs are finished, in %s\n next: mixrun compare --sweep %s%s · mixrun report --sweep %s%s\n", w->name, done,
           s->wish->db, name, db_flag, name, db_flag);
    return MX_OK;
}

static mx_code open_and_work(sweeper *s, mx_status *st) {
    const mx_sweep *w = s->wish->sweep;
    int64_t done;
    mx_code code;

    if (!s->wish->quiet) {
        mx_warn_network(s->wish->db);
    }
    MX_TRY(mx_store_open(s->wish->db, true, &s->store, st));
    MX_TRY(gather(s, st));
    MX_TRY(refuse_too_big(s, st));
    MX_TRY(mx_sweep_put(w, s->store, s->wish->quiet, s->arena, st));
    done = count(s, DONE);
    mx_picture_begin(&s->picture, s->wish->quiet, s->wish->jobs == 1, s->members);
    for (int64_t i = 0; i < s->members; i++) {
        mx_picture_widen(&s->picture, s->member[i].title);
    }
    mx_picture_say(&s->picture, "%s: %lld runs, %lld done, %lld to do\n", w->name, (long long)s->members, (long long)done,
                   (long long)(s->members - done));
    tell_shared_gpu(s);
    s->began = mx_seconds();
    code = work(s, st);
    mx_picture_clear(&s->picture);
    stop_children(s);
    return code;
}

mx_code mx_sweep_run(const mx_sweep_wish *wish, mx_arena *arena, mx_status *st) {
    sweeper *s = MX_TAKE(arena, sweeper, 1);
    mx_code code;

    s->wish = wish;
    s->arena = arena;
    s->memory = mx_memory_available();
    setenv("MIXRUN_HOME", mx_path_home(arena), 0); /* children find it even when the program's file is replaced meanwhile */
    mx_arena_init(&s->look, (size_t)1 << 30);
    code = open_and_work(s, st);
    if (code == MX_OK) {
        code = tell(s, st);
    }
    mx_store_close(s->store);
    mx_arena_finish(&s->look);
    return code;
}
