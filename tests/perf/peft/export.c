/* export.c - an adapter of random values, saved, and the logits it gives: mixrun's half of the comparison with PEFT.
 *
 *   peft-export BASE BATCH WORDS OUT
 *
 * WORDS is an adapter_config.json. Writes the adapter to OUT/adapter, and OUT/logits.f32: for each sequence of BATCH,
 * for each of its tokens, the logits over the whole vocabulary as float32. The sequences are packed into one pass. */
#include "base/file.h"
#include "base/json.h"
#include "model/model.h"
#include "model/trainee.h"

#include <stdlib.h>
#include <string.h>

/* Every sequence whole, end to end; every row is a loss row (only its logits are wanted, not its target). */
static mx_code pack(const json_t *sequences, const char *path, int64_t vocab, mx_arena *arena, mx_batch *ret,
                    mx_status *st) {
    int32_t count = (int32_t)json_array_size(sequences), rows = 0, row = 0;
    int32_t *token, *position, *question, *task, *segment_of, *loss_row;
    mx_segment *segment = MX_TAKE(arena, mx_segment, count);
    mx_sequence *sequence = MX_TAKE(arena, mx_sequence, count);

    for (int32_t s = 0; s < count; s++) {
        rows += (int32_t)json_array_size(json_object_get(json_array_get(sequences, (size_t)s), "ids"));
    }
    if (rows == 0) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "no sequence with ids");
    }
    token = MX_TAKE(arena, int32_t, rows), position = MX_TAKE(arena, int32_t, rows);
    question = MX_TAKE(arena, int32_t, rows), task = MX_TAKE(arena, int32_t, rows);
    segment_of = MX_TAKE(arena, int32_t, rows), loss_row = MX_TAKE(arena, int32_t, rows);
    for (int32_t s = 0; s < count; s++) {
        const json_t *ids = json_object_get(json_array_get(sequences, (size_t)s), "ids"), *id;
        size_t i;

        segment[s] = (mx_segment){ .begin = row, .count = (int32_t)json_array_size(ids) };
        sequence[s].question = s;
        json_array_foreach(ids, i, id) {
            if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab) {
                return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "sequence %d: ids[%zu] is not a token", s, i);
            }
            token[row] = (int32_t)json_integer_value(id);
            position[row] = (int32_t)i;
            question[row] = segment_of[row] = s;
            loss_row[row] = row;
            row++;
        }
    }
    *ret = (mx_batch){ .rows = rows, .live = rows, .token = token, .position = position, .question = question,
                       .task = task, .row_segment = segment_of, .segment = segment, .segments = count,
                       .sequence = sequence, .loss_rows = rows, .loss_row = loss_row, .loss_target = token,
                       .step_loss_tokens = rows, .step_rows = rows };
    return MX_OK;
}

/* Moves every trained value by N(0, 0.1^2) from where the method starts it: B is no longer zero, and DoRA's magnitudes
 * are no longer the norms. */
static void stir(mx_trainee *t, float *values) {
    const mx_layout *l = t->adapter.layout;
    mx_rng rng;

    mx_rng_init(&rng, 7, "stir");
    mx_trainee_read_values(t, values);
    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        for (int64_t j = 0; d->kind == MX_KIND_TRAINED && j < d->count; j++) {
            values[d->offset + j] += (float)(0.1 * mx_rng_normal(&rng));
        }
    }
    mx_trainee_write_values(t, values);
}

static mx_code run(const char *base, const char *batch_path, const char *words_path, const char *out, mx_arena *arena,
                   mx_status *st) {
    const mx_backend_options device = { .device = "cpu", .precision = MX_PRECISION_F32 };
    const mx_pass pass = { 0 };
    json_t *batch_json = NULL, *words = NULL;
    mx_backend *backend = NULL;
    mx_base_file *file = NULL;
    mx_model *model = NULL;
    mx_trainee *trainee = NULL;
    const mx_method *method;
    const mx_layout *layout;
    mx_model_limits limits;
    mx_adapter *adapter;
    mx_batch batch;
    float *values, *logits;
    size_t logits_count;
    void *config;
    mx_code code;

    if ((code = mx_json_read(batch_path, 1 << 20, &batch_json, st)) ||
        (code = mx_json_read(words_path, 1 << 20, &words, st)) ||
        (code = mx_adapter_config_read(words, words_path, arena, &method, &config, st)) ||
        (code = mx_base_file_open(base, arena, &file, st)) ||
        (code = pack(json_object_get(batch_json, "sequences"), batch_path, mx_base_file_shape(file)->vocab, arena,
                     &batch, st)) ||
        (code = mx_backend_open(&device, &backend, st))) {
        goto done;
    }
    layout = mx_layout_make(method, config, mx_base_file_shape(file), arena);
    limits = (mx_model_limits){ .rows = batch.rows, .loss_rows = batch.rows, .segments = batch.segments, .tasks = 1,
                                .label_logits = true };
    if ((code = mx_model_open(backend, file, layout, &limits, &model, st)) ||
        (code = mx_trainee_open(backend, layout, mx_model_frozen(model), false, &trainee, st)) ||
        (code = mx_trainee_start(trainee, 7, st))) {
        goto done;
    }
    values = MX_TAKE(arena, float, layout->size[MX_KIND_TRAINED]);
    stir(trainee, values);
    logits_count = (size_t)(batch.loss_rows * mx_model_shape(model)->vocab);
    logits = MX_TAKE(arena, float, logits_count);
    adapter = &trainee->adapter;
    mx_model_forward(model, &adapter, 1, &batch, &pass);
    if ((code = mx_model_label_logits(model, NULL, 0, logits, st)) || (code = mx_folder_make(out, st)) ||
        (code = mx_adapter_export(adapter, base, mx_arena_text(arena, "%s/adapter", out), st))) {
        goto done;
    }
    code = mx_file_write(mx_arena_text(arena, "%s/logits.f32", out), logits, logits_count * sizeof *logits, st);
done:
    mx_trainee_close(trainee);
    mx_model_close(model);
    if (backend) {
        backend->close(backend);
    }
    mx_base_file_close(file);
    json_decref(words);
    json_decref(batch_json);
    return code;
}

int main(int argc, char **argv) {
    mx_status st = { 0 };
    mx_arena arena;

    if (argc != 5) {
        fprintf(stderr, "usage: peft-export BASE BATCH WORDS OUT\n");
        return 2;
    }
    mx_arena_init(&arena, (size_t)1 << 30);
    if (run(argv[1], argv[2], argv[3], argv[4], &arena, &st)) {
        mx_status_print(&st, stderr);
    }
    mx_arena_finish(&arena);
    return mx_exit_code(st.code);
}
