/* Products on the device against sums in double: every orientation, type and size, lines and pointers aligned or not, by the
 * library's algorithms and by our own kernel; how choices are kept; and where cuBLASLt is looked for. */
#include "kernels/cuda/gemm.h"

extern "C" {
#include "base/rng.h"
}

#include <criterion/criterion.h>

#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace {

mx_backend *open_backend(mx_precision precision) {
    mx_backend_options o = {};
    mx_backend *b = NULL;
    mx_status st = {};

    o.device = "cuda";
    o.precision = precision;
    o.host_visible = true;
    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    return b;
}

void finish(mx_backend *b) {
    mx_status st = {};

    cr_assert_eq(b->sync(b, &st), MX_OK, "%s", st.text);
}

/* ------------------------------------------------------------------ matrices */

/* Lines `ld` long, `skip` values into its memory; `value` as bf16 holds it, NaN in what nobody may read. */
struct matrix {
    std::vector<double> value;
    unsigned char *memory;
    void *data;
    int64_t lines, width, ld;
    mx_dtype dtype;
};

double coarse(double v) {
    return mx_float(mx_rounded<mx_bf16>((float)v));
}

double stored(const matrix &m, int64_t i) {
    return m.dtype == MX_BF16 ? mx_float(static_cast<const mx_bf16 *>(m.data)[i]) : static_cast<const float *>(m.data)[i];
}
void store(const matrix &m, int64_t i, double v) {
    if (m.dtype == MX_BF16) {
        static_cast<mx_bf16 *>(m.data)[i] = mx_rounded<mx_bf16>((float)v);
    } else {
        static_cast<float *>(m.data)[i] = (float)v;
    }
}

matrix make(mx_backend *b, mx_rng *r, int64_t lines, int64_t width, int64_t ld, int64_t skip, mx_dtype dtype, bool holds) {
    matrix m = { {}, NULL, NULL, lines, width, ld, dtype };
    mx_status st = {};
    void *memory;
    size_t bytes = (size_t)(lines * ld + skip + 1) * mx_dtype_bytes(dtype);

    cr_assert_eq(b->alloc(b, MX_MEMORY_SAVED, bytes, &memory, &st), MX_OK, "%s", st.text);
    finish(b);
    m.memory = static_cast<unsigned char *>(memory);
    m.data = m.memory + (size_t)skip * mx_dtype_bytes(dtype);
    m.value.assign((size_t)(lines * ld), NAN);
    for (int64_t i = 0; i < lines; i++) {
        for (int64_t j = 0; j < ld; j++) {
            double v = j < width && holds ? coarse(2 * mx_rng_uniform(r) - 1) : NAN;

            m.value[(size_t)(i * ld + j)] = v;
            store(m, i * ld + j, v);
        }
    }
    return m;
}

double element(const matrix &m, bool transposed, int64_t i, int64_t j) {
    return m.value[(size_t)(transposed ? j * m.ld + i : i * m.ld + j)];
}

struct form {
    bool a_transposed, b_transposed, add, aligned;
    mx_dtype in, out;
    float alpha;
};

void check(mx_backend *b, const form &f, int64_t m, int64_t n, int64_t k, bool own) {
    mx_cuda *c = reinterpret_cast<mx_cuda *>(b);
    auto line = [&](int64_t width) { return f.aligned ? (width + 7) / 8 * 8 + 8 : width + 3; };
    int64_t skip = f.aligned ? 0 : 1;
    mx_rng r;

    mx_rng_init(&r, 5, "products");
    matrix x = make(b, &r, f.a_transposed ? k : m, f.a_transposed ? m : k, line(f.a_transposed ? m : k), skip, f.in, true);
    matrix w = make(b, &r, f.b_transposed ? n : k, f.b_transposed ? k : n, line(f.b_transposed ? k : n), skip, f.in, true);
    matrix y = make(b, &r, m, n, line(n), skip, f.out, f.add);
    mx_matrix left = { x.data, f.in, x.ld, f.a_transposed }, right = { w.data, f.in, w.ld, f.b_transposed };

    if (own) {
        mx_cuda_gemm_own(c, m, n, k, left, right, mx_matrix_of(y.data, f.out, y.ld), f.alpha, f.add);
    } else {
        mx_cuda_gemm(c, m, n, k, left, right, mx_matrix_of(y.data, f.out, y.ld), f.alpha, f.add);
    }
    finish(b);
    /* k roundings of sums of values below 1; a bf16 result has 7 bits after the first, so it is off by up to 2^-8 of itself */
    double tolerance = 1e-6 * sqrt((double)k + 1), rounding = f.out == MX_BF16 ? 0x1p-8 : 0;

    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < y.ld; j++) {
            double got = stored(y, i * y.ld + j), sum = 0;

            if (j >= n) {
                cr_assert(std::isnan(got), "what lies between the lines was written");
                continue;
            }
            for (int64_t p = 0; p < k; p++) {
                sum += element(x, f.a_transposed, i, p) * element(w, f.b_transposed, p, j);
            }
            sum = f.alpha * sum + (f.add ? y.value[(size_t)(i * y.ld + j)] : 0);
            cr_assert(fabs(got - sum) <= tolerance + rounding * fabs(sum), "%s %ldx%ldx%ld %s%s%s%s in %d out %d, (%ld,%ld): %.9g, not %.9g",
                      own ? "own" : "product", (long)m, (long)n, (long)k, f.a_transposed ? "T" : "N", f.b_transposed ? "T" : "N",
                      f.add ? " +=" : "", f.aligned ? "" : " unaligned", f.in, f.out, (long)i, (long)j, got, sum);
        }
    }
    b->release(b, MX_MEMORY_SAVED, x.memory);
    b->release(b, MX_MEMORY_SAVED, w.memory);
    b->release(b, MX_MEMORY_SAVED, y.memory);
}

const int64_t SIZES[][3] = {
    { 1, 1, 1 },   { 1, 7, 5 },    { 16, 16, 16 }, { 3, 64, 33 },  { 65, 17, 129 }, { 64, 64, 64 },  { 100, 3, 70 }, { 13, 48, 64 },
    { 5, 100, 40 }, { 67, 65, 1 }, { 8, 76, 100 }, { 40, 16, 76 }, { 7, 9, 0 },     { 0, 5, 3 },     { 5, 0, 3 },    { 130, 1, 40 },
};
const mx_dtype TYPES[][2] = { { MX_F32, MX_F32 }, { MX_BF16, MX_F32 }, { MX_BF16, MX_BF16 } };

void check_all(bool own) {
    mx_backend *b = open_backend(MX_PRECISION_F32);

    for (const int64_t *size : SIZES) {
        for (int way = 0; way < 16; way++) {
            for (const mx_dtype *type : TYPES) {
                form f = { (way & 1) != 0, (way & 2) != 0, (way & 4) != 0, (way & 8) != 0, type[0], type[1], way & 4 ? 0.75f : 1.0f };

                check(b, f, size[0], size[1], size[2], own);
            }
        }
    }
    b->close(b);
}

} // namespace

Test(gemm, products_agree_in_every_orientation_type_size_and_alignment) {
    check_all(false);
}

Test(gemm, our_own_kernel_agrees_in_every_orientation_type_size_and_alignment) {
    check_all(true);
}

/* ------------------------------------------------------------------ choices */

namespace {

struct bench {
    mx_backend *b;
    mx_cuda *c;
    matrix x, w, y;
};

enum { MOST = 160 };

bench set_up() {
    bench t;
    mx_rng r;

    mx_rng_init(&r, 6, "choices");
    t.b = open_backend(MX_PRECISION_BF16);
    t.c = reinterpret_cast<mx_cuda *>(t.b);
    t.x = make(t.b, &r, MOST, MOST, MOST, 0, MX_BF16, true);
    t.w = make(t.b, &r, MOST, MOST, MOST, 0, MX_BF16, true);
    t.y = make(t.b, &r, MOST, MOST, MOST, 0, MX_F32, true);
    return t;
}

/* The counts' change by one product of (m, k) with (k, n), over rows when `by_rows`: (k, m)^T with (k, n). */
mx_cuda_gemm_counts multiply(bench &t, int64_t m, int64_t n, int64_t k, bool by_rows = false) {
    mx_cuda_gemm_counts before = mx_cuda_gemm_counted(t.c);

    mx_cuda_gemm(t.c, m, n, k, mx_matrix{ t.x.data, MX_BF16, MOST, by_rows }, mx_matrix_of(t.w.data, MX_BF16, MOST),
                 mx_matrix_of(t.y.data, MX_F32, MOST), 1, false);
    finish(t.b);

    mx_cuda_gemm_counts after = mx_cuda_gemm_counted(t.c);

    return mx_cuda_gemm_counts{ after.asked - before.asked, after.by_library - before.by_library, after.by_us - before.by_us };
}

} // namespace

Test(gemm, a_choice_is_made_once_for_a_bucket_of_rows) {
    bench t = set_up();
    mx_cuda_gemm_counts n = multiply(t, 100, 64, 64);

    cr_assert(n.asked == 1 && n.by_library == 1 && n.by_us == 0);
    for (int64_t m : { 100, 97, 112 }) { /* the bucket that ends at 112 */
        n = multiply(t, m, 64, 64);
        cr_assert(n.asked == 0 && n.by_library == 1 && n.by_us == 0, "%ld rows", (long)m);
    }
    cr_assert_eq(multiply(t, 113, 64, 64).asked, 1);
    cr_assert_eq(multiply(t, 100, 72, 64).asked, 1);
    cr_assert_eq(multiply(t, 100, 64, 72).asked, 1);
    t.b->close(t.b);
}

/* Sums over rows: a bucket's algorithm may refuse a number of rows (the shim's does when it is no multiple of 8), which is then
 * asked for by itself, once, and leaves the bucket's other sizes alone. */
Test(gemm, a_size_that_the_buckets_algorithm_refuses_gets_its_own) {
    bench t = set_up();
    uint64_t asked = 0;

    for (int round = 0; round < 3; round++) {
        for (int64_t k : { 96, 93, 88, 91 }) {
            mx_cuda_gemm_counts n = multiply(t, 16, 64, k, true);

            cr_assert(n.by_library == 1 && n.by_us == 0);
            asked += n.asked;
            cr_assert(round == 0 || n.asked == 0, "%ld rows in round %d", (long)k, round);
        }
    }
    cr_assert(asked >= 1 && asked <= 4, "asked %d times", (int)asked);
    t.b->close(t.b);
}

Test(gemm, more_choices_than_are_kept_still_come_out_right) {
    mx_backend *b = open_backend(MX_PRECISION_F32);
    form f = { false, false, false, true, MX_F32, MX_F32, 1 };

    for (int64_t n = 1; n <= 1100; n++) { /* 1024 are kept */
        check(b, f, 2, n, 3, false);
    }
    check(b, f, 2, 1, 3, false);
    b->close(b);
}

Test(gemm, the_same_product_twice_has_the_same_bits) {
    bench t = set_up();
    std::vector<float> first((size_t)MOST * MOST);

    for (int i = 0; i < 2; i++) {
        mx_cuda_gemm(t.c, MOST - 3, MOST, MOST - 5, mx_matrix_transposed(t.x.data, MX_BF16, MOST), mx_matrix_of(t.w.data, MX_BF16, MOST),
                     mx_matrix_of(t.y.data, MX_F32, MOST), 1, false);
        finish(t.b);
        if (i == 0) {
            memcpy(first.data(), t.y.data, first.size() * sizeof(float));
        }
    }
    cr_assert_eq(memcmp(first.data(), t.y.data, first.size() * sizeof(float)), 0);
    t.b->close(t.b);
}

Test(gemm, the_workspace_is_counted_and_given_back) {
    mx_backend *b = open_backend(MX_PRECISION_BF16);
    char text[700];

    cr_assert_geq(b->used_bytes(b, MX_MEMORY_SCRATCH), MX_LT_WORKSPACE);
    mx_cuda_gemm_describe(reinterpret_cast<mx_cuda *>(b), text, sizeof text);
    cr_assert(strstr(text, "cuBLASLt 1") == text, "%s", text);
    b->close(b);
}

/* ------------------------------------------------------------------ tuning */

namespace {

std::string temporary() {
    const char *parent = getenv("TMPDIR");
    std::string path = std::string(parent && *parent ? parent : "/tmp") + "/mixrun-cublaslt-XXXXXX";

    cr_assert(mkdtemp(&path[0]) != NULL);
    return path;
}

void drop(const std::string &path) {
    std::string command = "rm -rf '" + path + "'";

    cr_assert_eq(system(command.c_str()), 0);
}

std::string text_of(const std::string &path) {
    FILE *file = fopen(path.c_str(), "r");
    std::string text;

    cr_assert(file, "%s", path.c_str());
    for (int c; (c = fgetc(file)) != EOF;) {
        text += (char)c;
    }
    fclose(file);
    return text;
}

int lines_of(const std::string &text) {
    int lines = 0;

    for (char c : text) {
        lines += c == '\n';
    }
    return lines;
}

} // namespace

Test(gemm, choices_are_timed_when_a_file_is_named_once_and_kept_there) {
    std::string root = temporary(), path = root + "/tuned";
    std::string first, told;
    char words[2000];

    setenv("MIXRUN_TUNED", path.c_str(), 1);
    for (int round = 0; round < 2; round++) {
        bench t = set_up();
        uint64_t before = t.b->waits;

        cr_assert_eq(multiply(t, 100, 64, 64).asked, 1);
        cr_assert_eq(multiply(t, 99, 64, 64).asked, 0);
        multiply(t, 16, 64, 93, true);
        multiply(t, 2, 3, 4);          /* not worth it */
        mx_cuda_gemm_describe(t.c, words, sizeof words);
        cr_assert(strstr(words, (", tuned by " + path + " (2 choices, ").c_str()), "%s", words);
        cr_assert(round == 0 || told == words, "'%s' and '%s' are of one file", told.c_str(), words);
        told = words;
        if (round == 0) {
            first = text_of(path);
            cr_assert_eq(lines_of(first), 3, "%s", first.c_str());
            cr_assert(t.b->waits > before + 4, "nothing was timed"); /* four are this test's own */
        } else {
            cr_assert_eq(t.b->waits, before + 4, "timed again");
            cr_assert_eq(text_of(path), first);
        }
        t.b->close(t.b);
    }
    drop(root);
}

/* The file's word counts: here it names the shim's second algorithm, and a product that it cannot compute falls back. */
Test(gemm, the_files_choice_is_used_as_it_stands) {
    std::string root = temporary(), path = root + "/tuned";
    bench t;

    setenv("MIXRUN_TUNED", path.c_str(), 1);
    t = set_up();
    multiply(t, 100, 64, 64);
    t.b->close(t.b);

    std::string text = text_of(path);
    size_t at = text.size() - 1 - 128; /* the algorithm's 64 bytes */

    for (size_t i = 0; i < 128; i++) {
        text[at + i] = '0'; /* none that there is */
    }
    FILE *file = fopen(path.c_str(), "w");

    cr_assert(file && fputs(text.c_str(), file) >= 0 && fclose(file) == 0);
    t = set_up();

    mx_cuda_gemm_counts n = multiply(t, 100, 64, 64);

    cr_assert(n.asked == 2 && n.by_library == 1, "the bucket's was refused, the exact one's was not");
    t.b->close(t.b);
    drop(root);
}

Test(gemm, a_file_that_holds_something_else_is_refused) {
    static const char *const texts[] = { "", "hello\n", "mixrun's choices of cuBLASLt algorithms, 1\n130100 sm_90 zz 00\n" };
    std::string root = temporary(), path = root + "/tuned";

    for (const char *text : texts) {
        mx_backend_options o = {};
        mx_backend *b = NULL;
        mx_status st = {};
        FILE *file = fopen(path.c_str(), "w");

        cr_assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
        setenv("MIXRUN_TUNED", path.c_str(), 1);
        o.device = "cuda";
        mx_code code = mx_backend_open(&o, &b, &st);

        cr_assert_eq(code, text[0] ? MX_E_DATA : MX_OK, "'%s': %s", text, st.text);
        if (!code) {
            b->close(b);
        } else {
            cr_assert(strstr(st.text, "MIXRUN_TUNED"), "%s", st.text);
            cr_assert(text_of(path) == text);
        }
    }
    setenv("MIXRUN_TUNED", (root + "/missing/tuned").c_str(), 1);
    mx_backend_options o = {};
    mx_backend *b = NULL;
    mx_status st = {};

    o.device = "cuda";
    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_E_IO);
    drop(root);
}

/* ------------------------------------------------------------------ finding the library */

#ifdef FAKE_CUBLASLT /* a module with cuBLASLt's functions, all of which fail, and version 13.7.5 */
namespace {

/* A folder with parents, and the fake in it under a name that is looked for. */
void place(const std::string &root, const std::string &inside, const char *name) {
    std::string path = root;
    size_t at = 0;

    while (at < inside.size()) {
        size_t next = inside.find('/', at);

        next = next == std::string::npos ? inside.size() : next;
        path += '/';
        path.append(inside, at, next - at);
        mkdir(path.c_str(), 0777);
        at = next + 1;
    }
    path += "/";
    path += name;
    cr_assert_eq(symlink(FAKE_CUBLASLT, path.c_str()), 0, "%s", path.c_str());
}

void found_in(unsigned places, const std::string &part) {
    mx_cublaslt lt;
    char text[700];

    cr_assert(mx_cublaslt_search(&lt, places), "nothing found, expected %s", part.c_str());
    cr_assert(strstr(lt.path, part.c_str()), "found %s, not %s", lt.path, part.c_str());
    cr_assert_eq(lt.version, 130705);
    mx_cublaslt_describe(&lt, text, sizeof text);
    cr_assert(strstr(text, "cuBLASLt 13.7.5 (") == text, "%s", text);
    mx_cublaslt_close(&lt);
    cr_assert_null(lt.object);
}

} // namespace

Test(cublaslt, is_found_where_toolkits_and_pythons_put_it) {
    static const struct {
        const char *variable, *value, *inside, *name;
        unsigned places;
    } cases[] = {
        { "CUDA_HOME", "", "lib64", "libcublasLt.so.13", MX_LT_IN_TOOLKITS },
        { "CUDA_PATH", "", "lib", "libcublasLt.so.12", MX_LT_IN_TOOLKITS },
        { "VIRTUAL_ENV", "", "lib/python3.12/site-packages/nvidia/cu13/lib", "libcublasLt.so.13", MX_LT_IN_PYTHONS },
        { "CONDA_PREFIX", "", "lib/python3.9/site-packages/nvidia/cublas/lib", "libcublasLt.so.12", MX_LT_IN_PYTHONS },
        { "HOME", "", ".local/lib/python3.11/site-packages/nvidia/cublas/lib", "libcublasLt.so.12", MX_LT_IN_PYTHONS },
        { "PYENV_ROOT", "", "versions/3.11.7/lib/python3.11/site-packages/nvidia/cu13/lib", "libcublasLt.so.13", MX_LT_IN_PYTHONS },
        { "PATH", "/bin", "lib/python3.10/dist-packages/nvidia/cu13/lib", "libcublasLt.so.13", MX_LT_IN_PYTHONS },
    };

    for (const auto &one : cases) {
        std::string root = temporary();

        for (const char *name : { "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "HOME", "PYENV_ROOT", "PATH" }) {
            setenv(name, strcmp(name, "PATH") == 0 ? "/usr/bin:/bin" : "", 1);
        }
        place(root, one.inside, one.name);
        if (one.value[0]) { /* a Python whose folder's parent is the prefix */
            place(root, one.value + 1, "python3");
        }
        setenv(one.variable, (root + one.value + (one.value[0] ? ":/usr/bin:/bin" : "")).c_str(), 1);
        found_in(one.places, one.inside);
        drop(root);
    }
}

Test(cublaslt, of_two_names_the_newer_is_taken_and_a_file_without_its_functions_is_passed_over) {
    std::string root = temporary();

    place(root, "lib64", "libcublasLt.so.12");
    place(root, "lib64", "libcublasLt.so.13");
    setenv("CUDA_HOME", root.c_str(), 1);
    found_in(MX_LT_IN_TOOLKITS, "lib64/libcublasLt.so.13");
    drop(root);

    root = temporary();
    place(root, "lib", "libcublasLt.so.12");
    mkdir((root + "/lib64").c_str(), 0777);
    cr_assert_eq(symlink("/nowhere/at/all", (root + "/lib64/libcublasLt.so.13").c_str()), 0);
    setenv("CUDA_HOME", root.c_str(), 1);
    found_in(MX_LT_IN_TOOLKITS, "lib/libcublasLt.so.12");
    drop(root);
}

Test(cublaslt, one_that_is_named_is_the_one_or_none) {
    std::string root = temporary();
    mx_cublaslt lt;
    mx_status st = {};
    char text[300];

    place(root, "here", "libcublasLt.so.13");
    setenv("MIXRUN_CUBLASLT", (root + "/here").c_str(), 1);
    cr_assert_eq(mx_cublaslt_open(&lt, &st), MX_OK, "%s", st.text);
    mx_cublaslt_close(&lt);
    setenv("MIXRUN_CUBLASLT", (root + "/here/libcublasLt.so.13").c_str(), 1);
    cr_assert_eq(mx_cublaslt_open(&lt, &st), MX_OK, "%s", st.text);
    mx_cublaslt_close(&lt);

    /* found, but it does not start */
    mx_backend_options o = {};
    mx_backend *b = NULL;

    o.device = "cuda";
    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_E_DEVICE);
    cr_assert(strstr(st.text, "does not start: FAKE_STATUS_1"), "%s", st.text);

    st = mx_status{};
    setenv("MIXRUN_CUBLASLT", root.c_str(), 1);
    cr_assert_eq(mx_cublaslt_open(&lt, &st), MX_E_DEVICE);
    cr_assert(strstr(st.text, "no libcublasLt.so.13 or .12 in it"), "%s", st.text);
    st = mx_status{};
    setenv("MIXRUN_CUBLASLT", (root + "/missing.so").c_str(), 1);
    cr_assert_eq(mx_cublaslt_open(&lt, &st), MX_E_DEVICE);
    cr_assert(strstr(st.text, "missing.so"), "%s", st.text);
    cr_assert(!mx_cuda_cublaslt_look(text, sizeof text) && strstr(text, "missing.so"), "%s", text);
    drop(root);
}
#endif
