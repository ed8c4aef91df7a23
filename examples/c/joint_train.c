/* Trains several transformers together on one of four tasks (classes of sentences, named entities,
 * answers to questions, language modelling), scores them on held-out examples, and writes each
 * trained model with its tokenizer. `joint_train --help` lists the flags. On several ranks of MPI:
 *
 *     mpicc -DJOINT_TRAIN_MPI -Iinclude examples/c/joint_train.c -Ltarget/release -lmmopt -o joint_train
 *     mpirun -n 2 joint_train --data FILE ...
 */
#include "example.h"
#include "joint_options.h"
#include "joint_ranks.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Sums over the batches of an epoch, for one model. */
struct sums {
    double loss;
    unsigned long long n_correct, n_labels, n_batches;
};

struct job {
    struct settings settings;
    struct ranks ranks;
    mmopt_corpus *train, *eval, *test; /* test may be NULL */
    mmopt_tokenizer *tokenizers[MAX_ALL]; /* of the models, and then of the teachers */
    size_t n_all;
    mmopt_trainer *trainer;
    mmopt_loader *train_loader, *eval_loader, *test_loader;
    struct sums sums[MAX_MODELS];
    double score[MAX_MODELS]; /* held-out, of the last evaluation */
    double train_seconds;     /* passes and steps, without evaluations */
    double processor_seconds; /* the same on all cores together */
    char *records;               /* one JSON object a line for each epoch */
    unsigned long long step, last_step, n_samples;
    double started, shown;
    int memory_told;
    int line_is_open; /* progress on a terminal that the next text must not follow */
};

static volatile sig_atomic_t interrupted = 0; /* the signal that asks to stop */

static void on_interrupt(int signal_number)
{
    interrupted = signal_number;
}

/* The first signal ends training after the step that runs; a second one ends the program. */
static void stop_on(int signal_number)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESETHAND;
    sigaction(signal_number, &action, NULL);
}

static mmopt_corpus *read_corpus(const struct job *job, const char *path,
                                 const mmopt_corpus *labels_of)
{
    mmopt_corpus *corpus;
    mmopt_corpus_options options;

    mmopt_corpus_options_init(&options);
    options.labels_of = labels_of;
    if (job->settings.task == MMOPT_TASK_TOKEN_CLASSIFICATION)
        check(mmopt_corpus_read_token_classification(path, labels_of, &corpus));
    else if (job->settings.task == MMOPT_TASK_QUESTION_ANSWERING)
        check(mmopt_corpus_read_question_answering(path, &corpus));
    else if (job->settings.task == MMOPT_TASK_CAUSAL_LM)
        check(mmopt_corpus_read_plain_text(path, MMOPT_SAMPLE_BY_PARAGRAPH, &corpus));
    else
        check(mmopt_corpus_read_classification(path, &options, &corpus));
    return corpus;
}

/* Joins examples whose labels are not used to those to train on. */
static void add_unlabelled(struct job *job)
{
    mmopt_corpus *read = read_corpus(job, job->settings.unlabelled, job->train), *parts[2];

    parts[0] = job->train;
    check(mmopt_corpus_without_labels(read, &parts[1]));
    check(mmopt_corpus_concatenate((const mmopt_corpus *const *)parts, 2, &job->train));
    mmopt_corpus_free(parts[0]);
    mmopt_corpus_free(parts[1]);
    mmopt_corpus_free(read);
}

/* Generated examples of the task. */
static mmopt_corpus *generate(const struct settings *s)
{
    mmopt_corpus *corpus, *plain;

    if (s->task == MMOPT_TASK_TOKEN_CLASSIFICATION)
        check(mmopt_corpus_synthetic_entities(3000, s->seed, &corpus));
    else if (s->task == MMOPT_TASK_QUESTION_ANSWERING)
        check(mmopt_corpus_synthetic_questions(3000, s->seed, &corpus));
    else
        check(mmopt_corpus_synthetic(6000, s->seed, 0.03, &corpus));
    if (s->task != MMOPT_TASK_CAUSAL_LM)
        return corpus;
    check(mmopt_corpus_plain_text(corpus, &plain));
    mmopt_corpus_free(corpus);
    return plain;
}

/* The examples; without --eval a tenth is held out. The word `synthetic` generates them. */
static void read_data(struct job *job)
{
    const struct settings *s = &job->settings;

    if (strcmp(s->data, "synthetic") != 0 && s->eval != NULL) {
        job->train = read_corpus(job, s->data, NULL);
        job->eval = read_corpus(job, s->eval, job->train);
    } else {
        mmopt_corpus *all;
        if (strcmp(s->data, "synthetic") == 0)
            all = generate(s);
        else
            all = read_corpus(job, s->data, NULL);
        check(mmopt_corpus_split(all, 0.1, s->seed, &job->train, &job->eval));
        mmopt_corpus_free(all);
    }
    if (s->test != NULL)
        job->test = read_corpus(job, s->test, job->train);
    if (s->unlabelled != NULL)
        add_unlabelled(job);
}

static void make_tokenizers(struct job *job)
{
    const struct settings *s = &job->settings;
    mmopt_corpus *texts = NULL;

    if (s->tokenizer_data != NULL)
        texts = read_corpus(job, s->tokenizer_data, job->train);
    for (size_t i = 0; i < s->n_models; i++) {
        mmopt_tokenizer_options options;
        const char *folder = s->tokenizer != NULL ? s->tokenizer : s->pretrained[i];
        if (folder != NULL) {
            check(mmopt_tokenizer_load(folder, &job->tokenizers[i]));
            continue;
        }
        mmopt_tokenizer_options_init(&options);
        options.architecture = s->architectures[i];
        options.vocab_size = s->vocab;
        options.model_max_length = s->max_length;
        check(mmopt_tokenizer_train(texts == NULL ? job->train : texts, &options,
                                    &job->tokenizers[i]));
    }
    for (size_t i = s->n_models; i < job->n_all; i++) {
        char *folder = join_path(s->teachers, s->models[i - s->n_models]);
        check(mmopt_tokenizer_load(folder, &job->tokenizers[i]));
        free(folder);
    }
    mmopt_corpus_free(texts);
}

static mmopt_loader *make_loader(const struct job *job, const mmopt_corpus *corpus, int training)
{
    mmopt_loader *loader;
    mmopt_loader_options options;

    mmopt_loader_options_init(&options);
    options.batch_size = job->settings.batch;
    options.max_length = job->settings.max_length;
    options.seed = job->settings.seed;
    options.pad_to_multiple_of = 16;
    options.shuffle = training ? 1 : 0;
    options.drop_last = training ? 1 : 0;
    /* Long contexts and sentences are scored as a whole. */
    options.all_windows = !training && (job->settings.task == MMOPT_TASK_QUESTION_ANSWERING ||
                                        job->settings.task == MMOPT_TASK_TOKEN_CLASSIFICATION);
    /* Texts are cut into rows by each model's tokenizer. */
    options.aligned = job->settings.task != MMOPT_TASK_CAUSAL_LM && !options.all_windows;
    options.unlabelled_ratio = training ? job->settings.unlabelled_ratio : 0;
    if (training) {
        options.rank = job->ranks.rank;
        options.n_ranks = job->ranks.n;
    }
    check(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)job->tokenizers,
                              job->n_all, &options, &loader));
    return loader;
}

/* Says what --max-length leaves out. */
static void tell_losses(const struct job *job, const mmopt_loader *loader, const char *what)
{
    for (size_t i = 0; i < job->settings.n_models; i++) {
        mmopt_encoding_stats stats;
        check(mmopt_loader_encoding_stats(loader, i, &stats));
        if (stats.n_unseen_words + stats.n_unplaced_answers > 0)
            printf("%s, %s: %llu words and %llu answers are beyond --max-length\n", what,
                   job->settings.models[i], (unsigned long long)stats.n_unseen_words,
                   (unsigned long long)stats.n_unplaced_answers);
    }
}

static mmopt_model *make_model(const struct job *job, size_t i)
{
    const struct settings *s = &job->settings;
    mmopt_model_config sizes;
    mmopt_model *model;

    if (s->pretrained[i] != NULL) {
        check(mmopt_model_pretrained_for_corpus(s->models[i], s->pretrained[i],
                                                job->tokenizers[i], job->train, &model));
        check(mmopt_model_set_dropout(model, s->dropout));
        check(mmopt_model_set_seed(model, s->seed + i));
        return model;
    }
    mmopt_model_config_init(&sizes);
    sizes.architecture = s->architectures[i];
    sizes.n_layers = s->layers;
    sizes.hidden_size = s->hidden;
    sizes.n_heads = s->heads;
    sizes.dropout = s->dropout;
    check(mmopt_model_for_corpus(s->models[i], &sizes, job->tokenizers[i], job->train, &model));
    check(mmopt_model_set_seed(model, s->seed + i));
    return model;
}

/* A trained model whose parameters stay. */
static mmopt_model *make_teacher(const struct job *job, size_t i)
{
    const struct settings *s = &job->settings;
    char name[64], *folder = join_path(s->teachers, s->models[i]);
    mmopt_model *model;

    snprintf(name, sizeof name, "%s_teacher", s->models[i]);
    check(mmopt_model_pretrained_for_corpus(name, folder, job->tokenizers[s->n_models + i],
                                            job->train, &model));
    check(mmopt_model_freeze(model, "*"));
    free(folder);
    return model;
}

static void make_trainer(struct job *job)
{
    const struct settings *s = &job->settings;
    mmopt_model *models[MAX_ALL];
    mmopt_trainer_options options;

    mmopt_trainer_options_init(&options, s->preset);
    options.learning_rate = s->learning_rate;
    options.n_threads = s->threads;
    options.runtime_path = s->runtime;
    options.options_json = s->options;
    if (s->preset != MMOPT_PRESET_PAPER) {
        options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
        options.warmup_steps = job->last_step / 10;
        options.total_steps = job->last_step > 0 ? job->last_step : 1;
    }
    for (size_t i = 0; i < s->n_models; i++)
        models[i] = make_model(job, i);
    for (size_t i = s->n_models; i < job->n_all; i++)
        models[i] = make_teacher(job, i - s->n_models);
    check(mmopt_trainer_create(&options, (const mmopt_model *const *)models, job->n_all,
                               &job->trainer));
    for (size_t i = 0; i < job->n_all; i++)
        mmopt_model_free(models[i]);
    join_ranks(&job->ranks, s, job->trainer);
}

/* Adds to a text that malloc made. */
static void add_text(char **text, const char *format, ...)
{
    va_list values, again;
    size_t used = strlen(*text);

    va_start(values, format);
    va_copy(again, values);
    size_t n = (size_t)vsnprintf(NULL, 0, format, again) + 1;
    va_end(again);
    if ((*text = realloc(*text, used + n)) == NULL)
        die("out of memory");
    vsnprintf(*text + used, n, format, values);
    va_end(values);
}

/* What the checkpoint keeps for this program: the sums, the loader's place, and the records, a
 * line each. */
static void save_checkpoint(const struct job *job)
{
    char *loader;
    check(mmopt_loader_state(job->train_loader, &loader));
    char *text = copy_text("", 0);
    for (size_t i = 0; i < job->settings.n_models; i++) {
        const struct sums *sums = &job->sums[i];
        add_text(&text, "%.17g %llu %llu %llu\n", sums->loss, sums->n_correct, sums->n_labels,
                 sums->n_batches);
    }
    add_text(&text, "%s\n%s", loader, job->records);
    check(mmopt_trainer_save_checkpoint(job->trainer, job->settings.checkpoint, text));
    mmopt_string_free(loader);
    free(text);
}

static void load_checkpoint(struct job *job)
{
    char *text;
    check(mmopt_trainer_resume(job->trainer, job->settings.checkpoint, &text));
    char *line = text;
    for (size_t i = 0; i < job->settings.n_models; i++) {
        struct sums *sums = &job->sums[i];
        char *end = strchr(line, '\n');
        if (end == NULL || sscanf(line, "%lf %llu %llu %llu", &sums->loss, &sums->n_correct,
                                  &sums->n_labels, &sums->n_batches) != 4)
            die("the checkpoint in %s is of another program", job->settings.checkpoint);
        line = end + 1;
    }
    char *end = strchr(line, '\n');
    if (end == NULL)
        die("the checkpoint in %s is of another program", job->settings.checkpoint);
    *end = '\0';
    check(mmopt_loader_restore(job->train_loader, line));
    free(job->records);
    job->records = copy_text(end + 1, strlen(end + 1));
    job->step = mmopt_trainer_n_steps(job->trainer);
    mmopt_string_free(text);
}

static double ratio(unsigned long long a, unsigned long long b)
{
    return b == 0 ? 0.0 : (double)a / (double)b;
}

/* The columns of the terminal; 80 where they are not known. */
static size_t terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

/* Ends a line that would have been overwritten. */
static void end_line(struct job *job)
{
    if (job->line_is_open)
        putchar('\n');
    job->line_is_open = 0;
}

/* Appends a part to a line of less than n characters if all of it fits. */
static void append(char *line, size_t n, const char *format, ...)
{
    size_t used = strlen(line);
    va_list arguments;

    va_start(arguments, format);
    if (vsnprintf(line + used, n - used, format, arguments) >= (int)(n - used))
        line[used] = '\0';
    va_end(arguments);
}

/* Where training stands, in less than n characters: step, losses and accuracies, rate, speed, time
 * left. What does not fit is left out, the last parts first. */
static void describe_progress(const struct job *job, unsigned long long epoch, char *line, size_t n)
{
    const struct settings *s = &job->settings;
    double elapsed = now() - job->started;
    double speed = elapsed > 0 ? (double)job->n_samples / elapsed : 0;
    double n_left = (double)(job->last_step - job->step) * (double)s->batch;
    int left = speed > 0 ? (int)(n_left / speed) : 0;
    mmopt_rates rates;

    check(mmopt_trainer_rates(job->trainer, 0, &rates));
    line[0] = '\0';
    append(line, n, "epoch %llu/%llu", epoch + 1, s->epochs);
    append(line, n, " step %llu/%llu", job->step, job->last_step);
    append(line, n, " %d:%02d left", left / 60, left % 60);
    for (size_t i = 0; i < s->n_models; i++) {
        const struct sums *sums = &job->sums[i];
        double loss = sums->n_batches == 0 ? 0.0 : sums->loss / (double)sums->n_batches;
        append(line, n, " | %s %.3f %.1f%%", s->models[i], loss,
               100 * ratio(sums->n_correct, sums->n_labels));
    }
    append(line, n, " | lr %.1e", rates.effective);
    append(line, n, " | %.0f/s", speed);
}

/* On a terminal one line that is overwritten, elsewhere a line every five seconds. */
static void show_progress(struct job *job, unsigned long long epoch)
{
    int terminal = isatty(STDOUT_FILENO);
    double time = now();
    char line[1024];
    size_t width = terminal ? terminal_width() : sizeof line;

    if (job->settings.quiet)
        return;
    if (job->step != job->last_step && !interrupted && time - job->shown < (terminal ? 0.2 : 5.0))
        return;
    job->shown = time;
    describe_progress(job, epoch, line, width < sizeof line ? width : sizeof line);
    printf(terminal ? "\r%s\033[K" : "%s\n", line);
    job->line_is_open = terminal;
    fflush(stdout);
}

static mmopt_scores score(struct job *job, size_t model, mmopt_loader *loader)
{
    mmopt_scores scores;
    check(mmopt_trainer_evaluate_loader(job->trainer, model, loader, NULL, &scores, NULL));
    return scores;
}

/* Scores of each model on the held-out examples, and a record of them; with the test's at the end
 * of an epoch, which is 0 within one. */
static void evaluate(struct job *job, unsigned long long epoch)
{
    const struct settings *s = &job->settings;
    char **to = &job->records;
    double ema_score[MAX_MODELS], ema_test[MAX_MODELS];
    int has_test = epoch > 0 && job->test_loader != NULL;

    end_line(job);
    if (job->ranks.rank > 0) { /* rank 0 evaluates its replica, the others wait */
        if (epoch > 0)
            memset(job->sums, 0, sizeof job->sums);
        return;
    }
    check(mmopt_trainer_use_ema_weights(job->trainer, s->ema));
    for (size_t i = 0; i < s->n_models && s->ema; i++) {
        ema_score[i] = score(job, i, job->eval_loader).score;
        ema_test[i] = has_test ? score(job, i, job->test_loader).score : 0;
    }
    check(mmopt_trainer_use_ema_weights(job->trainer, 0));
    add_text(to, "{\"epoch\": %llu, \"step\": %llu, \"seconds\": %.3f, \"processor_seconds\": %.3f",
             epoch, job->step, job->train_seconds, job->processor_seconds);
    for (size_t i = 0; i < s->n_models; i++) {
        const struct sums *t = &job->sums[i];
        mmopt_scores eval = score(job, i, job->eval_loader);
        job->score[i] = eval.score;
        add_text(to, ", \"%s\": {", s->models[i]);
        if (epoch > 0)
            add_text(to, "\"train_loss\": %.6f, \"train_accuracy\": %.6f, ",
                     t->n_batches == 0 ? 0.0 : t->loss / (double)t->n_batches,
                     ratio(t->n_correct, t->n_labels));
        if (has_test)
            add_text(to, "\"test_score\": %.6f, ", score(job, i, job->test_loader).score);
        if (has_test && s->ema)
            add_text(to, "\"ema_test_score\": %.6f, ", ema_test[i]);
        if (s->ema)
            add_text(to, "\"ema_score\": %.6f, ", ema_score[i]);
        add_text(to, "\"loss\": %.6f, \"score\": %.6f}", eval.loss, eval.score);
        if (!s->quiet)
            printf("%s%s %.4f (loss %.4f)%s", i == 0 ? "held out: " : ", ", s->models[i],
                   eval.score, eval.loss, i + 1 == s->n_models ? "\n" : "");
    }
    add_text(to, "}\n");
    if (epoch > 0)
        memset(job->sums, 0, sizeof job->sums);
    fflush(stdout);
}

/* What training takes in memory with passes over this batch. */
static void tell_memory(struct job *job, const mmopt_batch *batch)
{
    char *report;

    check(mmopt_trainer_memory_report_batch(job->trainer, batch, &report));
    printf("%s\n", report);
    mmopt_string_free(report);
    job->memory_told = 1;
}

static void train_batch(struct job *job, const mmopt_batch *batch)
{
    mmopt_train_result results[MAX_ALL];
    mmopt_step_report report;
    double started = now(), processor_started = processor_time();

    check(mmopt_trainer_zero_grad(job->trainer));
    check(mmopt_trainer_forward_backward_batch(job->trainer, batch, results));
    check(mmopt_trainer_step(job->trainer, &report));
    job->train_seconds += now() - started;
    job->processor_seconds += processor_time() - processor_started;
    job->step = report.step;
    job->n_samples += mmopt_batch_n_rows(batch, 0);
    for (size_t i = 0; i < job->settings.n_models; i++) {
        job->sums[i].loss += results[i].loss;
        job->sums[i].n_correct += results[i].n_correct;
        job->sums[i].n_labels += results[i].n_labels;
        job->sums[i].n_batches++;
    }
}

static void train(struct job *job)
{
    const struct settings *s = &job->settings;
    unsigned long long every = s->checkpoint_every;
    unsigned long long n_batches = mmopt_loader_n_batches(job->train_loader);
    unsigned long long between = (n_batches + s->evaluations - 1) / s->evaluations;

    if (job->last_step == 0)
        evaluate(job, 0);
    while (mmopt_loader_epoch(job->train_loader) < s->epochs && !interrupted) {
        unsigned long long epoch = mmopt_loader_epoch(job->train_loader);
        mmopt_batch *batch = NULL;
        if (job->step < job->last_step)
            check(mmopt_loader_next(job->train_loader, &batch));
        if (batch == NULL) {
            evaluate(job, epoch + 1);
            if (job->step >= job->last_step)
                break;
            continue;
        }
        if (s->memory && !job->memory_told)
            tell_memory(job, batch);
        train_batch(job, batch);
        if (s->memory && job->step == job->last_step)
            tell_memory(job, batch);
        mmopt_batch_free(batch);
        show_progress(job, epoch);
        unsigned long long in_epoch = job->step % n_batches;
        if (in_epoch != 0 && in_epoch % between == 0 && job->step < job->last_step)
            evaluate(job, 0);
        if (s->checkpoint != NULL && every > 0 && job->step % every == 0)
            save_checkpoint(job);
    }
    if (s->checkpoint != NULL)
        save_checkpoint(job);
    end_line(job);
    if (interrupted) {
        fprintf(stderr, "interrupted at step %llu%s\n", job->step,
                s->checkpoint == NULL ? "" : "; --resume goes on from here");
        exit(128 + interrupted); /* as a shell tells it */
    }
}

static void save_models(const struct job *job)
{
    const struct settings *s = &job->settings;

    for (size_t i = 0; i < s->n_models; i++) {
        char *folder = join_path(s->out, s->models[i]);
        make_folder(folder);
        check(mmopt_trainer_save_model(job->trainer, i, folder));
        check(mmopt_tokenizer_save(job->tokenizers[i], folder));
        free(folder);
    }
}

static void write_json(const struct job *job)
{
    const struct settings *s = &job->settings;
    FILE *file = fopen(s->json, "w");

    if (file == NULL)
        die("%s: %s", s->json, strerror(errno));
    fprintf(file, "{\"mode\": \"%s\", \"seed\": %llu, \"majority\": %.6f, \"seconds\": %.3f,\n",
            s->mode, (unsigned long long)s->seed, mmopt_corpus_majority_fraction(job->eval),
            now() - job->started);
    fprintf(file, " \"ranks\": %zu, \"bytes_sent\": %llu,\n", job->ranks.n,
            bytes_sent(&job->ranks));
    fprintf(file, " \"samples\": %llu, \"runtime\": \"%s\", \"version\": \"%s\",\n",
            job->n_samples, mmopt_runtime_version(), mmopt_version());
    fputs(" \"score\": {", file);
    for (size_t i = 0; i < s->n_models; i++)
        fprintf(file, "%s\"%s\": %.6f", i == 0 ? "" : ", ", s->models[i], job->score[i]);
    fputs("},\n \"epochs\": [", file);
    for (const char *at = job->records; *at != '\0'; at++) {
        if (*at == '\n')
            fputs(at[1] == '\0' ? "\n" : ",\n", file);
        else
            fputc(*at, file);
    }
    fputs("]}\n", file);
    if (fclose(file) != 0)
        die("%s: %s", s->json, strerror(errno));
}

/* What was done: the task, each model's score, and what it is a score of. */
static void print_scores(const struct job *job)
{
    const struct settings *s = &job->settings;
    const char *what = s->task == MMOPT_TASK_TOKEN_CLASSIFICATION ? "F1 of entities"
                       : s->task == MMOPT_TASK_QUESTION_ANSWERING ? "F1 of answers"
                       : s->task == MMOPT_TASK_CAUSAL_LM          ? "accuracy of tokens"
                                                                  : "accuracy";

    printf("%s:", s->task_name);
    for (size_t i = 0; i < s->n_models; i++)
        printf(" %s %.3f", s->models[i], job->score[i]);
    if (s->task == MMOPT_TASK_SEQUENCE_CLASSIFICATION)
        printf(" majority %.3f", mmopt_corpus_majority_fraction(job->eval));
    printf(" (%s on %zu held-out examples after %llu steps, mode %s)\n", what,
           mmopt_corpus_n_examples(job->eval), job->step, s->mode);
}

static void release(struct job *job)
{
    for (size_t i = 0; i < job->n_all; i++)
        mmopt_tokenizer_free(job->tokenizers[i]);
    mmopt_trainer_free(job->trainer);
    mmopt_loader_free(job->train_loader);
    mmopt_loader_free(job->eval_loader);
    mmopt_loader_free(job->test_loader);
    mmopt_corpus_free(job->train);
    mmopt_corpus_free(job->eval);
    mmopt_corpus_free(job->test);
    free(job->records);
    free_settings(&job->settings);
    end_ranks(&job->ranks);
}

int main(int argc, char **argv)
{
    struct job job;

    memset(&job, 0, sizeof job);
    job.ranks = start_ranks(&argc, &argv);
    job.settings = parse_settings(argc, argv);
    if (job.ranks.rank > 0)
        job.settings.quiet = 1;
    if (job.settings.sync_every > 0 && job.ranks.communicator == NULL)
        die("--sync-every is for ranks: compile with -DJOINT_TRAIN_MPI, see docs/ranks.md");
    const struct settings *s = &job.settings;
    job.n_all = s->teachers == NULL ? s->n_models : 2 * s->n_models;
    stop_on(SIGINT);
    stop_on(SIGTERM);
    stop_on(SIGHUP);
    check(mmopt_runtime_load(s->runtime));
    read_data(&job);
    make_tokenizers(&job);
    job.train_loader = make_loader(&job, job.train, 1);
    job.eval_loader = make_loader(&job, job.eval, 0);
    if (job.test != NULL)
        job.test_loader = make_loader(&job, job.test, 0);
    job.last_step = s->epochs * mmopt_loader_n_batches(job.train_loader);
    if (s->steps > 0 && s->steps < job.last_step)
        job.last_step = s->steps;
    job.records = copy_text("", 0);
    make_trainer(&job);
    if (s->resume)
        load_checkpoint(&job);
    if (!s->quiet)
        printf("%zu examples to train on, %zu held out; ONNX Runtime %s\n",
               mmopt_corpus_n_examples(job.train), mmopt_corpus_n_examples(job.eval),
               mmopt_runtime_version());
    if (!s->quiet) {
        tell_losses(&job, job.train_loader, "to train on");
        tell_losses(&job, job.eval_loader, "held out");
    }
    job.started = now();
    job.shown = job.started;
    train(&job);
    if (job.ranks.rank == 0) {
        if (s->out != NULL)
            save_models(&job);
        if (s->json != NULL)
            write_json(&job);
        print_scores(&job);
    }
    release(&job);
    return 0;
}
