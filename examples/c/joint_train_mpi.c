/* Two models trained together on several ranks of MPI:
 *
 *     mpicc -Iinclude examples/c/joint_train_mpi.c -Ltarget/release -lmmopt -o joint_train_mpi
 *     mpirun -n 2 joint_train_mpi [DATA [CHECKPOINTS [placed | groups | sharded]]]
 *
 * DATA has lines of text TAB label; without it, or for -, sentences are generated. CHECKPOINTS is a
 * folder that all ranks can read: what is there is resumed, with any number of ranks; - for none. Each
 * rank is a replica of both models; placed: BERT is on rank 0 and GPT-2 on rank 1; groups: so in each
 * group of two ranks, and the groups are replicas; sharded: replicas that share the optimizer's state. */
#include "example.h"

#include <mmopt_mpi.h>

enum { EPOCHS = 2, BATCH = 32, SAVE_EVERY = 50 };

/* The models, which each rank makes alike. */
static mmopt_trainer *make_trainer(const mmopt_corpus *corpus, mmopt_tokenizer *tokenizers[2],
                                   int is_placed)
{
    static const uint32_t architectures[2] = {MMOPT_ARCHITECTURE_BERT, MMOPT_ARCHITECTURE_GPT2};
    static const char *const names[2] = {"bert", "gpt2"};
    mmopt_model *models[2];
    mmopt_trainer *trainer;
    mmopt_trainer_options options;

    for (int i = 0; i < 2; i++) {
        mmopt_tokenizer_options words;
        mmopt_model_config sizes;
        mmopt_tokenizer_options_init(&words);
        words.architecture = architectures[i];
        words.vocab_size = 2000;
        words.model_max_length = 64;
        check(mmopt_tokenizer_train(corpus, &words, &tokenizers[i]));
        mmopt_model_config_init(&sizes);
        sizes.architecture = architectures[i];
        sizes.n_layers = 2, sizes.hidden_size = 64, sizes.n_heads = 4;
        check(mmopt_model_for_corpus(names[i], &sizes, tokenizers[i], corpus, &models[i]));
    }
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 5e-4;
    options.n_threads = 1; /* of this rank; 0 where each has a machine of its own */
    if (is_placed)
        options.options_json = "{\"placement\": {\"bert\": 0, \"gpt2\": 1}}";
    check(mmopt_trainer_create(&options, (const mmopt_model *const *)models, 2, &trainer));
    mmopt_model_free(models[0]);
    mmopt_model_free(models[1]);
    return trainer;
}

/* Goes on where a checkpoint was written, if there is one; its text is the loader's place. */
static void resume(mmopt_trainer *trainer, mmopt_loader *loader, const char *directory)
{
    char *place = NULL;
    mmopt_error *error = mmopt_trainer_resume(trainer, directory, &place);

    if (mmopt_error_code(error) == MMOPT_CODE_NOT_FOUND) {
        mmopt_error_free(error);
        return;
    }
    check(error);
    check(mmopt_loader_restore(loader, place));
    mmopt_string_free(place);
}

/* All ranks make this call; rank 0 writes. */
static void save(mmopt_trainer *trainer, mmopt_loader *loader, const char *directory)
{
    char *place;

    check(mmopt_loader_state(loader, &place));
    check(mmopt_trainer_save_checkpoint(trainer, directory, place));
    mmopt_string_free(place);
}

static void train(mmopt_trainer *trainer, mmopt_loader *loader, int is_first, const char *directory)
{
    mmopt_batch *batch;
    mmopt_train_result results[2];
    mmopt_step_report report;

    while (mmopt_loader_epoch(loader) < EPOCHS) {
        check(mmopt_loader_next(loader, &batch));
        if (batch == NULL)
            continue;
        check(mmopt_trainer_forward_backward_batch(trainer, batch, results));
        check(mmopt_trainer_step(trainer, &report));
        mmopt_batch_free(batch);
        /* Losses are those of all ranks together. */
        if (is_first && report.step % 20 == 0)
            printf("step %llu: losses %.4f and %.4f\n", (unsigned long long)report.step,
                   results[0].loss, results[1].loss);
        if (directory != NULL && report.step % SAVE_EVERY == 0)
            save(trainer, loader, directory);
    }
}

int main(int argc, char **argv)
{
    mmopt_corpus *corpus;
    mmopt_tokenizer *tokenizers[2];
    mmopt_communicator *communicator, *replicas = NULL;
    MPI_Comm group = MPI_COMM_WORLD, column;
    mmopt_loader_options walk;
    mmopt_loader *loader;
    mmopt_trainer *trainer;
    mmopt_traffic traffic;
    mmopt_rank_options ranks;
    const char *directory = argc > 2 && strcmp(argv[2], "-") != 0 ? argv[2] : NULL;
    const int has_groups = argc > 3 && strcmp(argv[3], "groups") == 0;
    const int is_placed = has_groups || (argc > 3 && strcmp(argv[3], "placed") == 0);
    int rank, n_ranks;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    if (has_groups) {
        MPI_Comm_split(MPI_COMM_WORLD, rank / 2, rank, &group);
        MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &column);
        check(mmopt_mpi_communicator_create(column, 120, &replicas));
    }
    check(mmopt_mpi_communicator_create(group, 120, &communicator));
    if (argc > 1 && strcmp(argv[1], "-") != 0)
        check(mmopt_corpus_read_classification(argv[1], NULL, &corpus));
    else
        check(mmopt_corpus_synthetic(2000, 1, 0.03, &corpus));
    trainer = make_trainer(corpus, tokenizers, is_placed);
    mmopt_loader_options_init(&walk);
    walk.batch_size = BATCH; /* of all ranks together */
    /* Replicas have a part of each batch, models on different ranks all of their group's. */
    if (has_groups) {
        walk.rank = mmopt_communicator_rank(replicas);
        walk.n_ranks = mmopt_communicator_size(replicas);
    } else if (!is_placed) {
        walk.rank = mmopt_communicator_rank(communicator);
        walk.n_ranks = mmopt_communicator_size(communicator);
    }
    check(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)tokenizers, 2, &walk, &loader));
    mmopt_rank_options_init(&ranks);
    ranks.replicas = replicas;
    ranks.shard_state = argc > 3 && strcmp(argv[3], "sharded") == 0;
    check(mmopt_trainer_set_communicator(trainer, communicator, &ranks));
    if (directory != NULL)
        resume(trainer, loader, directory);
    train(trainer, loader, rank == 0, directory);
    /* From here on rank 0 could evaluate and save both models. */
    check(mmopt_trainer_gather_models(trainer));
    check(mmopt_communicator_traffic(communicator, &traffic));
    if (rank == 0)
        printf("%d ranks, %llu steps, %.1f MB sent by each in its group\n", n_ranks,
               (unsigned long long)mmopt_trainer_n_steps(trainer), 1e-6 * (double)traffic.wire_bytes);
    mmopt_trainer_free(trainer);
    mmopt_communicator_free(communicator);
    mmopt_communicator_free(replicas);
    mmopt_loader_free(loader);
    mmopt_corpus_free(corpus);
    mmopt_tokenizer_free(tokenizers[0]);
    mmopt_tokenizer_free(tokenizers[1]);
    MPI_Finalize();
    return 0;
}
