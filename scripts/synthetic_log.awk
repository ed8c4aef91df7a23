# The log of a run that never was: three models, their losses, scores and gradients, in the format of
# docs/lifecycle.md, for scripts/test_report.sh.
#
#   awk -v steps=1000 -v seed=1 -v layers=4 -v mutual=1 -f scripts/synthetic_log.awk

function noise() { return rand() + rand() + rand() - 1.5 }

function square(n, at,    i, j, text) {
    text = "["
    for (i = 1; i <= n; i++) {
        text = text (i > 1 ? "," : "") "["
        for (j = 1; j <= n; j++)
            text = text (j > 1 ? "," : "") (i == j ? diagonal : sprintf("%.6g", at + 0.03 * ((i + j) % 3) * (at < 0 ? -1 : 1)))
        text = text "]"
    }
    return text "]"
}

# The parameter of a role in a block of a model.
function parameter(m, role, part, block,    name) {
    if (name_of[m] == "gpt2") {
        name = role ~ /query|key|value/ ? "attn.c_attn" : role ~ /output/ ? "attn.c_proj" : role ~ /up/ ? "mlp.c_fc" : role ~ /down/ ? "mlp.c_proj" : role ~ /attention/ ? "ln_1" : "ln_2"
        return "transformer.h." block "." name "." part
    }
    name = role ~ /query/ ? "attention.self.query" : role ~ /key/ ? "attention.self.key" : role ~ /value/ ? "attention.self.value" : role ~ /output/ ? "attention.output.dense" : role ~ /up/ ? "intermediate.dense" : role ~ /down/ ? "output.dense" : role ~ /attention/ ? "attention.output.LayerNorm" : "output.LayerNorm"
    return name_of[m] ".encoder.layer." block "." name "." part
}

function member(m, name, transposed) {
    return "{\"model\":\"" name_of[m] "\",\"param\":\"" name "\",\"view\":\"" name "\",\"offset\":0,\"runs\":128,\"run_length\":128,\"stride\":128,\"transposed\":" transposed "}"
}

# Groups of the plan (at is "") or of a record of sharing.
function groups(at,    text, r, p, b, m, part, members, n, cosine) {
    text = ""
    for (r = 1; r <= n_roles; r++)
        for (p = 1; p <= 2; p++)
            for (b = 0; b < layers; b++) {
                part = p == 1 ? "weight" : "bias"
                members = ""; n = 0
                for (m = 1; m <= 3; m++) {
                    # RoBERTa has half as many blocks; norms of GPT-2 stand elsewhere.
                    if (name_of[m] == "roberta" && b % 2 == 1) continue
                    if (name_of[m] == "gpt2" && roles[r] ~ /norm/) continue
                    members = members (n++ ? "," : "") member(m, parameter(m, roles[r], part, name_of[m] == "roberta" ? int(b / 2) : b), name_of[m] == "gpt2" && p == 1 ? "true" : "false")
                }
                if (n < 2) continue
                text = text (text == "" ? "" : ",") "{\"name\":\"" roles[r] " " part "\","
                if (at == "")
                    text = text "\"slot\":" b ",\"slots\":" layers ",\"shape\":[128,128],\"reason\":\"same role and view shape, same relative depth\","
                else {
                    cosine = 0.55 * cos(0.6 * r + 0.35 * b) * (1 - 0.6 * at / steps) + 0.04 * noise()
                    diagonal = 1
                    text = text "\"depth\":[" b "," layers "],\"cosine\":" square(n, cosine) ","
                    diagonal = 0
                    text = text "\"distance\":" square(n, 4 + 3 * at / steps + 0.1 * r) ","
                }
                text = text "\"members\":[" members "]}"
            }
    members = member(1, "bert.embeddings.LayerNorm.weight", "false") "," member(3, "roberta.embeddings.LayerNorm.weight", "false")
    text = text ",{\"name\":\"embedding norm weight\","
    if (at == "")
        text = text "\"slot\":null,\"slots\":null,\"shape\":[1,128],\"reason\":\"same role and view shape\","
    else {
        diagonal = 1; text = text "\"depth\":null,\"cosine\":" square(2, 0.2) ","
        diagonal = 0; text = text "\"distance\":" square(2, 1.5) ","
    }
    return "[" text "\"members\":[" members "]}]"
}

BEGIN {
    if (steps == "") steps = 1000
    if (seed == "") seed = 1
    if (layers == "") layers = 4
    if (mutual == "") mutual = 1
    srand(seed)
    split("bert gpt2 roberta", name_of, " ")
    n_roles = split("attention query,attention key,attention value,attention output,norm after attention,mlp up,mlp down,norm after mlp", roles, ",")
    start = 1764379769.5
    left = "{\"model\":\"bert\",\"param\":\"bert.pooler.dense.weight\",\"view\":\"bert.pooler.dense.weight\",\"reason\":\"no other model has pooler weight\"},{\"model\":\"gpt2\",\"param\":\"transformer.wpe.weight\",\"view\":\"transformer.wpe.weight\",\"reason\":\"position embedding weight of other models has shape [514, 128]\"}"
    teacher = mutual ? "{\"required\":false,\"teacher\":\"mean_teacher\",\"weight\":1.0,\"temperature\":1.0}" : "null"
    printf "{\"type\":\"run\",\"format\":1,\"step\":0,\"time\":%.1f,\"version\":\"0.1.0\",\"runtime\":\"1.23.2\",\"seed\":%d,\"threads\":8,\"n_batches\":%d,", start, seed, steps / 4
    printf "\"options\":{\"method\":\"adamw\",\"learning_rate\":0.0005,\"lr_schedule\":\"cosine\",\"warmup_steps\":%d,\"total_steps\":%d,\"share_policy\":\"aligned\",\"share_rule\":\"gated\",\"metrics_every\":%d,\"mutual\":%s},", steps / 10, steps, steps / 50, teacher
    printf "\"fit\":{\"epochs\":4,\"max_steps\":0,\"evaluate_every\":%d,\"patience\":5,\"min_delta\":0.0},\"models\":[", steps / 25
    for (m = 1; m <= 3; m++)
        printf "%s{\"name\":\"%s\",\"architecture\":\"%s\",\"task\":\"classification\",\"n_parameters\":%d,\"n_trainable\":%d,\"weight\":0.3333333}", (m > 1 ? "," : ""), name_of[m], name_of[m], 109483778 - 1000 * m, 109483778 - 1000 * m
    printf "],\"plan\":{\"policy\":\"aligned\",\"models\":[\"bert\",\"gpt2\",\"roberta\"],\"groups\":%s,\"left_out\":[%s],", groups(""), left
    printf "\"start\":{\"start\":\"own\",\"from\":null,\"note\":null},\"mutual\":\"mutual learning: %s\"}}\n", mutual ? "each model learns from the running means of the others" : "none"

    for (step = 1; step <= steps; step++) {
        part = step / steps
        time = start + step * 0.18
        warm = step < steps / 10 ? 10 * step / steps : 0.5 * (1 + cos(3.14159 * (part - 0.1) / 0.9))
        printf "{\"type\":\"step\",\"step\":%d,\"time\":%.2f,\"epoch\":%d,\"batch\":%d,\"n_micro_batches\":1,\"shared\":true,\"synced\":false,\"seconds\":%.4f,\"examples_per_second\":%.1f,\"tokens_per_second\":%.0f,\"peak_memory_bytes\":%.0f,\"models\":[", step, time, int(4 * part - 1e-9), step % (steps / 4), 0.18 + 0.01 * noise(), 177 + 9 * noise(), 9000 + 500 * noise(), 3221225472 + 300000000 * (part > 0.1)
        for (m = 1; m <= 3; m++) {
            loss[m] = 0.15 + 0.06 * m + 0.55 * exp(-(3.2 - 0.4 * m) * part * (1 + 0.3 * mutual)) + 0.05 * noise()
            bad = m == 2 && step == int(steps * 0.37)
            norm = (0.4 + 0.9 * exp(-3 * part)) * exp(0.5 * noise()) * (rand() < 0.001 ? 20 : 1)
            adaptive = 1 + 0.25 * sin(9 * part + m)
            printf "%s{\"name\":\"%s\",\"loss\":%s,\"mutual_loss\":%.4f,\"n_correct\":%d,\"n_labels\":32,\"learning_rate\":%.4g,\"rates\":{\"base\":0.0005,\"schedule\":%.4g,\"adaptive\":%.4g,\"scale\":1.0,\"multiplier\":1.0},\"weight\":0.3333333,\"gradient_norm\":%s,\"clip_factor\":%.3f,\"clipped\":%s,\"skipped\":%s,\"n_skipped\":%d,", (m > 1 ? "," : ""), name_of[m], bad ? "null" : sprintf("%.5f", loss[m]), mutual * 0.2 * exp(-2 * part) * (1 + 0.2 * noise()), 32 * (1 - loss[m] / 1.5), 0.0005 * warm * adaptive, warm, adaptive, bad ? "null" : sprintf("%.4f", norm), (norm > 1 ? 1 / norm : 1), (norm > 1 ? "true" : "false"), (bad ? "true" : "false"), (m == 2 && step >= int(steps * 0.37))
            printf "\"convergence\":%s}", step < 4 ? "null" : sprintf("{\"adaptive_state\":%.4g,\"slope\":%.4g,\"progress\":%.4g,\"certainty\":%.4g}", adaptive, -0.01 * (1 - part), 0.2 * exp(-4 * part) + 0.02 * noise(), 0.8 * (1 - part) + 0.1 * noise())
        }
        print "]}"
        if (step % int(steps / 25) == 0) {
            printf "{\"type\":\"evaluation\",\"step\":%d,\"time\":%.2f,\"epoch\":%d,\"seconds\":1.2,\"mean_score\":0.8,\"monitor\":\"mean\",\"monitored\":0.8,\"best\":0.8,\"best_step\":%d,\"is_best\":true,\"n_bad\":0,\"models\":[", step, time, int(4 * part - 1e-9), step
            for (m = 1; m <= 3; m++) {
                score = 0.86 - 0.02 * m + 0.012 * mutual - 0.36 * exp(-4 * part) + 0.006 * noise()
                printf "%s{\"name\":\"%s\",\"score\":%.4f,\"loss\":%.4f,\"best_score\":%.4f,\"best_step\":%d,\"is_best\":true,\"scores\":{\"task\":\"classification\",\"accuracy\":%.4f,\"macro_f1\":%.4f,\"n_labels\":872}}", (m > 1 ? "," : ""), name_of[m], score, 1.05 - score, score, step, score, score - 0.01 - 0.01 * rand()
            }
            print "]}"
        }
        if (step % int(steps / 50) == 0) {
            printf "{\"type\":\"sharing\",\"step\":%d,\"time\":%.2f,\"models\":[\"bert\",\"gpt2\",\"roberta\"],", step, time
            c = 0.35 * exp(-1.5 * part); d = 0.05 + 0.02 * part
            printf "\"cosine\":[[1,%.4f,%.4f],[%.4f,1,%.4f],[%.4f,%.4f,1]],", c + 0.02 * noise(), c + 0.2, c, c - 0.2 + 0.03 * noise(), c + 0.2, c - 0.2
            printf "\"distance\":[[0,%.5f,%.5f],[%.5f,0,%.5f],[%.5f,%.5f,0]],", d, d * (1.4 - 0.8 * part), d, d * (1.2 + part), d * (1.4 - 0.8 * part), d * (1.2 + part)
            printf "\"groups\":%s}\n", groups(step)
        }
    }
    printf "{\"type\":\"end\",\"step\":%d,\"time\":%.2f,\"epoch\":4,\"reason\":\"epochs\",\"restored_best\":true,\"models\":[]}\n", steps, start + steps * 0.18
}
