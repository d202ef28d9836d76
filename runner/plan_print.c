/* plan_print.c - what a plan tells the user, before anything is started. */
#include "runner/plan.h"

#include <string.h>

static void print_training(const mx_plan *p, mx_text *out) {
    int64_t truncated = 0, questions = 0;

    mx_text_print(out, "  train    ");
    for (int32_t i = 0, n = 0; i < p->tasks; i++) {
        if (p->task[i].item) {
            mx_text_print(out, "%s%s", n++ ? " + " : "", p->task[i].name);
            questions += p->task[i].train.count;
            truncated += p->task[i].encoded.truncated;
        }
    }
    mx_text_print(out, ": %s questions, %lld epoch%s, %s step%s, %s tokens\n", mx_text_count(questions),
                  (long long)p->recipe->train.data.num_epochs, p->recipe->train.data.num_epochs == 1 ? "" : "s",
                  mx_text_count(p->totals.steps), p->totals.steps == 1 ? "" : "s", mx_text_count(p->totals.rows));
    if (truncated) {
        mx_text_print(out, "           %s questions are longer than sequence_len %lld and were truncated\n",
                      mx_text_count(truncated), (long long)p->recipe->train.data.sequence_len);
    }
}

static void print_exams(const mx_plan *p, mx_text *out) {
    for (int32_t i = 0; i < p->exams; i++) {
        const mx_plan_exam *e = &p->exam[i];

        mx_text_print(out, "%s%s %s, %s: %s questions", i ? "\n           " : "  score    ", p->task[e->task].name,
                      mx_split_names[e->split], mx_protocol_names[e->exam.protocol], mx_text_count(e->questions.count));
        if (e->exam.encoded.truncated) {
            mx_text_print(out, ", %s truncated", mx_text_count(e->exam.encoded.truncated));
        }
    }
    mx_text_print(out, "%s", p->exams ? "\n" : "");
}

static void print_device(const mx_plan *p, mx_text *out) {
    mx_text_print(out, "  device   %s: %s", p->backend->name, p->backend->description);
    if (p->device_why[0]) {
        mx_text_print(out, " (auto: %s)", p->device_why);
    }
    mx_text_print(out, "\n");
    if (p->slow) {
        mx_text_print(out, "           note: %s: each step will take many times as long\n", p->slow);
    }
}

static void print_purposes(const mx_plan *p, mx_text *out) {
    static const char *const names[MX_MEMORY_PURPOSES] = { "frozen weights", "trained values, gradients, moments",
                                                           "saved activations", "scratch", "batch and tallies" };

    for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
        mx_text_print(out, "           %10s  %s\n", mx_text_bytes(p->bytes[i]), names[i]);
    }
    if (p->device_bytes) {
        mx_text_print(out, "           %10s  CUDA's own: context, kernels, workspace (an estimate)\n",
                      mx_text_bytes(p->held_bytes + MX_CUDA_OWN_BYTES));
    }
}

static void print_memory(const mx_plan *p, bool purposes, mx_text *out) {
    const mx_backend *b = p->backend;

    if (!p->device_bytes) {
        mx_text_print(out, "  memory   planned %s\n", mx_text_bytes(p->total_bytes));
        if (purposes) {
            print_purposes(p, out);
            mx_text_print(out, "           %10s  program, tokenizer and questions\n", mx_text_bytes(p->host_bytes));
        }
        return;
    }
    mx_text_print(out, "  memory   planned %s on the GPU (of %s, %s free)", mx_text_bytes(p->device_bytes), mx_text_bytes(b->device_bytes),
                  mx_text_bytes(b->free_bytes));
    if (!purposes) {
        mx_text_print(out, ": weights %s, adapter and optimizer %s, saved %s, scratch %s", mx_text_bytes(p->bytes[MX_MEMORY_WEIGHTS]),
                      mx_text_bytes(p->bytes[MX_MEMORY_TRAINED]), mx_text_bytes(p->bytes[MX_MEMORY_SAVED]),
                      mx_text_bytes(p->bytes[MX_MEMORY_SCRATCH]));
    }
    mx_text_print(out, "%s %s on the host\n", purposes ? "," : ";", mx_text_bytes(p->total_bytes));
    if (purposes) {
        print_purposes(p, out);
    }
}

static void print_notes(const mx_plan *p, mx_text *out) {
    mx_text notes;

    mx_text_init(&notes, 4096);
    p->method->note(p->config, &notes);
    for (char *line = notes.data, *end; line && *line; line = end) {
        end = strchrnul(line, '\n');
        mx_text_print(out, "           note: %.*s\n", (int)(end - line), line);
        end += *end != '\0';
    }
    mx_text_finish(&notes);
}

void mx_plan_print(const mx_plan *p, bool purposes, mx_text *out) {
    int64_t values = mx_base_file_values(p->base_file);

    print_device(p, out);
    mx_text_print(out, "  base     %s  %s, %.1f M values, computed in %s%s\n", p->base.name,
                  mx_base_file_description(p->base_file), (double)values / 1e6,
                  p->backend->precision == MX_PRECISION_BF16 ? "bf16" : "f32",
                  p->backend->emulated_bf16 ? " (emulated: this processor has no bf16)" : "");
    mx_text_print(out, "  adapter  %s: %s trained values (%.1f %%)", p->description, mx_text_count(p->layout->trained),
                  100.0 * (double)p->layout->trained / (double)values);
    if (p->layout->trained_router) {
        mx_text_print(out, ", %s of them router", mx_text_count(p->layout->trained_router));
    }
    mx_text_print(out, "\n");
    if (p->method->note) {
        print_notes(p, out);
    }
    if (p->trains) {
        print_training(p, out);
    }
    if (purposes) {
        print_exams(p, out);
    }
    print_memory(p, purposes, out);
    if (p->again_flops > 0) {
        mx_text_print(out, "           gradient_checkpointing: every forward pass is computed twice, %.0f %% more work\n",
                      100 * p->again_flops / (p->base_flops + p->flops));
    }
    if (p->limited) {
        mx_text_print(out, "  limited  max_steps or a limit cuts this short: it is for trying things, not a result\n");
    }
}
