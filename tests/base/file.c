/* file.c - reading, unpacking, writing, hashing; and arenas and failures, which need no more than this. */
#include "base/file.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static void enter_folder(void) {
    char folder[] = "/tmp/mixrun-file-XXXXXX";

    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
}

static void leave_folder(void) {
    char folder[4096];
    mx_status st = { 0 };

    cr_assert(getcwd(folder, sizeof folder) && chdir("/") == 0);
    cr_assert_eq(mx_folder_remove(folder, &st), MX_OK);
    cr_assert(!mx_folder_exists(folder));
}

static void put(const char *path, const void *data, size_t size) {
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(path, data, size, &st), MX_OK, "%s", st.text);
}

static void expect_read(const char *path, size_t limit, mx_code expected, const char *text) {
    mx_status st = { 0 };
    char *data;
    size_t size;
    mx_code code = mx_file_read(path, limit, &data, &size, &st);

    cr_assert_eq(code, expected, "%s: %s", path, st.text);
    if (!code) {
        cr_assert_eq(size, strlen(text));
        cr_assert_str_eq(data, text);
        free(data);
    } else {
        cr_assert_str_eq(st.text, text);
        cr_assert_str_eq(st.at.file, path);
    }
}

/* One gzip member. */
static size_t pack(const char *text, char *to, size_t room) {
    z_stream z = { .next_in = (Bytef *)(uintptr_t)text, .avail_in = (uInt)strlen(text) };

    cr_assert_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_out = (Bytef *)to;
    z.avail_out = (uInt)room;
    cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

Test(file, reads_plain_and_packed_text_up_to_its_limit) {
    char packed[400];
    size_t size;

    enter_folder();
    put("plain", "hello", 5);
    expect_read("plain", 5, MX_OK, "hello");
    expect_read("plain", 4, MX_E_DATA, "larger than the 4 bytes allowed here");
    put("empty", "", 0);
    expect_read("empty", 0, MX_OK, "");
    expect_read("absent", 9, MX_E_IO, "cannot open: No such file or directory");
    expect_read(".", 9, MX_E_IO, "cannot read: Is a directory");
    size = pack("first\n", packed, sizeof packed);
    size += pack("second\n", packed + size, sizeof packed - size);
    put("x.gz", packed, size);
    expect_read("x.gz", 1000, MX_OK, "first\nsecond\n");
    put("cut.gz", packed, size - 3);
    expect_read("cut.gz", 1000, MX_E_DATA, "this gzip file ends in the middle: is the download complete?");
    packed[size] = 'x';
    put("more.gz", packed, size + 1);
    expect_read("more.gz", 1000, MX_E_DATA, "this gzip file ends in the middle: is the download complete?");
    packed[15] ^= 0x55;
    put("bad.gz", packed, size);
    cr_assert_neq(mx_file_read("bad.gz", 1000, &(char *){ NULL }, &(size_t){ 0 }, NULL), MX_OK);
    leave_folder();
}

Test(file, refuses_a_small_file_that_unpacks_to_a_large_one) {
    char *text = malloc(1 << 20), packed[4000];

    memset(text, 'a', 1 << 20);
    text[(1 << 20) - 1] = '\0';
    enter_folder();
    put("bomb.gz", packed, pack(text, packed, sizeof packed));
    expect_read("bomb.gz", 100000, MX_E_DATA, "larger than the 97.7 KiB allowed here");
    leave_folder();
    free(text);
}

Test(file, writes_whole_or_not_at_all) {
    mx_status st = { 0 };
    struct stat info;

    enter_folder();
    put("x", "old", 3);
    put("x", "newer", 5);
    expect_read("x", 10, MX_OK, "newer");
    cr_assert_eq(mx_file_write("no/such/folder/x", "a", 1, &st), MX_E_IO);
    cr_assert_eq(mx_folder_make("a/b/c", &st), MX_OK);
    cr_assert_eq(mx_folder_make("a/b/c", NULL), MX_OK);
    cr_assert_eq(mx_folder_make("x/y", NULL), MX_E_IO, "x is a file");
    cr_assert(mx_folder_exists("a/b/c") && !mx_file_exists("a/b/c") && mx_file_exists("x"));
    cr_assert_eq(symlink("../x", "a/link"), 0);
    cr_assert_eq(mx_folder_remove("a", NULL), MX_OK);
    cr_assert_eq(stat("x", &info), 0, "a link is removed, not what it names");
    cr_assert_eq(mx_folder_remove("a", NULL), MX_OK, "what is not there is fine");
    leave_folder();
}

Test(file, maps) {
    mx_status st = { 0 };
    mx_map m;

    enter_folder();
    put("x", "abc", 3);
    put("empty", "", 0);
    cr_assert_eq(mx_map_open("x", &m, &st), MX_OK);
    cr_assert(m.size == 3 && memcmp(m.data, "abc", 3) == 0);
    mx_map_close(&m);
    mx_map_close(&m);
    cr_assert_eq(mx_map_open("empty", &m, &st), MX_OK);
    cr_assert(m.size == 0 && m.data);
    mx_map_close(&m);
    cr_assert_eq(mx_map_open(".", &m, &st), MX_E_IO);
    leave_folder();
}

Test(file, hashes_as_published) {
    char hex[MX_SHA256_TEXT], other[MX_SHA256_TEXT];
    mx_hasher *h;

    mx_sha256("abc", 3, hex); /* FIPS 180-2, B.1 */
    cr_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    enter_folder();
    put("x", "abc", 3);
    cr_assert_eq(mx_sha256_file("x", other, NULL), MX_OK);
    cr_assert_str_eq(hex, other);
    cr_assert_eq(mx_sha256_file("absent", other, NULL), MX_E_IO);
    leave_folder();
    h = mx_hasher_open();
    mx_hasher_add(h, "ab", 2);
    mx_hasher_add(h, "c", 1);
    mx_hasher_close(h, hex);
    h = mx_hasher_open();
    mx_hasher_add(h, "a", 1);
    mx_hasher_add(h, "bc", 2);
    mx_hasher_close(h, other);
    cr_assert_str_neq(hex, other);
    mx_hasher_close(mx_hasher_open(), NULL);
}

Test(file, knows_where_people_keep_things) {
    mx_arena arena;

    mx_arena_init(&arena, 1 << 20);
    setenv("MIXRUN_HOME", "/some/where", 1);
    cr_assert_str_eq(mx_path_home(&arena), "/some/where");
    setenv("XDG_CACHE_HOME", "/c", 1);
    cr_assert_str_eq(mx_path_cache(&arena), "/c/mixrun");
    setenv("XDG_CACHE_HOME", "relative", 1);
    setenv("HOME", "/home/ada", 1);
    cr_assert_str_eq(mx_path_cache(&arena), "/home/ada/.cache/mixrun");
    mx_arena_finish(&arena);
}

Test(arena, gives_zeroed_aligned_memory_and_keeps_it_for_the_next_round) {
    mx_arena a;
    char *first;

    mx_arena_init(&a, 10 << 20);
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < 200000; size = 3 * size + 1) {
            char *taken = mx_arena_take(&a, size);

            cr_assert_eq((uintptr_t)taken % 16, 0);
            for (size_t i = 0; i < size; i++) {
                cr_assert_eq(taken[i], 0);
            }
            memset(taken, 0xff, size);
        }
        mx_arena_rewind(&a);
        cr_assert_eq(a.used, 0);
    }
    first = mx_arena_take(&a, 1);
    mx_arena_rewind(&a);
    cr_assert_eq(mx_arena_take(&a, 1), first, "the same memory again");
    cr_assert_str_eq(mx_arena_text(&a, "%d-%s", 7, "x"), "7-x");
    cr_assert_gt(a.peak, 100000);
    mx_arena_finish(&a);
    mx_arena_finish(&a);
}

Test(arena, ends_the_process_at_its_ceiling, .exit_code = 1) {
    mx_arena a;

    mx_arena_init(&a, 1000);
    mx_arena_take(&a, 500);
    mx_arena_take(&a, SIZE_MAX);
}

Test(status, the_first_failure_wins) {
    mx_status st = { 0 };

    cr_assert_eq(mx_fail(&st, MX_E_DATA, MX_NOWHERE, "first %d", 1), MX_E_DATA);
    cr_assert_eq(mx_fail(&st, MX_E_IO, MX_NOWHERE, "second"), MX_E_IO);
    cr_assert_str_eq(st.text, "first 1");
    mx_hint(&st, "do %s", "this");
    mx_hint(&st, "or that");
    cr_assert_str_eq(st.hint, "do this");
    cr_assert_eq(mx_fail(NULL, MX_E_STORE, MX_NOWHERE, "nobody listens"), MX_E_STORE);
}

static void expect_print(const mx_status *st, const char *expected) {
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);

    mx_status_print(st, file);
    fclose(file);
    cr_assert_str_eq(out, expected);
    free(out);
}

Test(status, tells_place_line_caret_and_hint) {
    mx_status st = { .code = MX_E_DATA, .text = "went wrong" };
    char packed[200];

    expect_print(&st, "mixrun: error: went wrong\n");
    st.at = (mx_mark){ .file = "x.gguf" };
    expect_print(&st, "x.gguf: error: went wrong\n");
    st.at.line = 118;
    expect_print(&st, "x.gguf:118: error: went wrong\n");
    st.at = (mx_mark){ .file = "argument 2", .text = "a\x1b[31m=\xc3\xa9t\xc3\xa9 x", .line = 1, .column = 8, .length = 5 };
    snprintf(st.hint, sizeof st.hint, "try\nagain");
    expect_print(&st, "argument 2:1:8: error: went wrong\n    1 | a?[31m=\xc3\xa9t\xc3\xa9 x\n      |        ^~~\n   try\n   again\n");

    enter_folder();
    st.hint[0] = '\0';
    put("x.gz", packed, pack("one\ntwo\tthree\r\n", packed, sizeof packed));
    st.at = (mx_mark){ .file = "x.gz", .line = 2, .column = 5, .length = 5 };
    expect_print(&st, "x.gz:2:5: error: went wrong\n    2 | two three\n      |     ^~~~~\n");
    st.at.line = 9; /* the file has changed since */
    expect_print(&st, "x.gz:9:5: error: went wrong\n");
    leave_folder();
}

Test(status, shows_a_long_line_around_its_mark) {
    mx_status st = { .code = MX_E_DATA, .text = "bad" };
    char line[1001], expected[2000];

    memset(line, 'a', 1000);
    line[1000] = '\0';
    line[499] = 'X';
    st.at = (mx_mark){ .file = "f", .text = line, .line = 1, .column = 500, .length = 1 };
    snprintf(expected, sizeof expected, "f:1:500: error: bad\n    1 | ...%.100s...\n      |    %*s^\n", line + 450, 49, "");
    expect_print(&st, expected);
}

Test(status, maps_codes_to_exit_codes) {
    cr_assert_eq(mx_exit_code(MX_OK), 0);
    cr_assert_eq(mx_exit_code(MX_E_DATA), 1);
    cr_assert_eq(mx_exit_code(MX_E_USAGE), 2);
    cr_assert_eq(mx_exit_code(MX_E_RECIPE), 2);
    cr_assert_eq(mx_exit_code(MX_E_CHECK), 3);
    cr_assert_eq(mx_exit_code(MX_E_STOPPED), 75);
}

Test(status, sorts_problems_and_counts_those_it_does_not_keep) {
    mx_problems p;
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);

    mx_problems_init(&p);
    mx_problem(&p, (mx_mark){ .file = "argument 10" }, NULL, "d");
    mx_problem(&p, (mx_mark){ .file = "argument 9" }, NULL, "c");
    mx_problem(&p, (mx_mark){ .file = "a", .line = 10 }, NULL, "b");
    mx_problem(&p, (mx_mark){ .file = "a", .line = 9 }, NULL, "a");
    mx_problems_print(&p, file);
    for (int i = 0; i < 200; i++) {
        mx_problem(&p, MX_NOWHERE, NULL, "more");
    }
    cr_assert(p.kept == MX_PROBLEMS_MAX && p.count == 204);
    fclose(file);
    cr_assert_str_eq(out, "a:9: error: a\na:10: error: b\nargument 9: error: c\nargument 10: error: d\n"
                          "4 errors; nothing was started\n");
    free(out);
    mx_problems_finish(&p);
}
