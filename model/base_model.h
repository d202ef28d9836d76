/* base_model.h - the files of a pretrained model, opened: its shape, and its tensors by Hugging Face's names.
 *
 * A folder in Hugging Face's layout (config.json; model.safetensors, or shards with
 * model.safetensors.index.json) or one GGUF file; the difference ends here. Files are mapped and only headers
 * are read at opening, where it is checked that every tensor LLaMA needs is there with its shape and that no
 * tensor is left over (a bias or a norm this program would not compute).
 *
 * Names: model.embed_tokens.weight, model.norm.weight, lm_head.weight (absent when tied), and
 * model.layers.N. + input_layernorm.weight | post_attention_layernorm.weight |
 * self_attn.{q,k,v,o}_proj.{weight,bias} | mlp.{gate,up,down}_proj.{weight,bias}. */
#ifndef MODEL_BASE_MODEL_H
#define MODEL_BASE_MODEL_H

#include "base/file.h"
#include "model/gguf.h"
#include "model/shape.h"

typedef struct mx_base_file mx_base_file;

/* Paths and names are kept in `arena`, which must outlive the file and the status. MX_E_MISSING, MX_E_DATA,
 * MX_E_IO, MX_E_MEMORY. */
MX_MUST_CHECK mx_code mx_base_file_open(const char *path, mx_arena *arena, mx_base_file **ret, mx_status *st);
void mx_base_file_close(mx_base_file *f); /* NULL is fine; weights made from it by a backend stay good */

const mx_shape *mx_base_file_shape(const mx_base_file *f);
const char *mx_base_file_path(const mx_base_file *f);
const char *mx_base_file_description(const mx_base_file *f); /* "Q4_1 gguf", "BF16 safetensors, 2 shards" */
int64_t mx_base_file_values(const mx_base_file *f);          /* how many numbers the model has */
/* For tokenizers: the GGUF, or NULL for a folder (then mx_base_file_path is where tokenizer.json is). */
const mx_gguf *mx_base_file_gguf(const mx_base_file *f);

/* A matrix, (rows, columns) by the shape. No value is read: for the plan. A name the shape does not have is the
 * programmer's error; what the files lack was found at opening. */
void mx_base_file_find(const mx_base_file *f, const char *name, mx_weight_source *ret);
/* The same after a pass over its values (of block formats: their scales): MX_E_DATA when one is not finite. */
MX_MUST_CHECK mx_code mx_base_file_weight(const mx_base_file *f, const char *name, mx_weight_source *ret,
                                          mx_status *st);
/* A vector (norm weight, bias) of n values as f32, in Hugging Face's order, all finite. */
MX_MUST_CHECK mx_code mx_base_file_vector(const mx_base_file *f, const char *name, float *to, int64_t n,
                                          mx_status *st);

/* sha256 that tells this base from others: of the GGUF's bytes, or over config.json, the tokenizer's files and the
 * shards of a folder. Remembered in mx_path_cache by path, size and times, since big files take seconds. */
MX_MUST_CHECK mx_code mx_base_file_hash(const mx_base_file *f, char ret_hex[MX_SHA256_TEXT], mx_status *st);

#endif
