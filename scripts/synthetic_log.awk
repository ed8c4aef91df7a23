# The log of a run that never was: three models, their losses, scores and gradients, for
# scripts/test_report.sh. docs/report.md says what a log holds.
#
#   awk -v steps=1000 -v seed=1 -v layers=4 -v mutual=1 -f scripts/synthetic_log.awk

function noise() { return rand() + rand() + rand() - 1.5 }

function truth(is) { return is ? "true" : "false" }

# Keys and values for JSON, with a comma before all but the first.
function number(key, value) { return ",\"" key "\":" sprintf("%.6g", value) }
function whole(key, value) { return ",\"" key "\":" sprintf("%.0f", value) }
function text(key, value) { return ",\"" key "\":\"" value "\"" }
function raw(key, value) { return ",\"" key "\":" value }
function object(fields) { return "{" substr(fields, 2) "}" }

# A symmetric matrix of n rows with `beside` around its diagonal.
function square(n, diagonal, beside,    i, j, all) {
    for (i = 1; i <= n; i++) {
        all = all (i > 1 ? "],[" : "")
        for (j = 1; j <= n; j++)
            all = all (j > 1 ? "," : "") (i == j ? diagonal : beside * (1 + (i + j) % 3 / 20))
    }
    return "[[" all "]]"
}

# The same with three values beside the diagonal.
function three(diagonal, ab, ac, bc) {
    return "[[" diagonal "," ab "," ac "],[" ab "," diagonal "," bc "]," \
        "[" ac "," bc "," diagonal "]]"
}

function member(m, name, transposed) {
    return object(text("model", models[m]) text("param", name) text("view", name) \
        raw("transposed", truth(transposed)))
}

# The views of a role at a depth. RoBERTa has half as many blocks; norms of GPT-2 stand elsewhere.
function members(role, part, depth,    m, all, name, block) {
    n_members = 0
    for (m = 1; m <= 3; m++) {
        if (models[m] == "roberta" && depth % 2 == 1 || models[m] == "gpt2" && role ~ /norm/)
            continue
        block = models[m] == "roberta" ? depth / 2 : depth
        name = role
        gsub(/ /, "_", name)
        name = (models[m] == "gpt2" ? "h." : "encoder.layer.") block "." name "." part
        all = all (n_members++ ? "," : "") \
            member(m, name, models[m] == "gpt2" && part == "weight")
    }
    return "[" all "]"
}

# The groups of the plan, or at some part of the training their cosines and distances.
function groups(is_plan, done,    r, p, depth, views, all, one, cosine) {
    for (r = 1; r <= n_roles; r++)
        for (p = 1; p <= 2; p++)
            for (depth = 0; depth < layers; depth++) {
                views = members(roles[r], parts[p], depth)
                if (n_members < 2)
                    continue
                one = text("name", roles[r] " " parts[p]) raw("members", views)
                cosine = 0.55 * cos(0.6 * r + 0.35 * depth) * (1 - 0.6 * done) + 0.04 * noise()
                if (is_plan)
                    one = one whole("slot", depth) whole("slots", layers) raw("shape", "[128,128]")
                else
                    one = one raw("depth", "[" depth "," layers "]") \
                        raw("cosine", square(n_members, 1, cosine)) \
                        raw("distance", square(n_members, 0, 4 + 3 * done + 0.1 * r))
                all = all "," object(one)
            }
    one = text("name", "embedding norm weight") \
        raw("members", "[" member(1, "bert.norm", 0) "," member(3, "roberta.norm", 0) "]")
    if (is_plan)
        one = one raw("slot", "null") raw("slots", "null") raw("shape", "[1,128]")
    else
        one = one raw("depth", "null") raw("cosine", square(2, 1, 0.2)) \
            raw("distance", square(2, 0, 1.5))
    return "[" substr(all, 2) "," object(one) "]"
}

function record(type, step, fields) {
    print object(text("type", type) whole("step", step) \
        sprintf(",\"time\":%.2f", 1764379769.5 + step * 0.18) fields)
}

function run(    m, all, left, plan, options) {
    for (m = 1; m <= 3; m++)
        all = all "," object(text("name", models[m]) text("architecture", models[m]) \
            text("task", "classification") whole("n_parameters", 109483778 - 1000 * m) \
            whole("n_trainable", 109483778 - 1000 * m) number("weight", 1 / 3))
    options = text("method", "adamw") number("learning_rate", 0.0005) \
        text("lr_schedule", "cosine") whole("warmup_steps", steps / 10) \
        whole("total_steps", steps) whole("metrics_every", steps / 50) \
        raw("mutual", mutual ? "{\"teacher\":\"mean_teacher\",\"weight\":1.0}" : "null")
    left = object(text("model", "bert") text("view", "bert.pooler.dense.weight") \
        text("reason", "no other model has pooler weight"))
    plan = text("policy", "aligned") raw("models", "[\"bert\",\"gpt2\",\"roberta\"]") \
        raw("groups", groups(1, 0)) raw("left_out", "[" left "," left "]") \
        text("mutual", "mutual learning: " (mutual ? "from running means of the others" : "none"))
    record("run", 0, whole("format", 1) text("version", "0.1.0") text("runtime", "1.23.2") \
        whole("seed", seed) whole("threads", 8) whole("n_batches", steps / 4) \
        raw("options", object(options)) \
        raw("fit", object(whole("epochs", 4) whole("evaluate_every", steps / 25))) \
        raw("models", "[" substr(all, 2) "]") raw("plan", object(plan)))
}

function take_step(step, done,    m, all, one, loss, norm, adaptive, schedule, is_bad, trend) {
    schedule = done < 0.1 ? 10 * done : 0.5 * (1 + cos(3.14159 * (done - 0.1) / 0.9))
    for (m = 1; m <= 3; m++) {
        loss = 0.15 + 0.06 * m + 0.55 * exp(-(3.2 - 0.4 * m) * done * (1 + 0.3 * mutual))
        loss += 0.05 * noise() - luck
        norm = (0.4 + 0.9 * exp(-3 * done)) * exp(0.5 * noise()) * (rand() < 0.001 ? 20 : 1)
        adaptive = 1 + 0.25 * sin(9 * done + m)
        is_bad = m == 2 && step == int(steps * 0.37)
        trend = object(number("adaptive_state", adaptive) \
            number("progress", 0.2 * exp(-4 * done) + 0.02 * noise()) \
            number("certainty", 0.8 * (1 - done) + 0.1 * noise()))
        one = text("name", models[m]) raw("loss", is_bad ? "null" : sprintf("%.5f", loss)) \
            number("mutual_loss", mutual * 0.2 * exp(-2 * done) * (1 + 0.2 * noise())) \
            whole("n_correct", 32 * (1 - loss / 1.5)) whole("n_labels", 32) \
            number("learning_rate", 0.0005 * schedule * adaptive) \
            raw("rates", object(number("base", 0.0005) number("schedule", schedule) \
                number("adaptive", adaptive) number("scale", 1) number("multiplier", 1))) \
            number("weight", 1 / 3) \
            raw("gradient_norm", is_bad ? "null" : sprintf("%.4f", norm)) \
            number("clip_factor", norm > 1 ? 1 / norm : 1) raw("clipped", truth(norm > 1)) \
            raw("skipped", truth(is_bad)) whole("n_skipped", m == 2 && step >= steps * 0.37) \
            raw("convergence", step < 4 ? "null" : trend)
        all = all "," object(one)
    }
    record("step", step, whole("epoch", int(4 * done - 1e-9)) raw("shared", "true") \
        number("seconds", 0.18 + 0.01 * noise()) \
        number("examples_per_second", 177 + 9 * noise()) \
        number("tokens_per_second", 9000 + 500 * noise()) \
        whole("peak_memory_bytes", 3221225472 + 300000000 * (done > 0.1)) \
        raw("models", "[" substr(all, 2) "]"))
}

function evaluate(step, done,    m, all, score, sum) {
    for (m = 1; m <= 3; m++) {
        score = 0.86 - 0.02 * m + 0.012 * mutual - 0.36 * exp(-4 * done) + luck + 0.006 * noise()
        sum += score
        all = all "," object(text("name", models[m]) number("score", score) \
            number("loss", 1.05 - score) raw("scores", object(number("accuracy", score) \
                number("macro_f1", score - 0.01 - 0.01 * rand()) whole("n_labels", 872))))
    }
    record("evaluation", step, number("mean_score", sum / 3) \
        raw("models", "[" substr(all, 2) "]"))
}

function share(step, done,    c, d) {
    c = 0.35 * exp(-1.5 * done) + 0.02 * noise()
    d = 0.05 + 0.02 * done
    record("sharing", step, raw("models", "[\"bert\",\"gpt2\",\"roberta\"]") \
        raw("cosine", three(1, c, c + 0.2, c - 0.2)) \
        raw("distance", three(0, d, d * (1.4 - 0.8 * done), d * (1.2 + done))) \
        raw("groups", groups(0, done)))
}

BEGIN {
    if (steps == "") steps = 1000
    if (seed == "") seed = 1
    if (layers == "") layers = 4
    if (mutual == "") mutual = 1
    srand(7919 * seed)
    luck = 0.06 * noise()
    split("bert gpt2 roberta", models, " ")
    split("weight bias", parts, " ")
    n_roles = split("attention query,attention key,attention value,attention output," \
        "norm after attention,mlp up,mlp down,norm after mlp", roles, ",")
    run()
    for (step = 1; step <= steps; step++) {
        take_step(step, step / steps)
        if (step % int(steps / 25) == 0)
            evaluate(step, step / steps)
        if (step % int(steps / 50) == 0)
            share(step, step / steps)
    }
    record("end", steps, text("reason", "epochs") raw("restored_best", "true"))
}
