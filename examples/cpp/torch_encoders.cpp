// Two encoders of libtorch that learn together: the library updates their parameters in place, and
// mixes the gradients of parts that do the same work. scripts/test_torch.sh compiles and runs it.
#include <mmopt_torch.hpp>

#include <cstdio>

namespace {

/// Sequences of 16 numbers each; is the sum of the first ones positive?
struct task {
    torch::Tensor x = torch::randn({12, 64, 16});
    torch::Tensor y = (x.select(2, 0).sum(0) > 0).to(torch::kLong);
};

struct net : torch::nn::Module {
    torch::nn::TransformerEncoder encoder{nullptr};
    torch::nn::Embedding positions{nullptr};
    torch::nn::Linear classifier{nullptr};

    explicit net(int layers) {
        auto layer = torch::nn::TransformerEncoderLayer(
            torch::nn::TransformerEncoderLayerOptions(16, 2).dim_feedforward(64).dropout(0.0));
        encoder = register_module("encoder", torch::nn::TransformerEncoder(
                                                 torch::nn::TransformerEncoderOptions(layer, layers)));
        positions = register_module("positions", torch::nn::Embedding(12, 16));
        classifier = register_module("classifier", torch::nn::Linear(16, 2));
    }
    torch::Tensor forward(const torch::Tensor &x) {
        return classifier(encoder(x + positions(torch::arange(12)).unsqueeze(1)).mean(0));
    }
};

} // namespace

int main() {
    torch::manual_seed(1);
    const std::vector<std::shared_ptr<net>> nets = {std::make_shared<net>(1),
                                                    std::make_shared<net>(2)};
    std::vector<mmopt::torch::attached> models = {{"shallow", nets[0]}, {"deep", nets[1]}};
    for (auto &one : models) {
        one.task = "signs"; // heads of one task share too
        one.roles["positions.weight"] = R"({"role": "position_embedding", "part": "weight"})";
    }
    auto options = mmopt::trainer_options(MMOPT_PRESET_ADAMW);
    options.learning_rate = 3e-3;
    options.share_policy = MMOPT_SHARE_POLICY_ALIGNED;
    options.share_rule = MMOPT_SHARE_RULE_GATED;
    options.share_every = 1;
    mmopt::torch::optimizer optimizer(models, options);
    std::printf("%s", optimizer.base().plan().c_str());

    for (int step = 0; step < 150; step++) {
        const task batch;
        for (std::size_t i = 0; i < nets.size(); i++) {
            const auto loss = torch::cross_entropy_loss(nets[i]->forward(batch.x), batch.y);
            loss.backward();
            optimizer.accumulate(i, loss);
        }
        optimizer.step();
        optimizer.zero_grad(); // frees the gradients
    }
    std::printf("torch_encoders:");
    const torch::NoGradGuard guard;
    const task batch;
    for (std::size_t i = 0; i < nets.size(); i++) {
        const auto right = nets[i]->forward(batch.x).argmax(1) == batch.y;
        const double accuracy = right.to(torch::kFloat32).mean().item<double>();
        std::printf(" %s %.3f", models[i].name.c_str(), accuracy);
    }
    std::printf("\n");
    return 0;
}
