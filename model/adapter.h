/* adapter.h - a method's tensors on a device, and their way to and from a folder.
 *
 * An adapter does not own its memory: the trainee does (one contiguous object), and an adapter is the view
 * through which methods and the model see it. */
#ifndef MODEL_ADAPTER_H
#define MODEL_ADAPTER_H

#include "kernels/ops.h"
#include "model/layout.h"

typedef struct mx_adapter {
    const mx_layout *layout;
    mx_backend *backend;
    float *value[MX_KINDS]; /* flat, on the device; NULL where the layout has none */
    float *gradient;        /* of the trained ones; NULL: not trained here */
    bool stale;             /* values changed since the derived ones were computed */
} mx_adapter;

/* A tensor's values, or NULL when it is not declared. Parts follow each other. */
float *mx_adapter_value(const mx_adapter *a, mx_scope scope, int64_t layer, mx_site site, int role);
/* Its gradient: NULL too when nothing is trained here. */
float *mx_adapter_gradient(const mx_adapter *a, mx_scope scope, int64_t layer, mx_site site, int role);

/* adapter_model.safetensors and adapter_config.json into `folder`, PEFT's or the MIXLORA layout as the method says.
 * `base_name` goes into the config for other programs. Waits for the device. */
MX_MUST_CHECK mx_code mx_adapter_export(const mx_adapter *a, const char *base_name, const char *folder, mx_status *st);
/* Values from a folder that fits the adapter's layout exactly: MX_E_DATA names the tensor or word that does not. */
MX_MUST_CHECK mx_code mx_adapter_import(mx_adapter *a, mx_adapter_file *f, mx_status *st);

#endif
