/* Errors, versions, and what must be harmless. */
#include "check.h"

int main(void)
{
    /* Freeing NULL and asking NULL. */
    mmopt_error_free(NULL);
    mmopt_string_free(NULL);
    CHECK(mmopt_error_code(NULL) == MMOPT_CODE_OK);
    CHECK(strcmp(mmopt_error_message(NULL), "") == 0);

    /* The header belongs to the library. */
    CHECK(strcmp(mmopt_version(), MMOPT_VERSION) == 0);
    CHECK(mmopt_version_number() == MMOPT_VERSION_NUMBER);

    /* A runtime that is not there: the error says where it looked; nothing is broken after. */
    CHECK(strcmp(mmopt_runtime_version(), "") == 0);
    FAILS(mmopt_runtime_load("/nonexistent/libonnxruntime.so"), MMOPT_CODE_RUNTIME_UNAVAILABLE,
          "/nonexistent/libonnxruntime.so");
    FAILS(mmopt_runtime_load("\xff"), MMOPT_CODE_INVALID_ARGUMENT, "not UTF-8");
    if (getenv("MMOPT_ORT_LIB") != NULL) {
        OK(mmopt_runtime_load(NULL));
        OK(mmopt_runtime_load(NULL));
        CHECK(mmopt_runtime_version()[0] == '1');
        CHECK(strstr(mmopt_runtime_path(), "libonnxruntime") != NULL);
        FAILS(mmopt_runtime_load("/nonexistent/libonnxruntime.so"), MMOPT_CODE_STATE, NULL);
    } else {
        printf("not run: loading, no ONNX Runtime\n");
    }
    return finish();
}
