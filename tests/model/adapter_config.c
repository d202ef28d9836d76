/* adapter_config.json: what PEFT and MoE-PEFT write is understood, and nothing that says something is ignored. */
#include "model/adapter_config.h"

#include "model/methods/parts/routed.h"

#include <criterion/criterion.h>
#include <string.h>

typedef struct reading {
    mx_arena arena;
    const mx_method *method;
    void *config;
    mx_status st;
    mx_code code;
} reading;

static reading read_text(const char *text) {
    reading r = { 0 };
    json_t *object = NULL;

    mx_arena_init(&r.arena, 1 << 24);
    cr_assert_eq(mx_json_parse(text, strlen(text), "a.json", 1, &object, &r.st), MX_OK, "%s", r.st.text);
    r.code = mx_adapter_config_read(object, "adapter_config.json", &r.arena, &r.method, &r.config, &r.st);
    json_decref(object);
    return r;
}

/* As PEFT 0.17 writes it: many words that say nothing. */
static const char PEFT[] =
    "{\"alpha_pattern\": {}, \"auto_mapping\": null, \"base_model_name_or_path\": \"x/y\", \"bias\": \"none\", "
    "\"corda_config\": null, \"eva_config\": null, \"exclude_modules\": null, \"fan_in_fan_out\": false, "
    "\"inference_mode\": true, \"init_lora_weights\": true, \"layer_replication\": null, \"layers_pattern\": null, "
    "\"layers_to_transform\": null, \"loftq_config\": {}, \"lora_alpha\": 16, \"lora_bias\": false, \"lora_dropout\": 0.1, "
    "\"megatron_config\": null, \"megatron_core\": \"megatron.core\", \"modules_to_save\": null, \"peft_type\": \"LORA\", "
    "\"qalora_group_size\": 16, \"r\": 8, \"rank_pattern\": {}, \"revision\": null, \"target_modules\": [\"v_proj\", "
    "\"q_proj\"], \"target_parameters\": null, \"task_type\": \"CAUSAL_LM\", \"trainable_token_indices\": null, "
    "\"use_dora\": %s, \"use_qalora\": false, \"use_rslora\": %s%s}";

Test(adapter_config, peft_s_own_words_are_understood) {
    char text[2048];
    reading r;
    const mx_low_rank_words *w;

    snprintf(text, sizeof text, PEFT, "false", "true", "");
    r = read_text(text);
    cr_assert_eq(r.code, MX_OK, "%s", r.st.text);
    w = r.config;
    cr_expect_str_eq(r.method->name, "lora");
    cr_expect_eq(w->r, 8);
    cr_expect_eq(w->alpha, 16);
    cr_expect_eq(w->dropout, 0.1);
    cr_expect_eq(w->targets, 1u << MX_SITE_Q | 1u << MX_SITE_V);
    cr_expect(w->rslora);
    mx_arena_finish(&r.arena);
    snprintf(text, sizeof text, PEFT, "true", "false", "");
    r = read_text(text);
    cr_assert_eq(r.code, MX_OK, "%s", r.st.text);
    cr_expect_str_eq(r.method->name, "dora");
    mx_arena_finish(&r.arena);
}

Test(adapter_config, words_that_would_change_the_numbers_are_refused_by_name) {
    static const char *const more[] = {
        ", \"layers_to_transform2\": [1]", ", \"rank_pattern2\": {\"q\": 4}", ", \"use_bdlora\": true",
        ", \"alora_invocation_tokens\": [1, 2]", ", \"something\": 0",
    };

    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        char text[2048];
        reading r;

        snprintf(text, sizeof text, PEFT, "false", "false", more[i]);
        r = read_text(text);
        cr_expect_eq(r.code, MX_E_DATA, "%s was ignored", more[i]);
        cr_expect_not_null(strstr(r.st.text, "is not a word this method knows"), "%s", r.st.text);
        mx_arena_finish(&r.arena);
    }
}

Test(adapter_config, wrong_values_are_told) {
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "{\"peft_type\": \"VERA\", \"r\": 8}", "peft_type 'VERA' is none" },
        { "{\"r\": 8}", "peft_type '(none)' is none" },
        { "{\"peft_type\": null, \"r\": 8}", "'r' is not a word" },
        { "{\"peft_type\": \"LORA\", \"lora_alpha\": 8}", "r: is missing" },
        { "{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 8}", "r must be an integer from 1" },
        { "{\"peft_type\": \"LORA\", \"r\": \"8\", \"lora_alpha\": 8}", "r must be an integer" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 8, \"bias\": \"all\"}", "bias: biases are never trained" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 8, \"target_modules\": [\"fc1\"]}", "'fc1' is none of the seven" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 8, \"target_modules\": \".*proj\"}", "must be a list" },
        { "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 8, \"num_experts\": 4}", "routing_strategy: is missing" },
        { "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 8, \"routing_strategy\": \"mixlora\", \"num_experts\": 4, "
          "\"top_k\": 5}", "top_k must be an integer from 1 to 4" },
        { "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 8, \"routing_strategy\": \"mixlora\", \"num_experts\": 1}",
          "top_k: is missing" },
        { "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 8, \"routing_strategy\": \"mixlora\", \"num_experts\": 4, "
          "\"top_k\": 2, \"act_fn\": \"gelu\"}", "only silu" },
        { "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 8, \"routing_strategy\": \"mixlora\", \"num_experts\": 4, "
          "\"top_k\": 2, \"ffn_dropout\": 0.1}", "ffn_dropout" },
        { "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 8, \"routing_strategy\": \"mixlora\", \"num_experts\": 4, "
          "\"top_k\": 2, \"expert_lora\": {\"r\": 2, \"init\": \"x\"}}", "'init' is not a word" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        reading r = read_text(cases[i].text);

        cr_expect_eq(r.code, MX_E_DATA, "%s", cases[i].text);
        cr_expect(strstr(r.st.text, cases[i].words), "%s: %s", cases[i].text, r.st.text);
        mx_arena_finish(&r.arena);
    }
}

Test(adapter_config, mixlora_s_generations_of_names_are_understood) {
    static const struct {
        const char *name;
        int routing;
    } names[] = { { "mixlora", MX_ROUTE_TOP_K }, { "mixtral", MX_ROUTE_TOP_K }, { "mixlora-switch", MX_ROUTE_SWITCH },
                  { "switch", MX_ROUTE_SWITCH }, { "mixlora-dynamic", MX_ROUTE_TOP_P } };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[512];
        const mx_routed_words *w;
        reading r;

        snprintf(text, sizeof text,
                 "{\"peft_type\": \"MIXLORA\", \"r\": 8, \"lora_alpha\": 16, \"lora_dropout\": 0.05, \"target_modules\": "
                 "\"all-linear\", \"routing_strategy\": \"%s\", \"num_experts\": 6, \"act_fn\": \"silu\", "
                 "\"expert_lora\": {\"bias\": \"none\", \"r\": 2, \"use_rslora\": true}}", names[i].name);
        r = read_text(text);
        cr_assert_eq(r.code, MX_OK, "%s", r.st.text);
        w = r.config;
        cr_expect_eq(w->routing, names[i].routing);
        cr_expect_eq(w->lora.targets, (uint64_t)MX_SITES_ALL);
        cr_expect_eq(w->num_experts, 6);
        cr_expect_eq(w->expert.r, 2);
        cr_expect_eq(w->expert.alpha, 16, "inherited");
        cr_expect_eq(w->expert.dropout, 0.05, "inherited");
        cr_expect_eq(w->expert.rslora, 1);
        mx_arena_finish(&r.arena);
    }
}

/* The recipe's words: what depends on another word, and what auto means. */
Test(adapter_config, dependent_words_are_checked_and_auto_is_resolved) {
    const mx_method *mixlora = mx_method_find("mixlora"), *mixdora = mx_method_find("mixdora");
    mx_problems p;
    mx_arena arena;
    mx_routed_words *w;

    mx_arena_init(&arena, 1 << 20);
    w = mx_method_defaults(mixlora, &arena);
    cr_expect_eq(w->form, MX_EXPERTS_FACTORED);
    cr_expect_eq(w->jitter, 0);
    cr_expect_eq(w->init_range, 0.02);
    cr_expect_eq(w->balance_coef, 1e-3);
    w->top_k = 9;
    mx_problems_init(&p);
    mixlora->options->check(w, NULL, &p);
    cr_assert_eq(p.count, 1);
    cr_expect_not_null(strstr(p.item[0].text, "top_k is 9, but num_experts"), "%s", p.item[0].text);
    mx_problems_finish(&p);

    w = mx_method_defaults(mixdora, &arena);
    cr_expect_eq(w->form, MX_EXPERTS_SHARED, "factored does not hold with DoRA on down_proj");
    w->form = MX_EXPERTS_FACTORED;
    mx_problems_init(&p);
    mixdora->options->check(w, NULL, &p);
    cr_assert_eq(p.count, 1);
    cr_expect_not_null(strstr(p.item[0].text, "factored does not hold"), "%s", p.item[0].text);
    mx_problems_finish(&p);
    w->lora.targets &= ~(1u << MX_SITE_DOWN);
    mx_problems_init(&p);
    mixdora->options->check(w, NULL, &p);
    cr_expect_eq(p.count, 0, "without DoRA on down_proj it holds");
    mx_problems_finish(&p);
    w->lora.targets = MX_SITES_ATTENTION;
    mx_problems_init(&p);
    mixdora->options->check(w, NULL, &p);
    cr_expect_eq(p.count, 1, "experts without adapters are refused");
    mx_problems_finish(&p);
    mx_arena_finish(&arena);
}

Test(adapter_config, one_expert_a_token_is_told_that_its_router_learns_little) {
    const mx_method *m = mx_method_find("mixlora");
    mx_arena arena;
    mx_text text;
    mx_routed_words *w;

    mx_arena_init(&arena, 1 << 20);
    mx_text_init(&text, 1 << 16);
    w = mx_method_defaults(m, &arena);
    m->note(w, &text);
    cr_expect_eq(text.length, 0, "nothing to say about the defaults");
    w->top_k = 1;
    m->note(w, &text);
    cr_expect_not_null(strstr(text.data, "learns from its losses alone"), "%s", text.data);
    mx_text_finish(&text);
    mx_arena_finish(&arena);
}

Test(adapter_config, an_adapter_of_a_changed_base_is_refused) {
    char text[2048], *init;
    reading r;

    snprintf(text, sizeof text, PEFT, "false", "true", "");
    init = strstr(text, "\"init_lora_weights\": true");
    cr_assert_not_null(init);
    memcpy(init, "\"init_lora_weights\":\"pi\" ", strlen("\"init_lora_weights\": true") - 0);
    r = read_text(text);
    cr_assert_eq(r.code, MX_E_DATA);
    cr_assert(strstr(r.st.text, "init_lora_weights"), "%s", r.st.text);
    mx_arena_finish(&r.arena);
}
