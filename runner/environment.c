/* environment.c - see environment.h. */
#include "runner/environment.h"

#include "base/mount.h"
#include "kernels/cuda/probe.h"
#include "model/hub.h"
#include "runner/build.h"
#include "runner/device.h"
#include "runner/plan.h"

#include <curl/curl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <zlib.h>

const char *mx_version_text(void) {
    return MX_COMMIT[0] ? "mixrun " MX_VERSION " (" MX_COMMIT ")" : "mixrun " MX_VERSION;
}

static void processor_name(char *ret, size_t size) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");

    snprintf(ret, size, "unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) == 0 && colon) {
            snprintf(ret, size, "%s", colon + 2);
            ret[strcspn(ret, "\n")] = '\0';
            break;
        }
    }
    if (f) {
        fclose(f);
    }
}

void mx_environment_json(const mx_backend *b, mx_text *out) {
    char processor[200];
    struct utsname system;
    json_t *o;
    char *text;

    processor_name(processor, sizeof processor);
    uname(&system);
    o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "mixrun", MX_VERSION, "commit", MX_COMMIT, "device", b->name,
                  "backend", b->description, "precision", b->precision == MX_PRECISION_BF16 ? "bf16" : "f32", "processor",
                  processor, "system", system.sysname, "release", system.release, "machine", system.machine);
    text = json_dumps(o, JSON_SORT_KEYS | JSON_COMPACT);
    mx_text_print(out, "%s", text ? text : "{}");
    free(text);
    json_decref(o);
}

const char *mx_environment_text(const char *json, const char *name, mx_arena *arena) {
    json_t *o = json_loads(json, 0, NULL);
    const char *value = json_string_value(json_object_get(o, name)), *kept = value ? mx_arena_copy(arena, value, strlen(value)) : "";

    json_decref(o);
    return kept;
}

bool mx_environment_on(const char *json, const char *device) {
    json_t *o = json_loads(json, 0, NULL);
    const char *then = json_string_value(json_object_get(o, "device"));
    bool same = then && mx_device_is_gpu(then) == mx_device_is_gpu(device);

    json_decref(o);
    return same;
}

/* What the recipe's `auto` words mean here. */
static void print_auto(mx_text *out) {
    const char *why, *device = mx_device_of("auto", &why);

    mx_text_print(out, "  device     auto is %s%s%s%s\n", device, why[0] ? " (" : "", why, why[0] ? ")" : "");
    if (mx_device_is_gpu(device)) {
        mx_text_print(out, "  bf16       yes: precision auto is bf16\n");
    } else {
        mx_text_print(out, "  bf16       %s\n", mx_cpu_has_bf16() ? "yes: precision auto is bf16" : "no: precision auto is f32; bf16 is emulated");
    }
}

/* Its lines are laid out as the others are: eleven columns for a name, which its own further lines begin with. */
static void print_cuda(mx_text *out) {
    char cuda[4096];

    mx_cuda_probe(cuda, sizeof cuda);
    mx_text_print(out, "  cuda       ");
    for (const char *line = cuda, *end;; line = end + 1) {
        end = strchrnul(line, '\n');
        mx_text_print(out, "%s%.*s\n", line == cuda ? "" : "  ", (int)(end - line), line);
        if (!*end) {
            return;
        }
    }
}

void mx_environment_print(const mx_backend *b, mx_text *out) {
    static const char *const words[] = { "MIXRUN_DATA", "MIXRUN_HOME", "MIXRUN_CUBLASLT", "MIXRUN_TUNED", "CUDA_VISIBLE_DEVICES",
                                         "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "OMP_NUM_THREADS" };
    char processor[200];
    mx_arena arena;

    mx_arena_init(&arena, 1 << 20);
    processor_name(processor, sizeof processor);
    mx_text_print(out, "%s\n", mx_version_text());
    mx_text_print(out, "  processor  %s\n  cpu        %s\n", processor, b->description);
    mx_text_print(out, "  memory     %s available\n", mx_text_bytes(mx_memory_available()));
    print_cuda(out);
    print_auto(out);
    mx_text_print(out, "  libraries  sqlite %s, libcurl %s, zlib %s, jansson %s\n", sqlite3_libversion(),
                  curl_version_info(CURLVERSION_NOW)->version, zlibVersion(), jansson_version_str());
    mx_text_print(out, "  home       %s\n  cache      %s\n  models     %s\n", mx_path_home(&arena), mx_path_cache(&arena),
                  mx_hub_cache(&arena));
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const char *value = getenv(words[i]);

        if (value) {
            mx_text_print(out, "  %s=%s\n", words[i], value);
        }
    }
    mx_arena_finish(&arena);
}

void mx_warn_network(const char *db) {
    char type[MX_MOUNT_TYPE];

    if (mx_mount_network(db, type)) {
        fprintf(stderr, "warning: %s is on a network file system (%s): when several machines write it at once, SQLite may lose or break it\n"
                        "   give each machine a database of its own, on its own disk (db=/tmp/NAME.db), and merge them: mixrun import\n",
                db, type);
    }
}
