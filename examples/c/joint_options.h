/* The flags of joint_train. */
#ifndef MMOPT_JOINT_OPTIONS_H
#define MMOPT_JOINT_OPTIONS_H

#include "example.h"

enum { MAX_MODELS = 8, MAX_ALL = 2 * MAX_MODELS };

struct settings {
    const char *data, *eval, *test, *mode, *out, *checkpoint, *json, *runtime, *options;
    const char *tokenizer, *tokenizer_data, *unlabelled, *teachers, *task_name;
    char *models[MAX_MODELS];
    char *pretrained[MAX_MODELS]; /* NULL, or the directory that a model's weights come from */
    uint32_t architectures[MAX_MODELS];
    uint32_t preset, task;
    size_t n_models, batch, threads, layers, hidden, heads, vocab, max_length;
    unsigned long long epochs, steps, checkpoint_every, evaluations;
    uint64_t seed;
    unsigned long long sync_every;
    double outer_lr, outer_momentum;
    double learning_rate, dropout, unlabelled_ratio;
    int resume, quiet, ema, memory;
};

static const char usage[] =
    "joint_train --data FILE [--eval FILE] [flags]\n"
    "  --task TASK            classification (default), entities, questions, language\n"
    "  --data FILE            what to train on: lines of text TAB label; words with tags (CoNLL);\n"
    "                         questions with answers (SQuAD, or an object a line); plain text;\n"
    "                         the word synthetic generates examples\n"
    "  --eval FILE            what is held out (default: a tenth of the data)\n"
    "  --test FILE            further held-out examples, scored after each epoch\n"
    "  --models LIST          bert, gpt2, roberta, distilbert (default bert,gpt2,roberta)\n"
    "  --pretrained NAME=DIR  that model and its tokenizer are in DIR, as Hugging Face\n"
    "                         saves them\n"
    "  --teachers DIR         trained models, as --out writes them; each teaches and does not\n"
    "                         learn (the option mutual, with the teacher frozen)\n"
    "  --unlabelled FILE      further examples to train on; labels in it are not used: models\n"
    "                         learn from each other there (the option mutual)\n"
    "  --unlabelled-ratio X   so many of them for each labelled one in a batch (default: as\n"
    "                         they come)\n"
    "  --tokenizer-data FILE  examples that vocabularies are made from (default: all of the\n"
    "                         training data)\n"
    "  --tokenizer DIR        one for all models (default: each gets its own, trained, or\n"
    "                         that of --pretrained)\n"
    "  --mode MODE            joint (default), paper, independent\n"
    "  --epochs N             walks over the data (default 4)\n"
    "  --steps N              stop after so many steps (default: no limit)\n"
    "  --batch N              sentences per step (default 32)\n"
    "  --lr X                 base learning rate (default 5e-4)\n"
    "  --seed N               weights, dropout and order (default 1)\n"
    "  --threads N            0: every core (default)\n"
    "  --out DIR              write each trained model to DIR/<name>\n"
    "  --checkpoint DIR       write checkpoints there, one at the end\n"
    "  --checkpoint-every N   and one every N steps\n"
    "  --resume               go on from the last checkpoint\n"
    "  --evaluations N        held-out scores so often in an epoch (default 1)\n"
    "  --ema                  score the running means of the weights as well (the option\n"
    "                         ema_decay, or the teacher mean_teacher, which keep them)\n"
    "  --memory               print what training takes in memory as JSON, foreseen before the\n"
    "                         first step, and measured at the end\n"
    "  --json FILE            write metrics\n"
    "  --quiet                print the last line only\n"
    "  --layers N --hidden N --heads N --dropout X    sizes (2, 128, 4, 0.1)\n"
    "  --vocab N --max-length N    vocabulary and longest sentence in tokens (8000, 64)\n"
    "  --options JSON         options of the optimizer, see docs/options.md\n"
    "  --sync-every N         on several ranks (-DJOINT_TRAIN_MPI, docs/ranks.md): each steps by\n"
    "                         itself, and all meet every N steps (default 0: gradients are\n"
    "                         summed); --batch is of all ranks together\n"
    "  --outer-lr X --outer-momentum X    of a meeting (0.7, 0.9)\n"
    "  --runtime PATH         ONNX Runtime's library (default: found)\n"
    "  -h, --help             this text\n"
    "  --version              version of the library\n"
    "An interrupt (INT, TERM or HUP) ends training after a step, with a checkpoint if\n"
    "--checkpoint names a folder, and the exit code 130, 143 or 129.\n";

static inline unsigned long long parse_count(const char *flag, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > SIZE_MAX / 2)
        die("%s takes a whole number, not '%s'", flag, text);
    return n;
}

static inline double parse_number(const char *flag, const char *text)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end != '\0')
        die("%s takes a number, not '%s'", flag, text);
    return x;
}

static inline void parse_models(struct settings *s, const char *list)
{
    for (size_t i = 0; i < s->n_models; i++)
        free(s->models[i]);
    s->n_models = 0;
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        if (s->n_models == MAX_MODELS)
            die("--models takes at most %d", MAX_MODELS);
        char *name = copy_text(list, n);
        uint32_t architecture = mmopt_architecture_from_name(name);
        if (architecture == 0)
            die("--models: '%s' is none of bert, gpt2, roberta, distilbert", name);
        for (size_t i = 0; i < s->n_models; i++)
            if (strcmp(s->models[i], name) == 0)
                die("--models: %s is named twice", name);
        s->architectures[s->n_models] = architecture;
        s->models[s->n_models++] = name;
        list += n + (list[n] == ',');
    }
    if (s->n_models == 0)
        die("--models is empty");
}

static inline void parse_pretrained(struct settings *s, const char *text)
{
    const char *directory = strchr(text, '=');
    if (directory == NULL)
        die("--pretrained takes NAME=DIR, not '%s'", text);
    for (size_t i = 0; i < s->n_models; i++) {
        size_t n = strlen(s->models[i]);
        if (n != (size_t)(directory - text) || strncmp(text, s->models[i], n) != 0)
            continue;
        free(s->pretrained[i]);
        s->pretrained[i] = copy_text(directory + 1, strlen(directory + 1));
        return;
    }
    die("--pretrained %s: --models, which comes first, names no such model", text);
}

static inline void parse_mode(struct settings *s, const char *mode)
{
    s->mode = mode;
    if (strcmp(mode, "joint") == 0)
        s->preset = MMOPT_PRESET_DEFAULT;
    else if (strcmp(mode, "paper") == 0)
        s->preset = MMOPT_PRESET_PAPER;
    else if (strcmp(mode, "independent") == 0)
        s->preset = MMOPT_PRESET_INDEPENDENT;
    else
        die("--mode is one of joint, paper, independent, not '%s'", mode);
}

static inline void parse_task(struct settings *s, const char *task)
{
    s->task_name = task;
    if (strcmp(task, "classification") == 0)
        s->task = MMOPT_TASK_SEQUENCE_CLASSIFICATION;
    else if (strcmp(task, "entities") == 0)
        s->task = MMOPT_TASK_TOKEN_CLASSIFICATION;
    else if (strcmp(task, "questions") == 0)
        s->task = MMOPT_TASK_QUESTION_ANSWERING;
    else if (strcmp(task, "language") == 0)
        s->task = MMOPT_TASK_CAUSAL_LM; /* or, for models that read both ways, masked words */
    else
        die("--task is one of classification, entities, questions, language, not '%s'", task);
}

/* Where a flag's value goes, by its type. */
static inline int set_value(struct settings *s, const char *flag, const char *value)
{
    const struct { const char *flag; const char **place; } texts[] = {
        {"--data", &s->data}, {"--eval", &s->eval}, {"--out", &s->out},
        {"--checkpoint", &s->checkpoint}, {"--json", &s->json}, {"--runtime", &s->runtime},
        {"--options", &s->options}, {"--test", &s->test}, {"--tokenizer", &s->tokenizer},
        {"--tokenizer-data", &s->tokenizer_data}, {"--unlabelled", &s->unlabelled},
        {"--teachers", &s->teachers},
    };
    const struct { const char *flag; size_t *place; } sizes[] = {
        {"--batch", &s->batch}, {"--threads", &s->threads}, {"--layers", &s->layers},
        {"--hidden", &s->hidden}, {"--heads", &s->heads}, {"--vocab", &s->vocab},
        {"--max-length", &s->max_length},
    };
    const struct { const char *flag; unsigned long long *place; } counts[] = {
        {"--epochs", &s->epochs}, {"--steps", &s->steps},
        {"--checkpoint-every", &s->checkpoint_every}, {"--evaluations", &s->evaluations},
        {"--sync-every", &s->sync_every},
    };
    const struct { const char *flag; double *place; } numbers[] = {
        {"--lr", &s->learning_rate}, {"--dropout", &s->dropout},
        {"--unlabelled-ratio", &s->unlabelled_ratio}, {"--outer-lr", &s->outer_lr},
        {"--outer-momentum", &s->outer_momentum},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(flag, texts[i].flag) == 0)
            return *texts[i].place = value, 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(flag, sizes[i].flag) == 0)
            return *sizes[i].place = (size_t)parse_count(flag, value), 1;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (strcmp(flag, counts[i].flag) == 0)
            return *counts[i].place = parse_count(flag, value), 1;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(flag, numbers[i].flag) == 0)
            return *numbers[i].place = parse_number(flag, value), 1;
    if (strcmp(flag, "--seed") == 0)
        return s->seed = parse_count(flag, value), 1;
    if (strcmp(flag, "--models") == 0)
        return parse_models(s, value), 1;
    if (strcmp(flag, "--task") == 0)
        return parse_task(s, value), 1;
    if (strcmp(flag, "--mode") == 0)
        return parse_mode(s, value), 1;
    if (strcmp(flag, "--pretrained") == 0)
        return parse_pretrained(s, value), 1;
    return 0;
}

static inline struct settings parse_settings(int argc, char **argv)
{
    struct settings s;

    memset(&s, 0, sizeof s);
    parse_models(&s, "bert,gpt2,roberta");
    parse_mode(&s, "joint");
    parse_task(&s, "classification");
    s.epochs = 4;
    s.evaluations = 1;
    s.batch = 32;
    s.learning_rate = 5e-4;
    s.seed = 1;
    s.layers = 2;
    s.hidden = 128;
    s.heads = 4;
    s.dropout = 0.1;
    s.outer_lr = 0.7;
    s.outer_momentum = 0.9;
    s.vocab = 8000;
    s.max_length = 64;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            exit(0);
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("joint_train with mmopt %s\n", mmopt_version());
            exit(0);
        } else if (strcmp(argv[i], "--resume") == 0) {
            s.resume = 1;
        } else if (strcmp(argv[i], "--memory") == 0) {
            s.memory = 1;
        } else if (strcmp(argv[i], "--ema") == 0) {
            s.ema = 1;
        } else if (strcmp(argv[i], "--quiet") == 0) {
            s.quiet = 1;
        } else if (i + 1 == argc || !set_value(&s, argv[i], argv[i + 1])) {
            die("%s: unknown, or its value is missing; --help lists the flags", argv[i]);
        } else {
            i++;
        }
    }
    if (s.data == NULL)
        die("--data is missing; --help lists the flags");
    if (s.evaluations == 0)
        die("--evaluations takes a number from 1");
    if (s.unlabelled_ratio != 0 && s.unlabelled == NULL)
        die("--unlabelled-ratio needs --unlabelled");
    if (s.resume && s.checkpoint == NULL)
        die("--resume needs --checkpoint");
    return s;
}

static inline void free_settings(struct settings *s)
{
    for (size_t i = 0; i < s->n_models; i++) {
        free(s->models[i]);
        free(s->pretrained[i]);
    }
}

#endif
