/* Fetching, from a server of our own on the loopback that does what real ones do: ranges, redirects, breaking off. */
#include "datasets/fetch.h"

#include "tests/datasets/material.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

/* --- the server --- */

/* What is at a path. */
typedef struct page {
    const char *path, *body;
    size_t size;
    int break_after;     /* the first answer ends after so many bytes, though more were promised; 0: does not */
    const char *etag;    /* NULL: none */
    bool no_ranges;      /* ignores Range, as simple servers do */
    const char *move_to; /* a redirect */
} page;

typedef struct server {
    pid_t pid;
    int port;
    const char *log; /* one line per request: path, range or - */
} server;

static const char *header(const char *request, const char *name, char *ret, size_t size)
{
    const char *at = strcasestr(request, name);

    ret[0] = '\0';
    if (at) {
        at += strlen(name);
        at += strspn(at, " ");
        snprintf(ret, size, "%.*s", (int)strcspn(at, "\r\n"), at);
    }
    return ret;
}

static void put(int to, const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(to, data, size);

        if (n <= 0) {
            return;
        }
        data += n;
        size -= (size_t)n;
    }
}

static void answer(int to, const char *request, const page *p, int asked)
{
    char range[100], condition[200], head[600];
    size_t from = 0;
    bool broken;

    header(request, "\nRange:", range, sizeof range);
    header(request, "\nIf-Range:", condition, sizeof condition);
    if (p->move_to) {
        put(to, head, (size_t)snprintf(head, sizeof head, "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n"
                                                          "Connection: close\r\n\r\n", p->move_to));
        return;
    }
    if (range[0] && !p->no_ranges && (!condition[0] || (p->etag && strcmp(condition, p->etag) == 0))) {
        from = (size_t)atoll(range + strlen("bytes="));
    }
    if (from >= p->size && from) {
        put(to, head, (size_t)snprintf(head, sizeof head, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */%zu\r\n"
                                                          "Content-Length: 0\r\nConnection: close\r\n\r\n", p->size));
        return;
    }
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n", from ? "206 Partial Content" : "200 OK",
             p->size - from);
    if (from) {
        sprintf(head + strlen(head), "Content-Range: bytes %zu-%zu/%zu\r\n", from, p->size - 1, p->size);
    }
    if (p->etag) {
        sprintf(head + strlen(head), "ETag: %s\r\n", p->etag);
    }
    strcat(head, "\r\n");
    put(to, head, strlen(head));
    broken = p->break_after && asked == 0;
    put(to, p->body + from, broken ? (size_t)p->break_after : p->size - from);
}

static void serve(int listener, const page *pages, const char *log)
{
    int asked[32] = { 0 };

    for (;;) {
        char request[4096] = "", path[200] = "", range[100];
        int to = accept(listener, NULL, NULL), which = -1;
        size_t got = 0;
        ssize_t n;
        FILE *out;

        while (got + 1 < sizeof request && !strstr(request, "\r\n\r\n") &&
               (n = read(to, request + got, sizeof request - 1 - got)) > 0) {
            got += (size_t)n;
            request[got] = '\0';
        }
        sscanf(request, "GET %199s", path);
        out = fopen(log, "a");
        fprintf(out, "%s %s\n", path, *header(request, "\nRange:", range, sizeof range) ? range : "-");
        fclose(out);
        for (int i = 0; pages[i].path; i++) {
            which = strcmp(pages[i].path, path) == 0 ? i : which;
        }
        if (which >= 0) {
            answer(to, request, &pages[which], asked[which]++);
        } else {
            put(to, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 64);
        }
        close(to);
    }
}

static server start(const char *folder, const page *pages)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    server s = { .log = mx_arena_text(arena(), "%s/log", folder) };

    cr_assert(listener >= 0 && bind(listener, (struct sockaddr *)&at, size) == 0 && listen(listener, 8) == 0 &&
              getsockname(listener, (struct sockaddr *)&at, &size) == 0, "no loopback to listen on");
    s.port = ntohs(at.sin_port);
    setenv("no_proxy", "127.0.0.1", 1);
    s.pid = fork();
    if (s.pid == 0) {
        signal(SIGPIPE, SIG_IGN);
        serve(listener, pages, s.log);
    }
    close(listener);
    return s;
}

static void stop(const server *s)
{
    kill(s->pid, SIGTERM);
    waitpid(s->pid, NULL, 0);
}

static const char *requests(const server *s)
{
    const char *ret;
    char *text;
    size_t size;
    mx_status st = { 0 };

    if (mx_file_read(s->log, 1 << 16, &text, &size, &st)) {
        return "";
    }
    ret = mx_arena_copy(arena(), text, size);
    free(text);
    return ret;
}

/* --- tasks that name it --- */

/* `files` is the YAML's list, %d its port, as often as it needs it (at most four times). */
static const mx_task *make_task(const char *folder, const server *s, const char *files)
{
    mx_text yaml;
    const mx_task *t;

    mx_text_init(&yaml, 1 << 16);
    mx_text_print(&yaml, "name: made\nfiles:\n");
    for (const char *at = files; *at; at++) {
        if (*at == '@') {
            mx_text_print(&yaml, "http://127.0.0.1:%d", s->port);
        } else {
            mx_text_add(&yaml, at, 1);
        }
    }
    mx_text_print(&yaml, "\nsplits: {train: {file: a}}\nfields: [q]\nchoices: {texts: [x, y], labels: [A, B]}\nanswer: {at: k}\n"
                         "prompts: {loglikelihood: {context: \"{q}\"}}\nprotocols: [loglikelihood]\n");
    t = read_task(write_text(folder, "made.yaml", yaml.data));
    mx_text_finish(&yaml);
    return t;
}

static mx_code fetch(const mx_task *t, const char *folder, mx_fetch_report *ret, mx_status *st)
{
    mx_fetch_options o = { .folder = mx_arena_text(arena(), "%s/to", folder), .stall_seconds = 5 };

    *st = (mx_status){ 0 };
    return mx_fetch_task(t, &o, arena(), ret, st);
}

static void expect_file(const char *folder, const char *name, const char *body, size_t size)
{
    char *data;
    size_t got;
    mx_status st = { 0 };

    cr_assert_eq(mx_file_read(mx_arena_text(arena(), "%s/to/%s", folder, name), 1 << 24, &data, &got, &st), MX_OK, "%s", st.text);
    cr_expect(got == size && memcmp(data, body, size) == 0, "%s has other bytes", name);
    free(data);
}

static bool there(const char *folder, const char *name)
{
    return mx_file_exists(mx_arena_text(arena(), "%s/to/%s", folder, name));
}

static int files_in(const char *folder)
{
    FILE *list = popen(mx_arena_text(arena(), "ls -A %s/to | wc -l", folder), "r");
    int n = -1;

    cr_assert(list && fscanf(list, "%d", &n) == 1);
    pclose(list);
    return n;
}

static char *noise(size_t size)
{
    char *data = mx_arena_take(arena(), size);

    for (size_t i = 0; i < size; i++) {
        data[i] = (char)(i * 2654435761u >> 13);
    }
    return data;
}

Test(fetch, a_file_is_fetched_checked_and_then_left_alone)
{
    const char *folder = enter_folder(), *body = "hello\n";
    const page pages[] = { { .path = "/a", .body = body, .size = 6, .etag = "\"1\"" }, { 0 } };
    server s = start(folder, pages);
    char hash[MX_SHA256_TEXT];
    const mx_task *t;
    mx_fetch_report r;
    mx_status st;

    mx_sha256(body, 6, hash);
    t = make_task(folder, &s, mx_arena_text(arena(), "  - {name: a, urls: [\"@/a\"], sha256: %s}", hash));
    cr_assert_eq(fetch(t, folder, &r, &st), MX_OK, "%s", st.text);
    cr_assert_eq(r.count, 1u);
    cr_expect(r.file[0].verified);
    cr_expect_eq(r.file[0].state, MX_FETCHED_NEW);
    cr_expect_str_eq(r.file[0].sha256, hash);
    expect_file(folder, "a", body, 6);
    cr_expect_eq(files_in(folder), 1, "nothing else is left");
    cr_assert_eq(fetch(t, folder, &r, &st), MX_OK, "%s", st.text);
    cr_expect_eq(r.file[0].state, MX_FETCHED_PRESENT);
    cr_expect_str_eq(requests(&s), "/a -\n", "the second time asks for nothing");
    stop(&s);
    leave_folder(folder);
}

Test(fetch, where_no_hash_is_known_the_sum_is_told_and_called_not_verified)
{
    const char *folder = enter_folder();
    const page pages[] = { { .path = "/a", .body = "hello\n", .size = 6 }, { 0 } };
    server s = start(folder, pages);
    char hash[MX_SHA256_TEXT];
    mx_fetch_report r;
    mx_status st;

    mx_sha256("hello\n", 6, hash);
    cr_assert_eq(fetch(make_task(folder, &s, "  - {name: a, urls: [\"@/a\"]}"), folder, &r, &st), MX_OK, "%s", st.text);
    cr_expect(!r.file[0].verified);
    cr_expect_str_eq(r.file[0].sha256, hash);
    stop(&s);
    leave_folder(folder);
}

Test(fetch, a_broken_download_goes_on_where_it_stopped)
{
    const size_t size = 300000;
    const char *folder = enter_folder();
    char *body = noise(size), hash[MX_SHA256_TEXT];
    const page pages[] = { { .path = "/a", .body = body, .size = size, .etag = "\"1\"", .break_after = 100000 }, { 0 } };
    server s = start(folder, pages);
    const mx_task *t;
    mx_fetch_report r;
    mx_status st;

    mx_sha256(body, size, hash);
    t = make_task(folder, &s, mx_arena_text(arena(), "  - {name: a, urls: [\"@/a\"], sha256: %s}", hash));
    cr_assert_eq(fetch(t, folder, &r, &st), MX_E_IO);
    cr_expect(strstr(st.text, "the connection broke off\nwhat has come is kept"), "%s", st.text);
    cr_expect_eq(r.count, 0u);
    cr_expect(!there(folder, "a"), "nothing is under the final name before it is whole");
    cr_assert_eq(fetch(t, folder, &r, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(requests(&s), "/a -\n/a bytes=100000-\n");
    expect_file(folder, "a", body, size);
    cr_expect_eq(files_in(folder), 1);
    stop(&s);
    leave_folder(folder);
}

Test(fetch, a_part_of_another_version_or_of_a_server_without_ranges_is_not_built_upon)
{
    const size_t size = 200000;
    static const struct {
        const char *tag, *first_tag;
        bool no_ranges;
        const char *asked;
    } cases[] = {
        { "\"2\"", "\"1\"", false, "/a bytes=50000-\n/a -\n" }, /* If-Range: another version, so the whole comes */
        { "\"1\"", "\"1\"", true, "/a bytes=50000-\n/a -\n" },
        { NULL, NULL, false, "/a -\n" }, /* nothing tells versions apart: not even tried */
    };
    char *body = noise(size);

    for (int i = 0; i < 3; i++) {
        const char *folder = enter_folder();
        const page pages[] = { { .path = "/a", .body = body, .size = size, .etag = cases[i].tag, .no_ranges = cases[i].no_ranges }, { 0 } };
        server s = start(folder, pages);
        mx_fetch_report r;
        mx_status st = { 0 };

        cr_assert_eq(mx_folder_make(mx_arena_text(arena(), "%s/to", folder), &st), MX_OK);
        cr_assert_eq(mx_file_write(mx_arena_text(arena(), "%s/to/a.download.part", folder), body + 7, 50000, &st), MX_OK);
        if (cases[i].first_tag) {
            write_text(folder, "to/a.download.tag", cases[i].first_tag);
        }
        cr_assert_eq(fetch(make_task(folder, &s, "  - {name: a, urls: [\"@/a\"]}"), folder, &r, &st), MX_OK, "%s", st.text);
        cr_expect_str_eq(requests(&s), cases[i].asked, "case %d", i);
        expect_file(folder, "a", body, size);
        stop(&s);
        leave_folder(folder);
    }
}

Test(fetch, a_part_that_was_already_whole_is_taken)
{
    const char *folder = enter_folder();
    const page pages[] = { { .path = "/a", .body = "hello\n", .size = 6, .etag = "\"1\"" }, { 0 } };
    server s = start(folder, pages);
    mx_fetch_report r;
    mx_status st = { 0 };

    cr_assert_eq(mx_folder_make(mx_arena_text(arena(), "%s/to", folder), &st), MX_OK);
    write_text(folder, "to/a.download.part", "hello\n");
    write_text(folder, "to/a.download.tag", "\"1\"");
    cr_assert_eq(fetch(make_task(folder, &s, "  - {name: a, urls: [\"@/a\"]}"), folder, &r, &st), MX_OK, "%s", st.text);
    expect_file(folder, "a", "hello\n", 6);
    stop(&s);
    leave_folder(folder);
}

Test(fetch, another_hash_than_the_yamls_is_refused_and_nothing_is_put_in_place)
{
    const char *folder = enter_folder();
    const page pages[] = { { .path = "/a", .body = "hello\n", .size = 6, .etag = "\"1\"" }, { 0 } };
    server s = start(folder, pages);
    const mx_task *t = make_task(
        folder, &s, "  - {name: a, urls: [\"@/a\"], sha256: 0000000000000000000000000000000000000000000000000000000000000000}");
    mx_fetch_report r;
    mx_status st;

    cr_assert_eq(fetch(t, folder, &r, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "has the sha256") && strstr(st.text, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"),
              "%s", st.text);
    cr_expect_eq(files_in(folder), 0);
    stop(&s);
    leave_folder(folder);
}

Test(fetch, urls_are_tried_in_turn_redirects_followed_and_the_last_trouble_told)
{
    const char *folder = enter_folder();
    const page pages[] = { { .path = "/b", .move_to = "/c" }, { .path = "/c", .body = "hello\n", .size = 6 }, { 0 } };
    server s = start(folder, pages);
    mx_fetch_report r;
    mx_status st;

    cr_assert_eq(fetch(make_task(folder, &s, "  - {name: a, urls: [\"@/gone\", \"@/b\"]}"), folder, &r, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(requests(&s), "/gone -\n/b -\n/c -\n");
    expect_file(folder, "a", "hello\n", 6);
    leave_folder(mx_arena_text(arena(), "%s/to", folder));
    cr_assert_eq(fetch(make_task(folder, &s, "  - {name: a, urls: [\"@/b\"]}\n  - {name: z, urls: [\"@/gone\"]}"), folder, &r, &st),
                 MX_E_IO);
    cr_expect(strstr(st.text, "/gone: the server answered 404 (not found)"), "%s", st.text);
    cr_expect_eq(r.count, 1u, "what came before stays, and is told");
    cr_expect(there(folder, "a"));
    stop(&s);
    leave_folder(folder);
}

/* --- archives --- */

/* A zip with these members; returns its bytes. */
static char *make_zip(const char *folder, const char *const *name, const char *const *body, int n, size_t *ret_size)
{
    const char *path = mx_arena_text(arena(), "%s/made.zip", folder);
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    char *data, *ret;
    mx_status st = { 0 };

    for (int i = 0; i < n; i++) {
        cr_assert(zip_file_add(zip, name[i], zip_source_buffer(zip, body[i], strlen(body[i]), 0), ZIP_FL_ENC_UTF_8) >= 0);
    }
    cr_assert_eq(zip_close(zip), 0);
    cr_assert_eq(mx_file_read(path, 1 << 20, &data, ret_size, &st), MX_OK, "%s", st.text);
    ret = mx_arena_copy(arena(), data, *ret_size);
    free(data);
    return ret;
}

static const char *const MEMBERS[] = { "V1/Data/a.jsonl", "V1/Data/b.jsonl", "V1/Old/b.jsonl", "V1/Data/xa.jsonl" };
static const char *const BODIES[] = { "{\"n\": 1}\n", "{\"n\": 2}\n", "{\"n\": 3}\n", "{\"n\": 4}\n" };

Test(fetch, members_of_one_archive_come_from_one_download_and_the_archive_leaves)
{
    const char *folder = enter_folder();
    size_t size;
    char *zip = make_zip(folder, MEMBERS, BODIES, 4, &size);
    const page pages[] = { { .path = "/v1.zip", .body = zip, .size = size, .etag = "\"1\"" }, { 0 } };
    server s = start(folder, pages);
    mx_fetch_report r;
    mx_status st;

    cr_assert_eq(fetch(make_task(folder, &s, "  - {name: a, urls: [\"@/v1.zip\"], member: Data/a.jsonl}\n"
                                             "  - {name: b, urls: [\"@/v1.zip\"], member: V1/Data/b.jsonl}"),
                       folder, &r, &st), MX_OK, "%s", st.text);
    cr_expect_str_eq(requests(&s), "/v1.zip -\n");
    expect_file(folder, "a", BODIES[0], strlen(BODIES[0]));
    expect_file(folder, "b", BODIES[1], strlen(BODIES[1]));
    cr_expect_eq(files_in(folder), 2);
    stop(&s);
    leave_folder(folder);
}

Test(fetch, a_zip_that_is_cut_spoilt_or_lacks_the_member_is_refused_in_words)
{
    const char *folder = enter_folder();
    size_t size;
    char *zip = make_zip(folder, MEMBERS, BODIES, 4, &size), *spoilt = mx_arena_take(arena(), size);
    const page pages[] = { { .path = "/whole.zip", .body = zip, .size = size },
                           { .path = "/cut.zip", .body = zip, .size = size / 2 },
                           { .path = "/spoilt.zip", .body = spoilt, .size = size },
                           { 0 } };
    static const struct {
        const char *file, *says;
    } cases[] = {
        { "  - {name: a, urls: [\"@/cut.zip\"], member: Data/a.jsonl}", "not a whole zip file" },
        { "  - {name: a, urls: [\"@/spoilt.zip\"], member: Data/a.jsonl}", "Data/a.jsonl in the zip is broken" },
        { "  - {name: a, urls: [\"@/whole.zip\"], member: Data/c.jsonl}", "the zip has no member called Data/c.jsonl" },
        { "  - {name: a, urls: [\"@/whole.zip\"], member: b.jsonl}", "the zip has several members called b.jsonl" },
    };
    server s;

    memcpy(spoilt, zip, size);
    for (size_t i = 0; i + 8 < size; i++) { /* the body is small enough to be stored or deflated in place: change a byte of it */
        if (memcmp(spoilt + i, "V1/Data/a.jsonl", 15) == 0) {
            spoilt[i + 15 + 3] ^= 0x10;
            break;
        }
    }
    s = start(folder, pages);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mx_fetch_report r;
        mx_status st;

        cr_expect_eq(fetch(make_task(folder, &s, cases[i].file), folder, &r, &st), MX_E_DATA, "%s", cases[i].says);
        cr_expect(strstr(st.text, cases[i].says), "says: %s", st.text);
        cr_expect_eq(files_in(folder), 0, "a broken archive is not kept to fail again");
    }
    stop(&s);
    leave_folder(folder);
}

Test(fetch, a_packed_file_is_put_in_place_unpacked)
{
    const char *folder = enter_folder(), *path = mx_arena_text(arena(), "%s/a.gz", folder);
    gzFile f = gzopen(path, "wb");
    char *zipped, hash[MX_SHA256_TEXT];
    size_t size = 0;
    mx_fetch_report r;
    mx_status st = { 0 };
    mx_map map;
    server s;

    gzputs(f, "hello\n");
    gzclose(f);
    mx_sha256("hello\n", 6, hash);
    cr_assert_eq(mx_map_open(path, &map, &st), MX_OK);
    zipped = mx_arena_take(arena(), map.size);
    memcpy(zipped, map.data, size = map.size);
    s = start(folder, (const page[]){ { .path = "/a.gz", .body = zipped, .size = size }, { 0 } });
    cr_assert_eq(fetch(make_task(folder, &s, mx_arena_text(arena(), "  - {name: a, urls: [\"@/a.gz\"], sha256: %s}", hash)), folder,
                       &r, &st), MX_OK, "%s", st.text);
    expect_file(folder, "a", "hello\n", 6);
    stop(&s);
    mx_map_close(&map);
    leave_folder(folder);
}

static int64_t told_done, told_total;

static void tell(void *who, const mx_fetch_progress *p)
{
    (void)who;
    cr_expect(p->done >= told_done, "progress goes forward");
    told_done = p->done;
    told_total = p->total;
}

Test(fetch, progress_counts_to_the_whole_and_a_stop_is_obeyed)
{
    const size_t size = 2000000;
    const char *folder = enter_folder();
    const page pages[] = { { .path = "/a", .body = noise(size), .size = size, .etag = "\"1\"" }, { 0 } };
    server s = start(folder, pages);
    const mx_task *t = make_task(folder, &s, "  - {name: a, urls: [\"@/a\"]}");
    mx_fetch_options o = { .folder = mx_arena_text(arena(), "%s/to", folder), .progress = tell };
    volatile int now = 1;
    mx_fetch_report r;
    mx_status st = { 0 };

    o.stop = &now;
    cr_expect_eq(mx_fetch_task(t, &o, arena(), &r, &st), MX_E_STOPPED);
    cr_expect(!there(folder, "a"));
    now = 0;
    st = (mx_status){ 0 };
    cr_assert_eq(mx_fetch_task(t, &o, arena(), &r, &st), MX_OK, "%s", st.text);
    cr_expect_eq(told_done, (int64_t)size);
    cr_expect_eq(told_total, (int64_t)size);
    stop(&s);
    leave_folder(folder);
}

Test(fetch, a_task_without_official_places_says_so)
{
    const char *folder = enter_folder();
    mx_fetch_report r;
    mx_status st;

    cr_assert_eq(fetch(read_task("sample_arc"), folder, &r, &st), MX_E_MISSING);
    cr_expect_str_eq(st.text, "task 'sample_arc' has no official place to fetch from");
    leave_folder(folder);
}
