/* cuBLASLt's names without anything behind them, for tests of where it is looked for. */
#include <stddef.h>

int cublasLtCreate(void **handle);
int cublasLtDestroy(void *handle);
size_t cublasLtGetVersion(void);
const char *cublasLtGetStatusName(int status);

int cublasLtCreate(void **handle) {
    *handle = NULL;
    return 1;
}
int cublasLtDestroy(void *handle) {
    (void)handle;
    return 1;
}
size_t cublasLtGetVersion(void) {
    return 130705;
}
const char *cublasLtGetStatusName(int status) {
    return status == 1 ? "FAKE_STATUS_1" : "FAKE_STATUS";
}

#define FAILS(name)    \
    int name(void);    \
    int name(void) {   \
        return 1;      \
    }
FAILS(cublasLtMatmulDescCreate)
FAILS(cublasLtMatmulDescDestroy)
FAILS(cublasLtMatmulDescSetAttribute)
FAILS(cublasLtMatrixLayoutInit_internal)
FAILS(cublasLtMatmulPreferenceCreate)
FAILS(cublasLtMatmulPreferenceDestroy)
FAILS(cublasLtMatmulPreferenceSetAttribute)
FAILS(cublasLtMatmulAlgoGetHeuristic)
FAILS(cublasLtMatmul)
