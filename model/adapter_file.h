/* adapter_file.h - a saved adapter: a folder of adapter_model.safetensors and adapter_config.json.
 *
 * Two layouts of names. PEFT's, for what PEFT can load (lora, dora):
 *     base_model.model.model.layers.{i}.self_attn.q_proj.lora_A.weight          (r, in)
 *     base_model.model.model.layers.{i}.self_attn.q_proj.lora_magnitude_vector  (out)
 * and MIXLORA's, for the routed methods (MoE-PEFT's names, METHODS.md 3.3, as safetensors):
 *     mixlora.layers.{i}.mlp.moe_gate.weight                                    (E, d)
 *     mixlora.layers.{i}.self_attn.q_proj.lora_A.weight                         (r, in)
 *     mixlora.layers.{i}.mlp.gate_proj.experts.{e}.lora_A.weight                (r, in)
 * What stands in adapter_config.json is the methods' business; here it is only written and read. */
#ifndef MODEL_ADAPTER_FILE_H
#define MODEL_ADAPTER_FILE_H

#include "base/arena.h"
#include "model/safetensors.h"

typedef enum mx_adapter_layout { MX_LAYOUT_PEFT, MX_LAYOUT_MIXLORA } mx_adapter_layout;

/* `module` as Hugging Face has it within the layer ("self_attn.q_proj", "mlp.moe_gate"); expert < 0: none;
 * `part`: "lora_A.weight", "lora_magnitude_vector", "weight". PEFT's layout has no experts (programmer's error). */
const char *mx_adapter_name(mx_arena *arena, mx_adapter_layout layout, int64_t layer, const char *module,
                            int64_t expert, const char *part);

/* Could an adapter be saved as `folder`? It may be new, empty, or an earlier adapter of ours; a folder that holds
 * anything else is never replaced. Ask before a run, not after it. MX_E_IO names the file in the way. */
MX_MUST_CHECK mx_code mx_adapter_check_folder(const char *folder, mx_status *st);
/* Written whole beside `folder`, then put in its place by one rename (or one exchange): nobody ever sees half an
 * adapter, and an earlier one stays until the new is complete. MX_E_IO, MX_E_MEMORY. */
MX_MUST_CHECK mx_code mx_adapter_save(const char *folder, const mx_named_values *values, size_t count,
                                      const json_t *config, mx_status *st);

typedef struct mx_adapter_file mx_adapter_file;
/* MX_E_MISSING when there is no adapter in `folder` (words for the user); MX_E_DATA. Paths are kept in `arena`,
 * which must outlive the file and the status. */
MX_MUST_CHECK mx_code mx_adapter_open(const char *folder, mx_arena *arena, mx_adapter_file **ret, mx_status *st);
void mx_adapter_close(mx_adapter_file *f); /* NULL is fine */
const json_t *mx_adapter_config(const mx_adapter_file *f);
/* The places of both files, for errors. */
const char *mx_adapter_config_path(const mx_adapter_file *f);
const char *mx_adapter_values_path(const mx_adapter_file *f);
/* One tensor as f32 (F16 and BF16 files are widened) of exactly this shape, all values finite; each is read once
 * or more, and remembered. MX_E_DATA says what the file has instead. */
MX_MUST_CHECK mx_code mx_adapter_read(mx_adapter_file *f, const char *name, int rank, const int64_t *dim, float *to,
                                      mx_status *st);
/* After the last read: MX_E_DATA when the file holds a tensor nobody asked for. */
MX_MUST_CHECK mx_code mx_adapter_check_all_read(const mx_adapter_file *f, mx_status *st);

#endif
