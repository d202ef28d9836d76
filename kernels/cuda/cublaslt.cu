/* cublaslt.cu - finding and opening cuBLASLt. */
#include "kernels/cuda/cublaslt.h"

#include "kernels/cuda/cuda.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

static const mx_mark nowhere = {};

/* ------------------------------------------------------------------ the declarations against the library's own */
#ifdef __CUDACC__
#include <cublasLt.h>

static_assert(sizeof(mx_lt_layout) == sizeof(cublasLtMatrixLayoutOpaque_t), "");
static_assert(sizeof(mx_lt_algorithm) == sizeof(cublasLtMatmulAlgo_t), "");
static_assert(sizeof(mx_lt_result) == sizeof(cublasLtMatmulHeuristicResult_t), "");
static_assert(offsetof(mx_lt_result, workspace) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize), "");
static_assert(offsetof(mx_lt_result, state) == offsetof(cublasLtMatmulHeuristicResult_t, state), "");
static_assert(sizeof(cublasStatus_t) == sizeof(int) && sizeof(cublasComputeType_t) == sizeof(int) && sizeof(cudaDataType) == sizeof(int) &&
              sizeof(cublasLtMatmulDescAttributes_t) == sizeof(int) && sizeof(cublasOperation_t) == sizeof(int32_t), "");
static_assert((int)MX_LT_SUCCESS == CUBLAS_STATUS_SUCCESS && (int)MX_LT_NOT_INITIALIZED == CUBLAS_STATUS_NOT_INITIALIZED &&
              (int)MX_LT_ALLOC_FAILED == CUBLAS_STATUS_ALLOC_FAILED && (int)MX_LT_INVALID_VALUE == CUBLAS_STATUS_INVALID_VALUE &&
              (int)MX_LT_ARCH_MISMATCH == CUBLAS_STATUS_ARCH_MISMATCH && (int)MX_LT_NOT_SUPPORTED == CUBLAS_STATUS_NOT_SUPPORTED, "");
static_assert((int)MX_LT_F32 == CUDA_R_32F && (int)MX_LT_BF16 == CUDA_R_16BF && (int)MX_LT_COMPUTE_F32 == CUBLAS_COMPUTE_32F &&
              (int)MX_LT_COMPUTE_F32_PEDANTIC == CUBLAS_COMPUTE_32F_PEDANTIC, "");
static_assert((int)MX_LT_PLAIN == CUBLAS_OP_N && (int)MX_LT_TRANSPOSED == CUBLAS_OP_T, "");
static_assert((int)MX_LT_TRANSPOSE_A == CUBLASLT_MATMUL_DESC_TRANSA && (int)MX_LT_TRANSPOSE_B == CUBLASLT_MATMUL_DESC_TRANSB, "");
static_assert((int)MX_LT_WORKSPACE_BYTES == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
              (int)MX_LT_REDUCTION_MASK == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
              (int)MX_LT_ALIGNMENT_A == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              (int)MX_LT_ALIGNMENT_B == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
              (int)MX_LT_ALIGNMENT_C == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
              (int)MX_LT_ALIGNMENT_D == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES &&
              (int)MX_LT_REDUCE_IN_F32 == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, "");
#else
extern const mx_cublaslt mx_shim_cublaslt; /* shim/cublaslt.cc */
#endif

/* ------------------------------------------------------------------ opening one */

static const char *const NAMES[] = { "libcublasLt.so.13", "libcublasLt.so.12" };
enum { NAME_COUNT = sizeof NAMES / sizeof NAMES[0] };

template <class F> static bool symbol(F *function, void *library, const char *name) {
    *function = reinterpret_cast<F>(dlsym(library, name));
    return *function != NULL;
}

static bool fill(mx_cublaslt *lt) {
    void *l = lt->object;

    return symbol(&lt->create, l, "cublasLtCreate") && symbol(&lt->destroy, l, "cublasLtDestroy") &&
           symbol(&lt->get_version, l, "cublasLtGetVersion") && symbol(&lt->status_name, l, "cublasLtGetStatusName") &&
           symbol(&lt->description_create, l, "cublasLtMatmulDescCreate") &&
           symbol(&lt->description_destroy, l, "cublasLtMatmulDescDestroy") &&
           symbol(&lt->description_set, l, "cublasLtMatmulDescSetAttribute") &&
           symbol(&lt->layout_init, l, "cublasLtMatrixLayoutInit_internal") &&
           symbol(&lt->preference_create, l, "cublasLtMatmulPreferenceCreate") &&
           symbol(&lt->preference_destroy, l, "cublasLtMatmulPreferenceDestroy") &&
           symbol(&lt->preference_set, l, "cublasLtMatmulPreferenceSetAttribute") &&
           symbol(&lt->heuristic, l, "cublasLtMatmulAlgoGetHeuristic") && symbol(&lt->matmul, l, "cublasLtMatmul");
}

/* dlopens `name`, a file or what the loader is to look for. A file that is no cuBLASLt is closed again. */
static bool try_open(mx_cublaslt *lt, const char *name) {
    struct link_map *map = NULL;

    lt->object = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    if (!lt->object) {
        return false;
    }
    if (!fill(lt)) {
        dlclose(lt->object);
        memset(lt, 0, sizeof *lt);
        return false;
    }
    if (dlinfo(lt->object, RTLD_DI_LINKMAP, &map) == 0 && map->l_name[0]) {
        name = map->l_name;
    }
    snprintf(lt->path, sizeof lt->path, "%s", name);
    lt->version = lt->get_version();
    return true;
}

/* `format` gives a folder, which may hold wildcards; the last match first, being the newest where versions are numbered. */
static bool try_folders(mx_cublaslt *lt, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool try_folders(mx_cublaslt *lt, const char *format, ...) {
    char folder[PATH_MAX], pattern[PATH_MAX + 32];
    va_list args;
    bool found = false;

    va_start(args, format);
    int length = vsnprintf(folder, sizeof folder, format, args);
    va_end(args);
    for (int i = 0; i < NAME_COUNT && !found && length > 0 && (size_t)length < sizeof folder; i++) {
        glob_t matches;

        snprintf(pattern, sizeof pattern, "%s/%s", folder, NAMES[i]);
        if (glob(pattern, 0, NULL, &matches) != 0) {
            continue;
        }
        for (size_t k = matches.gl_pathc; k-- > 0 && !found;) {
            found = try_open(lt, matches.gl_pathv[k]);
        }
        globfree(&matches);
    }
    return found;
}

/* ------------------------------------------------------------------ where it may be */

static const char *variable(const char *name) {
    const char *value = getenv(name);

    return value ? value : "";
}

static bool try_loader(mx_cublaslt *lt) {
    for (int i = 0; i < NAME_COUNT; i++) {
        if (try_open(lt, NAMES[i])) {
            return true;
        }
    }
    return false;
}

static bool try_toolkits(mx_cublaslt *lt) {
    const char *home = variable("CUDA_HOME"), *path = variable("CUDA_PATH");

    return (home[0] && (try_folders(lt, "%s/lib64", home) || try_folders(lt, "%s/lib", home))) ||
           (path[0] && (try_folders(lt, "%s/lib64", path) || try_folders(lt, "%s/lib", path))) ||
           try_folders(lt, "/usr/local/cuda/lib64") || try_folders(lt, "/usr/local/cuda-*/lib64");
}

/* The wheels nvidia-cublas and nvidia-cublas-cu12 under a Python's prefix. */
static bool try_prefix(mx_cublaslt *lt, const char *prefix) {
    return prefix[0] && (try_folders(lt, "%s/lib/python3*/site-packages/nvidia/*/lib", prefix) ||
                         try_folders(lt, "%s/lib/python3*/dist-packages/nvidia/*/lib", prefix) ||
                         try_folders(lt, "%s/lib/python3/dist-packages/nvidia/*/lib", prefix));
}

/* The python3 that a shell would start: its folder's parent as it is written (a virtual environment), and as its links lead. */
static bool try_python_on_path(mx_cublaslt *lt) {
    char file[PATH_MAX], real[PATH_MAX];
    const char *at = variable("PATH");

    while (*at) {
        int length = (int)strcspn(at, ":");

        if (length > 0 && snprintf(file, sizeof file, "%.*s/python3", length, at) < (int)sizeof file && realpath(file, real)) {
            char *slash = strrchr(real, '/');

            *slash = '\0';
            slash = strrchr(real, '/');
            if (slash) {
                *slash = '\0';
            }
            snprintf(file, sizeof file, "%.*s/..", length, at);
            return try_prefix(lt, file) || try_prefix(lt, real);
        }
        at += length + (at[length] == ':');
    }
    return false;
}

static bool try_pythons(mx_cublaslt *lt) {
    const char *home = variable("HOME"), *pyenv = variable("PYENV_ROOT");
    char local[PATH_MAX], versions[PATH_MAX];

    snprintf(local, sizeof local, home[0] ? "%s/.local" : "%s", home);
    if (pyenv[0]) {
        snprintf(versions, sizeof versions, "%s/versions/*", pyenv);
    } else {
        snprintf(versions, sizeof versions, home[0] ? "%s/.pyenv/versions/*" : "%s", home);
    }
    return try_prefix(lt, variable("VIRTUAL_ENV")) || try_prefix(lt, variable("CONDA_PREFIX")) || try_python_on_path(lt) ||
           try_prefix(lt, local) || try_prefix(lt, versions) || try_prefix(lt, "/usr/local") || try_prefix(lt, "/usr");
}

static mx_code open_named(mx_cublaslt *ret, const char *name, mx_status *st) {
    struct stat s;
    bool folder = stat(name, &s) == 0 && S_ISDIR(s.st_mode);
    const char *why;

    dlerror(); /* an older one's */
    if (folder ? try_folders(ret, "%s", name) : try_open(ret, name)) {
        return MX_OK;
    }
    why = dlerror(); /* none: no such file, or one that lacked a function and was closed again */
    mx_fail(st, MX_E_DEVICE, nowhere, "no cuBLASLt at $MIXRUN_CUBLASLT, '%.400s': %.400s", name,
            why ? why : folder ? "no libcublasLt.so.13 or .12 in it" : "it lacks functions of cuBLASLt's");
    mx_hint(st, "name the library or its folder, or unset it to have it looked for");
    return MX_E_DEVICE;
}

bool mx_cublaslt_search(mx_cublaslt *ret, unsigned places) {
    memset(ret, 0, sizeof *ret);
    return (places & MX_LT_IN_LOADER && try_loader(ret)) || (places & MX_LT_IN_TOOLKITS && try_toolkits(ret)) ||
           (places & MX_LT_IN_PYTHONS && try_pythons(ret));
}

mx_code mx_cublaslt_open(mx_cublaslt *ret, mx_status *st) {
    const char *named = variable("MIXRUN_CUBLASLT");

    memset(ret, 0, sizeof *ret);
    if (named[0]) {
        return open_named(ret, named, st);
    }
#ifndef __CUDACC__
    *ret = mx_shim_cublaslt;
    return MX_OK;
#else
    if (mx_cublaslt_search(ret, MX_LT_IN_LOADER | MX_LT_IN_TOOLKITS | MX_LT_IN_PYTHONS)) {
        return MX_OK;
    }
    mx_fail(st, MX_E_DEVICE, nowhere, "no cuBLASLt (libcublasLt.so.13 or .12) on the loader's path, in /usr/local/cuda* or a Python's packages");
    mx_hint(st, "install the CUDA libraries or 'pip install nvidia-cublas', or set $MIXRUN_CUBLASLT to the file or its folder");
    return MX_E_DEVICE;
#endif
}

void mx_cublaslt_close(mx_cublaslt *lt) {
    if (lt->object) {
        dlclose(lt->object);
    }
    memset(lt, 0, sizeof *lt);
}

/* ------------------------------------------------------------------ words */

/* cublasLtGetVersion: 130100 is 13.1.0, as 120103 is 12.1.3. */
static void version_words(const mx_cublaslt *lt, char *text, size_t size) {
    snprintf(text, size, "%zu.%zu.%zu", lt->version / 10000, lt->version / 100 % 100, lt->version % 100);
}

void mx_cublaslt_describe(const mx_cublaslt *lt, char *text, size_t size) {
    char version[64];

    if (!lt || !lt->create) {
        snprintf(text, size, "no cuBLASLt");
        return;
    }
    version_words(lt, version, sizeof version);
    snprintf(text, size, "cuBLASLt %s (%s)", version, lt->path);
}

bool mx_cuda_cublaslt_look(char *text, size_t size) {
    mx_cublaslt lt;
    mx_status st = {};
    char version[64];

    if (mx_cublaslt_open(&lt, &st)) {
        snprintf(text, size, "%s", st.text);
        return false;
    }
    version_words(&lt, version, sizeof version);
    snprintf(text, size, "%s, %s", version, lt.path);
    mx_cublaslt_close(&lt);
    return true;
}
