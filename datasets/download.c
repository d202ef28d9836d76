/* download.c - one URL to one file, taken up again where it stopped. */
#include "datasets/download.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CONNECT_SECONDS = 30,
    STALL_SECONDS = 60,
    REDIRECTS_MAX = 10,
    TAG_MAX = 256,
};
#define DOWNLOAD_MAX ((curl_off_t)4 << 30) /* bytes; the largest official archive has 680 MB */

typedef struct transfer {
    const mx_fetch_options *o;
    const char *url, *called;
    FILE *part;
    int64_t had;                /* bytes of an earlier try */
    char etag[TAG_MAX], modified[TAG_MAX];
    int64_t whole;              /* of "Content-Range: bytes .../whole"; -1: not said */
    const char *tag_path;
    bool body_began, write_failed, stopped;
} transfer;

/* --- the file's tag: what the server calls this version of it --- */

static void take_header(const char *line, size_t length, const char *name, char *ret)
{
    size_t n = strlen(name);

    if (length <= n || strncasecmp(line, name, n) != 0) {
        return;
    }
    for (line += n, length -= n; length && (*line == ' ' || *line == '\t'); line++) {
        length--;
    }
    while (length && (unsigned char)line[length - 1] <= ' ') {
        length--;
    }
    snprintf(ret, TAG_MAX, "%.*s", length < TAG_MAX ? (int)length : 0, line);
}

/* A redirect has headers of its own: those of the last answer count. */
static size_t on_header(char *line, size_t size, size_t count, void *who)
{
    transfer *t = who;
    size_t length = size * count;
    char range[TAG_MAX] = "";

    if (length > 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        t->etag[0] = t->modified[0] = '\0';
        t->whole = -1;
    }
    take_header(line, length, "ETag:", t->etag);
    take_header(line, length, "Last-Modified:", t->modified);
    take_header(line, length, "Content-Range:", range);
    if (strchr(range, '/')) {
        char *end;
        long long whole = strtoll(strchr(range, '/') + 1, &end, 10);

        t->whole = *end == '\0' ? whole : -1;
    }
    return length;
}

/* A weak ETag may stand for other bytes. */
static const char *tag(const transfer *t)
{
    return t->etag[0] && strncmp(t->etag, "W/", 2) != 0 ? t->etag : t->modified;
}

static void remember_tag(const transfer *t)
{
    mx_status unheard = { 0 };

    if (!tag(t)[0] || mx_file_write(t->tag_path, tag(t), strlen(tag(t)), &unheard)) {
        unlink(t->tag_path); /* without a tag the next try begins anew: slower, never wrong */
    }
}

/* --- while it runs --- */

static size_t on_body(char *data, size_t size, size_t count, void *who)
{
    transfer *t = who;

    if (!t->body_began) {
        t->body_began = true;
        remember_tag(t); /* before the first byte: whatever stops us, the .part has its tag */
    }
    if (fwrite(data, size, count, t->part) != count) {
        t->write_failed = true;
        return 0;
    }
    return size * count;
}

static int on_progress(void *who, curl_off_t total, curl_off_t done, curl_off_t up_total, curl_off_t up_done)
{
    transfer *t = who;

    (void)up_total;
    (void)up_done;
    if (t->o->stop && *t->o->stop) {
        t->stopped = true;
        return 1;
    }
    if (t->o->progress && done > 0) {
        mx_fetch_progress p = { t->called, t->url, t->had + done, total > 0 ? t->had + total : 0 };

        t->o->progress(t->o->who, &p);
    }
    return 0;
}

/* --- what went wrong --- */

static mx_code trouble(const transfer *t, CURLcode result, long answer, const char *details, mx_status *st)
{
    const char *kept = t->body_began ? "\nwhat has come is kept: the same command goes on from there" : "";

    if (t->stopped) {
        return mx_fail(st, MX_E_STOPPED, MX_NOWHERE, "stopped while fetching %s", t->url);
    }
    if (t->write_failed) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "cannot write %s.part: %s", t->called, strerror(errno));
    }
    switch (result) {
    case CURLE_HTTP_RETURNED_ERROR:
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: the server answered %ld%s", t->url, answer,
                       answer == 404   ? " (not found)"
                       : answer == 403 ? " (forbidden)"
                       : answer >= 500 ? " (the server has a problem)"
                                       : "");
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: %s\nis this machine on the network?", t->url, details);
    case CURLE_OPERATION_TIMEDOUT:
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: the server sends nothing any more%s", t->url, kept);
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: the connection broke off%s", t->url, kept);
    default:
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: %s%s", t->url, details, kept);
    }
}

/* --- one request --- */

static void set_up(CURL *curl, transfer *t, char *details)
{
    curl_easy_setopt(curl, CURLOPT_URL, t->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "mixrun/0.1");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, t->o->stall_seconds > 0 ? (long)t->o->stall_seconds : (long)STALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, DOWNLOAD_MAX);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, details);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
}

/* How much of an earlier try can be built on, and the condition to send with the request; 0 and NULL: none. */
static int64_t earlier(const char *part, const char *tag_path, struct curl_slist **ret_condition)
{
    struct stat info;
    mx_status unheard = { 0 };
    char *text = NULL, line[TAG_MAX + 16];
    size_t size;

    *ret_condition = NULL;
    if (stat(part, &info) != 0 || info.st_size == 0 || mx_file_read(tag_path, TAG_MAX, &text, &size, &unheard)) {
        return 0;
    }
    snprintf(line, sizeof line, "If-Range: %s", text);
    free(text);
    *ret_condition = curl_slist_append(NULL, line);
    return *ret_condition ? (int64_t)info.st_size : 0;
}

/* `again` is set when the earlier part is of no use and the whole must be asked for. */
static mx_code request(transfer *t, const char *part, struct curl_slist *condition, bool *again, mx_status *st)
{
    char details[CURL_ERROR_SIZE] = "";
    CURL *curl = curl_easy_init();
    CURLcode result;
    long answer = 0;
    mx_code code = MX_OK;

    t->part = curl ? fopen(part, t->had ? "ab" : "wb") : NULL;
    if (!t->part) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = part }, "cannot open for writing: %s", strerror(errno));
        goto done;
    }
    set_up(curl, t, details);
    if (t->had) {
        curl_easy_setopt(curl, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)t->had);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, condition);
    }
    result = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer);
    if (fclose(t->part) != 0 && !result) {
        t->write_failed = true;
        result = CURLE_WRITE_ERROR;
    }
    if (!t->body_began && !t->had && (result || answer >= 400)) {
        unlink(part); /* nothing came */
    }
    if (answer == 416 && t->had && t->whole == t->had) {
        goto done; /* the earlier try had it all, and was stopped before it could say so */
    }
    *again = t->had && (answer == 416 || result == CURLE_RANGE_ERROR);
    if (result && !*again) {
        code = trouble(t, result, answer, details[0] ? details : curl_easy_strerror(result), st);
    }
done:
    curl_easy_cleanup(curl);
    return code;
}

mx_code mx_download(const char *url, const char *path, const char *called, const mx_fetch_options *o, mx_status *st)
{
    mx_text part = { 0 }, tag_path = { 0 };
    struct curl_slist *condition = NULL;
    transfer t = { .o = o, .url = url, .called = called, .whole = -1 };
    bool again = false;
    mx_code code;

    if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "libcurl does not start");
    }
    mx_text_init(&part, 1 << 16);
    mx_text_init(&tag_path, 1 << 16);
    mx_text_print(&part, "%s.part", path);
    mx_text_print(&tag_path, "%s.tag", path);
    t.tag_path = tag_path.data;
    t.had = earlier(part.data, tag_path.data, &condition);
    code = request(&t, part.data, condition, &again, st);
    if (!code && again) {
        t = (transfer){ .o = o, .url = url, .called = called, .whole = -1, .tag_path = tag_path.data };
        code = request(&t, part.data, NULL, &again, st);
    }
    if (!code && rename(part.data, path) != 0) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = path }, "cannot move the download here: %s", strerror(errno));
    }
    if (!code) {
        unlink(tag_path.data);
    }
    curl_slist_free_all(condition);
    mx_text_finish(&part);
    mx_text_finish(&tag_path);
    curl_global_cleanup();
    return code;
}
