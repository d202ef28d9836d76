/* routed_words.c - the recipe words and the saved words of routed methods. */
#include "model/methods/parts/routed.h"

#include <math.h>
#include <string.h>

static const char *const routings[] = { "top_k", "switch", "top_p", NULL };
static const char *const saved_routings[] = { "mixlora", "mixlora-switch", "mixlora-dynamic" }; /* MoE-PEFT's names */
static const char *const forms[] = { "factored", "shared", "naive", NULL };
static const char *const booleans[] = { "false", "true", NULL };

#define AT(field) offsetof(mx_routed_words, field)
#define IN_EXPERT(field) (AT(expert.field) - AT(expert))

static const mx_option expert_options[] = {
    { .name = "lora_r", .type = MX_INT, .offset = IN_EXPERT(r), .flags = MX_RESULT | MX_AUTO, .preset = "auto",
      .min = 1, .max = 4096, .help = "rank of the experts; auto: that of the attention" },
    { .name = "lora_alpha", .type = MX_REAL, .offset = IN_EXPERT(alpha), .flags = MX_RESULT | MX_AUTO,
      .preset = "auto", .min = 0, .max = 1e6, .help = "scale of the experts; auto: that of the attention" },
    { .name = "lora_dropout", .type = MX_REAL, .offset = IN_EXPERT(dropout),
      .flags = MX_RESULT | MX_AUTO | MX_OPEN_MAX, .preset = "auto", .min = 0, .max = 1,
      .help = "dropout of the experts' inputs; auto: that of the attention" },
    { .name = "use_rslora", .type = MX_ENUM, .offset = IN_EXPERT(rslora), .flags = MX_RESULT | MX_AUTO,
      .preset = "auto", .choices = booleans, .help = "rsLoRA's scale for the experts; auto: as the attention" },
    { 0 },
};
static const mx_synonym expert_synonyms[] = {
    { "r", "lora_r" }, { "lora_rank", "lora_r" }, { "alpha", "lora_alpha" }, { "dropout", "lora_dropout" }, { 0 },
};
static const mx_option_table expert_table = {
    .name = "expert_lora", .option = expert_options, .synonym = expert_synonyms,
    .size = sizeof(((mx_routed_words *)0)->expert),
};

const mx_option mx_routed_options[] = {
    MX_LOW_RANK_OPTIONS(AT(lora)),
    { .name = "expert_lora", .type = MX_TABLE, .offset = AT(expert), .flags = MX_RESULT, .inner = &expert_table,
      .help = "words of the experts where they differ from the attention's" },
    { .name = "num_experts", .type = MX_INT, .offset = AT(num_experts), .flags = MX_RESULT, .preset = "8", .min = 1,
      .max = 128, .help = "experts in each layer's feed-forward block (arXiv:2404.15159)" },
    { .name = "routing_strategy", .type = MX_ENUM, .offset = AT(routing), .flags = MX_RESULT, .preset = "top_k",
      .choices = routings,
      .help = "top_k: the k likeliest, gates divided by their sum; switch: the likeliest, within a capacity "
              "(arXiv:2101.03961); top_p: the likeliest until top_p is reached" },
    { .name = "top_k", .type = MX_INT, .offset = AT(top_k), .flags = MX_RESULT, .preset = "2", .min = 1, .max = 128,
      .only_if = "routing_strategy: top_k", .help = "experts a token uses" },
    { .name = "top_p", .type = MX_REAL, .offset = AT(top_p), .flags = MX_RESULT | MX_OPEN_MIN, .preset = "0.8",
      .min = 0, .max = 1, .only_if = "routing_strategy: top_p",
      .help = "an expert is used while the likelier ones hold at most this probability" },
    { .name = "temperature", .type = MX_REAL, .offset = AT(temperature), .flags = MX_RESULT, .preset = "0", .min = 0,
      .max = 1000, .only_if = "routing_strategy: top_p",
      .help = "above 0: probabilities are divided by it before top_p (as MoE-PEFT does)" },
    { .name = "expert_capacity", .type = MX_INT, .offset = AT(capacity), .flags = MX_RESULT, .preset = "32",
      .min = 1, .max = 1 << 20, .only_if = "routing_strategy: switch",
      .help = "tokens an expert takes of one sequence; later ones pass the block scaled by their gate" },
    { .name = "router_aux_loss_coef", .type = MX_REAL, .offset = AT(balance_coef), .flags = MX_RESULT,
      .preset = "1e-3", .min = 0, .max = 100, .help = "weight of the load-balancing loss E sum F P; 0: none" },
    { .name = "router_z_loss_coef", .type = MX_REAL, .offset = AT(z_coef), .flags = MX_RESULT, .preset = "1e-3",
      .min = 0, .max = 100, .only_if = "routing_strategy: switch",
      .help = "weight of the mean squared logsumexp of the router's logits; 0: none" },
    { .name = "jitter_noise", .type = MX_REAL, .offset = AT(jitter), .flags = MX_RESULT | MX_AUTO | MX_OPEN_MAX,
      .preset = "auto", .min = 0, .max = 1,
      .help = "training: the router's input is multiplied by U(1-eps, 1+eps); auto: 0.01 for switch, else 0" },
    { .name = "router_init_range", .type = MX_REAL, .offset = AT(init_range), .flags = MX_RESULT | MX_AUTO,
      .preset = "auto", .min = 0, .max = 100,
      .help = "standard deviation of the router's starting weights; auto: 1 for switch, else 0.02" },
    { .name = "experts_forward", .type = MX_ENUM, .offset = AT(form), .flags = MX_RESULT | MX_AUTO,
      .preset = "auto", .choices = forms,
      .help = "factored: every frozen product once per token; shared: the down-projection per expert; naive: whole "
              "FFN per expert. Equal but for rounding; auto: factored, or shared with DoRA on down_proj" },
    { 0 },
};

const mx_synonym mx_routed_synonyms[] = {
    MX_LOW_RANK_SYNONYMS,
    { "use_dora", "method: mixdora" },
    { "num_local_experts", "num_experts" }, { "n_experts", "num_experts" }, { "moe_num_experts", "num_experts" },
    { "num_experts_per_tok", "top_k" }, { "num_experts_per_token", "top_k" }, { "moe_router_topk", "top_k" },
    { "moe-router-topk", "top_k" }, { "moe_top_k", "top_k" },
    { "router_type", "routing_strategy" }, { "router_strategy", "routing_strategy" },
    { "moe-aux-loss-coeff", "router_aux_loss_coef" }, { "moe_aux_loss_coeff", "router_aux_loss_coef" },
    { "moe_aux_loss_coef", "router_aux_loss_coef" }, { "aux_loss_coef", "router_aux_loss_coef" },
    { "moe-z-loss-coeff", "router_z_loss_coef" }, { "moe_z_loss_coeff", "router_z_loss_coef" },
    { "router_jitter_noise", "jitter_noise" }, { "capacity_factor", "expert_capacity" },
    { 0 },
};

static bool has_down_magnitude(const mx_routed_words *w, bool dora) {
    return dora && (w->lora.targets >> MX_SITE_DOWN & 1);
}

void mx_routed_check(const mx_routed_words *w, bool dora, const mx_node *map, mx_problems *problems) {
    if (!(w->lora.targets & MX_SITES_FFN)) {
        mx_problem(problems, mx_option_place(map, "target_modules"),
                   "add gate_proj, up_proj or down_proj, or use method: lora",
                   "target_modules holds no linear of the feed-forward block: its experts would all be the same");
    }
    if (w->routing == MX_ROUTE_TOP_K && w->top_k > w->num_experts) {
        mx_problem(problems, mx_option_place(map, "top_k"), NULL, "top_k is %lld, but num_experts (%s) is %lld",
                   (long long)w->top_k, mx_option_said(map, "num_experts", mx_option_place(map, "top_k")), (long long)w->num_experts);
    }
    if (w->form == MX_EXPERTS_FACTORED && has_down_magnitude(w, dora)) {
        mx_problem(problems, mx_option_place(map, "experts_forward"), "experts_forward: shared",
                   "experts_forward: factored does not hold with DoRA on down_proj, whose outputs are scaled by expert");
    }
}

void mx_routed_resolve(mx_routed_words *w, bool dora) {
    bool is_switch = w->routing == MX_ROUTE_SWITCH;

    if (w->expert.r == MX_AUTO_INT) {
        w->expert.r = w->lora.r;
    }
    if (isnan(w->expert.alpha)) {
        w->expert.alpha = w->lora.alpha;
    }
    if (isnan(w->expert.dropout)) {
        w->expert.dropout = w->lora.dropout;
    }
    if (w->expert.rslora < 0) {
        w->expert.rslora = w->lora.rslora;
    }
    if (isnan(w->jitter)) {
        w->jitter = is_switch ? 0.01 : 0;
    }
    if (isnan(w->init_range)) {
        w->init_range = is_switch ? 1 : 0.02;
    }
    if (w->form < 0) {
        w->form = has_down_magnitude(w, dora) ? MX_EXPERTS_SHARED : MX_EXPERTS_FACTORED;
    }
}

void mx_routed_describe(const void *config, mx_text *out) {
    const mx_routed_words *w = config;

    mx_text_print(out, "r%lld", (long long)w->lora.r);
    if (w->expert.r != w->lora.r) {
        mx_text_print(out, " (experts r%lld)", (long long)w->expert.r);
    }
    mx_text_print(out, " E%lld", (long long)w->num_experts);
    switch ((mx_routing)w->routing) {
    case MX_ROUTE_TOP_K:
        mx_text_print(out, " top-%lld", (long long)w->top_k);
        break;
    case MX_ROUTE_SWITCH:
        mx_text_print(out, " switch, capacity %lld,", (long long)w->capacity);
        break;
    case MX_ROUTE_TOP_P:
        mx_text_print(out, " top-p %g", w->top_p);
        break;
    }
    mx_text_print(out, " on");
    mx_low_rank_describe_targets(w->lora.targets, out);
}

void mx_routed_note(const void *config, mx_text *out) {
    const mx_routed_words *w = config;

    if (w->routing != MX_ROUTE_TOP_K) {
        mx_text_print(out, "routing_strategy: %s scales the block by gates that do not sum to 1, so step 0 is not the base "
                           "model\n", routings[w->routing]);
        return;
    }
    if (w->top_k == 1) {
        mx_text_print(out, "with top_k: 1 the gate is always 1, so the router learns from its losses alone%s "
                           "(routing_strategy: switch keeps the probability)\n",
                      w->balance_coef > 0 ? "" : ", and router_aux_loss_coef is 0: it learns nothing");
    }
    if (w->top_k == w->num_experts && w->num_experts > 1) {
        mx_text_print(out, "top_k equals num_experts: every token uses every expert, and the balance loss is constant\n");
    }
}

/* ------------------------------------------------------------------ adapter_config.json */

static bool inherits(const mx_routed_words *w) {
    return w->expert.r == w->lora.r && w->expert.alpha == w->lora.alpha && w->expert.dropout == w->lora.dropout &&
           (w->expert.rslora > 0) == w->lora.rslora;
}

void mx_routed_export(const mx_routed_words *w, bool dora, json_t *object) {
    json_object_set_new(object, "peft_type", json_string("MIXLORA"));
    mx_low_rank_export(&w->lora, object);
    if (!w->lora.rslora) { /* MoE-PEFT writes these two only when they hold */
        json_object_del(object, "use_rslora");
    }
    if (dora) {
        json_object_set_new(object, "use_dora", json_true());
    }
    if (!inherits(w)) {
        json_t *expert = json_object();

        json_object_set_new(expert, "bias", json_string("none"));
        json_object_set_new(expert, "r", json_integer(w->expert.r));
        json_object_set_new(expert, "lora_alpha", mx_low_rank_number(w->expert.alpha));
        json_object_set_new(expert, "lora_dropout", json_real(w->expert.dropout));
        json_object_set_new(expert, "use_rslora", json_boolean(w->expert.rslora > 0));
        json_object_set_new(object, "expert_lora", expert);
    }
    json_object_set_new(object, "routing_strategy", json_string(saved_routings[w->routing]));
    json_object_set_new(object, "num_experts", json_integer(w->num_experts));
    json_object_set_new(object, "act_fn", json_string("silu"));
    switch ((mx_routing)w->routing) {
    case MX_ROUTE_TOP_K:
        json_object_set_new(object, "top_k", json_integer(w->top_k));
        break;
    case MX_ROUTE_TOP_P:
        json_object_set_new(object, "top_p", json_real(w->top_p));
        json_object_set_new(object, "temperature", json_real(w->temperature));
        break;
    case MX_ROUTE_SWITCH:
        json_object_set_new(object, "expert_capacity", json_integer(w->capacity));
        break;
    }
}

bool mx_routed_claims(const json_t *object, bool dora) {
    const char *type = json_string_value(json_object_get(object, "peft_type"));

    return type && strcmp(type, "MIXLORA") == 0 && json_is_true(json_object_get(object, "use_dora")) == dora;
}

static void import_expert(mx_import *in, mx_routed_words *w) {
    const json_t *object = mx_import_object(in, "expert_lora");
    bool rslora = w->lora.rslora;
    mx_import inner;
    const char *bias;

    w->expert.r = w->lora.r;
    w->expert.alpha = w->lora.alpha;
    w->expert.dropout = w->lora.dropout;
    if (object) {
        mx_import_begin(&inner, object, in->path, in->st);
        bias = mx_import_text(&inner, "bias");
        mx_import_integer(&inner, "r", 1, 4096, &w->expert.r);
        mx_import_real(&inner, "lora_alpha", 0, 1e6, &w->expert.alpha);
        mx_import_real(&inner, "lora_dropout", 0, 1, &w->expert.dropout);
        mx_import_boolean(&inner, "use_rslora", &rslora);
        if (bias && strcmp(bias, "none") != 0) {
            mx_import_refuse(&inner, "expert_lora.bias", "biases are never trained here");
        }
        in->failed |= mx_import_end(&inner) != MX_OK;
    }
    w->expert.rslora = rslora;
}

static void import_routing(mx_import *in, mx_routed_words *w) {
    const char *name = mx_import_text(in, "routing_strategy");

    w->routing = MX_ROUTE_TOP_K;
    if (!name) {
        mx_import_refuse(in, "routing_strategy", "is missing");
        return;
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, saved_routings[i]) == 0) {
            w->routing = i;
            return;
        }
    }
    if (strcmp(name, "mixtral") == 0) { /* what the paper's own code called it */
        return;
    }
    if (strcmp(name, "switch") == 0) {
        w->routing = MX_ROUTE_SWITCH;
        return;
    }
    mx_import_refuse(in, "routing_strategy", "is none of mixlora, mixlora-switch, mixlora-dynamic");
}

void mx_routed_import(mx_import *in, bool dora, mx_routed_words *w) {
    const char *act;
    double ffn_dropout = 0;
    int64_t sparse_step;
    bool has;

    mx_import_boolean(in, "use_dora", &has);
    mx_low_rank_import(in, &w->lora);
    import_expert(in, w);
    import_routing(in, w);
    act = mx_import_text(in, "act_fn");
    if (act && strcmp(act, "silu") != 0) {
        mx_import_refuse(in, "act_fn", "only silu, LLaMA's own, is computed here");
    }
    if (!mx_import_integer(in, "num_experts", 1, 128, &w->num_experts)) {
        mx_import_refuse(in, "num_experts", "is missing");
    }
    switch ((mx_routing)w->routing) {
    case MX_ROUTE_TOP_K:
        if (!mx_import_integer(in, "top_k", 1, w->num_experts, &w->top_k) && !in->failed && w->top_k > w->num_experts) {
            mx_import_refuse(in, "top_k", "is missing");
        }
        break;
    case MX_ROUTE_TOP_P:
        mx_import_real(in, "top_p", 0, 1, &w->top_p);
        mx_import_real(in, "temperature", 0, 1000, &w->temperature);
        break;
    case MX_ROUTE_SWITCH:
        mx_import_integer(in, "expert_capacity", 1, 1 << 20, &w->capacity);
        mx_import_integer(in, "sparse_step", 0, 1 << 20, &sparse_step); /* written, but used by no version of MoE-PEFT */
        break;
    }
    w->jitter = 0; /* words of training; what is absent is off */
    mx_import_real(in, "router_aux_loss_coef", 0, 100, &w->balance_coef);
    mx_import_real(in, "router_z_loss_coef", 0, 100, &w->z_coef);
    mx_import_real(in, "jitter_noise", 0, 1, &w->jitter);
    mx_import_real(in, "ffn_dropout", 0, 1, &ffn_dropout);
    if (ffn_dropout > 0) {
        mx_import_refuse(in, "ffn_dropout", "dropout of the block's output is not built");
    }
    w->form = -1;
    mx_routed_resolve(w, dora);
}
