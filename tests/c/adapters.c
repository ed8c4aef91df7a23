/* Low-rank adapters: what options are refused, an equal start, training, files, errors of reading. */
#include "tiny.h"

static const char *const query[] = {"query"};

static mmopt_adapter_options small(void)
{
    mmopt_adapter_options options;
    mmopt_adapter_options_init(&options);
    options.target_modules = query;
    options.n_target_modules = 1;
    options.rank = 2;
    return options;
}

static mmopt_trainer *trainer_of(const mmopt_model *model)
{
    mmopt_trainer *trainer = NULL;
    OK(mmopt_trainer_create(NULL, &model, 1, &trainer));
    return trainer;
}

static double loss_of(mmopt_trainer *trainer, const mmopt_batch *batch)
{
    const mmopt_tensor *tensors = NULL;
    size_t n = 0;
    mmopt_evaluation *evaluation = NULL;
    double loss;
    OK(mmopt_batch_tensors(batch, 0, &tensors, &n));
    OK(mmopt_trainer_evaluate(trainer, 0, tensors, n, &evaluation));
    loss = mmopt_evaluation_loss(evaluation);
    mmopt_evaluation_free(evaluation);
    return loss;
}

static void test_options(void)
{
    static const char *const bad[] = {"query", "\xff"};
    mmopt_adapter_options o;
    mmopt_model *model = make_model(0);

    mmopt_adapter_options_init(NULL);
    mmopt_adapter_options_init(&o);
    CHECK(o.struct_size == sizeof o && o.rank == 8 && o.alpha == 8 && o.dropout == 0);
    CHECK(o.target_modules == NULL && o.modules_to_save == NULL);
    REFUSES_NULL(mmopt_model_add_adapters(NULL, &o));
    REFUSES_NULL(mmopt_model_add_adapters(model, NULL));
    FAILS(mmopt_model_add_adapters(model, &o), MMOPT_CODE_INVALID_ARGUMENT, "target_modules");
#define REFUSES(field, value, part)                                                          \
    do {                                                                                     \
        o = small();                                                                         \
        o.field = (value);                                                                   \
        FAILS(mmopt_model_add_adapters(model, &o), MMOPT_CODE_INVALID_ARGUMENT, part);       \
    } while (0)
    REFUSES(struct_size, 3, "struct_size");
    REFUSES(rank, 0, "rank is 0");
    REFUSES(rank, 65537, "rank is 65537");
    REFUSES(alpha, 0, "alpha");
    REFUSES(dropout, 1, "dropout is 1");
    REFUSES(dropout, 0.99999999999, "dropout");
    REFUSES(target_modules, NULL, "target_modules is NULL");
    REFUSES(n_modules_to_save, 1, "modules_to_save is NULL");
    o = small();
    o.target_modules = bad, o.n_target_modules = 2;
    FAILS(mmopt_model_add_adapters(model, &o), MMOPT_CODE_INVALID_ARGUMENT, "target_modules[1]");
    REFUSES_NULL(mmopt_model_load_adapters(model, NULL));
    REFUSES_NULL(mmopt_model_load_adapters(NULL, "x"));
    FAILS(mmopt_model_load_adapters(model, "\xff"), MMOPT_CODE_INVALID_ARGUMENT, "UTF-8");
    mmopt_model_free(model);
}

/* What fails the trainer's creation. */
static void test_misfits(const char *folder)
{
    static const char *const wrong[] = {"c_attn"}, *const table[] = {"word_embeddings"};
    static const char *const tail[] = {"tail"};
    mmopt_adapter_options o = small();
    mmopt_model *model = make_model(0);
    mmopt_trainer *trainer = NULL;
    const mmopt_model *const models[] = {model};

    o.target_modules = wrong;
    OK(mmopt_model_add_adapters(model, &o));
    FAILS(mmopt_trainer_create(NULL, models, 1, &trainer), MMOPT_CODE_NOT_FOUND,
          "'c_attn' matches no matrix of a linear layer; there are 'classifier' (1)");
    o.target_modules = table;
    OK(mmopt_model_add_adapters(model, &o));
    FAILS(mmopt_trainer_create(NULL, models, 1, &trainer), MMOPT_CODE_UNSUPPORTED, "word_embeddings");
    o = small();
    o.modules_to_save = tail, o.n_modules_to_save = 1;
    OK(mmopt_model_add_adapters(model, &o));
    FAILS(mmopt_trainer_create(NULL, models, 1, &trainer), MMOPT_CODE_NOT_FOUND, "'tail'");
    OK(mmopt_model_load_adapters(model, in_folder(folder, "none")));
    FAILS(mmopt_trainer_create(NULL, models, 1, &trainer), MMOPT_CODE_NOT_FOUND, "adapter_config");
    CHECK(trainer == NULL);
    mmopt_model_free(model);
}

static void train_and_save(const char *folder)
{
    mmopt_model *plain = make_model(0), *adapted = make_model(0), *read = NULL;
    mmopt_trainer *before = trainer_of(plain), *trainer = NULL, *again = NULL, *merged = NULL;
    mmopt_adapter_options o = small();
    mmopt_batch *batch = next_batch();
    const mmopt_tensor *tensors = NULL;
    mmopt_tensor value;
    size_t n = 0, index = 0;
    uint32_t trainable = 1;
    double start, loss;

    OK(mmopt_model_add_adapters(adapted, &o));
    trainer = trainer_of(adapted);
    OK(mmopt_batch_tensors(batch, 0, &tensors, &n));
    start = loss_of(trainer, batch);
    CHECK(start == loss_of(before, batch));
    for (int i = 0; i < 20; i++) {
        OK(mmopt_trainer_forward_backward(trainer, 0, tensors, n, NULL));
        OK(mmopt_trainer_step(trainer, NULL));
    }
    loss = loss_of(trainer, batch);
    CHECK(loss < start);
    OK(mmopt_trainer_parameter_index(trainer, 0,
                                     "bert.encoder.layer.0.attention.self.query.lora_B.weight", &index));
    OK(mmopt_trainer_parameter(trainer, 0, index, &value, &trainable));
    CHECK(trainable == 1 && value.n_dims == 2 && value.shape[0] == 16 && value.shape[1] == 2);
    OK(mmopt_trainer_parameter_index(trainer, 0, "bert.encoder.layer.0.attention.self.query.weight",
                                     &index));
    OK(mmopt_trainer_parameter(trainer, 0, index, &value, &trainable));
    CHECK(trainable == 0);

    REFUSES_NULL(mmopt_trainer_save_adapters(trainer, 0, NULL));
    FAILS(mmopt_trainer_save_adapters(trainer, 1, "x"), MMOPT_CODE_INVALID_ARGUMENT, "model 1");
    FAILS(mmopt_trainer_save_adapters(before, 0, "x"), MMOPT_CODE_STATE, "no adapters");
    OK(mmopt_trainer_save_adapters(trainer, 0, in_folder(folder, "adapters")));
    OK(mmopt_model_load_adapters(plain, in_folder(folder, "adapters")));
    again = trainer_of(plain);
    CHECK(loss_of(again, batch) == loss);

    OK(mmopt_trainer_save_model(trainer, 0, in_folder(folder, "merged")));
    OK(mmopt_model_from_directory("bert", in_folder(folder, "merged"), &read));
    merged = trainer_of(read);
    CHECK(loss_of(merged, batch) - loss < 1e-5 && loss - loss_of(merged, batch) < 1e-5);
    FAILS(mmopt_trainer_parameter_index(merged, 0,
                                        "bert.encoder.layer.0.attention.self.query.lora_B.weight",
                                        &index), MMOPT_CODE_NOT_FOUND, "lora_B");

    mmopt_trainer_free(before);
    mmopt_trainer_free(trainer);
    mmopt_trainer_free(again);
    mmopt_trainer_free(merged);
    mmopt_model_free(plain);
    mmopt_model_free(adapted);
    mmopt_model_free(read);
    mmopt_batch_free(batch);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    make_data();
    test_options();
    if (getenv("MMOPT_ORT_LIB") != NULL) {
        test_misfits(argv[1]);
        train_and_save(argv[1]);
    } else {
        printf("not run: no ONNX Runtime\n");
    }
    free_data();
    return finish();
}
