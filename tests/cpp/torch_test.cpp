// Two nn::TransformerEncoder models of libtorch under mmopt: scripts/test_torch.sh compiles and runs it.
#include <mmopt_torch.hpp>

#include <cmath>
#include <cstdio>
#include <set>

namespace {

int n_failed = 0;

void check(bool condition, const std::string &what) {
    if (!condition) {
        n_failed++;
        std::printf("failed: %s\n", what.c_str());
    }
}

/// An encoder and a head of one number.
struct net : torch::nn::Module {
    torch::nn::TransformerEncoder encoder{nullptr};
    torch::nn::Linear classifier{nullptr};

    explicit net(int layers) {
        auto layer = torch::nn::TransformerEncoderLayer(
            torch::nn::TransformerEncoderLayerOptions(16, 2).dim_feedforward(32).dropout(0.0));
        encoder = register_module("encoder", torch::nn::TransformerEncoder(
                                                 torch::nn::TransformerEncoderOptions(layer, layers)));
        classifier = register_module("classifier", torch::nn::Linear(16, 1));
    }
    torch::Tensor loss(const torch::Tensor &x, const torch::Tensor &y) {
        return torch::mse_loss(classifier(encoder(x).mean(0)).squeeze(1), y);
    }
};

std::shared_ptr<net> twin(net &of, int layers) {
    auto made = std::make_shared<net>(layers);
    const torch::NoGradGuard guard;
    auto from = of.parameters(), to = made->parameters();
    for (std::size_t i = 0; i < from.size(); i++)
        to[i].copy_(from[i]);
    return made;
}

double distance(net &a, net &b) {
    double most = 0;
    auto of_a = a.parameters(), of_b = b.parameters();
    for (std::size_t i = 0; i < of_a.size(); i++)
        most = std::max(most, (of_a[i] - of_b[i]).abs().max().item<double>());
    return most;
}

struct data {
    torch::Tensor x = torch::randn({5, 8, 16}), y = torch::randn({8});
};

/// A float holds the factor 1 - rate * decay. torch rounds it, which alone moves a weight of 1 by up
/// to 3e-6 in 100 steps.
constexpr double rate = 1e-3, decay = 1.0 / 131072 / rate;

/// AdamW in double precision.
struct exact {
    std::vector<torch::Tensor> value, first, second;
    int steps = 0;

    explicit exact(net &of) {
        for (const auto &p : of.parameters()) {
            value.push_back(p.detach().to(torch::kFloat64));
            first.push_back(torch::zeros_like(value.back()));
            second.push_back(torch::zeros_like(value.back()));
        }
    }
    void step(net &of) {
        steps++;
        auto all = of.parameters();
        for (std::size_t i = 0; i < all.size(); i++) {
            const auto g = all[i].grad().to(torch::kFloat64);
            first[i] = 0.9 * first[i] + 0.1 * g;
            second[i] = 0.999 * second[i] + 0.001 * g * g;
            const auto m = first[i] / (1 - std::pow(0.9, steps));
            const auto v = second[i] / (1 - std::pow(0.999, steps));
            value[i] = value[i] * (1 - rate * decay) - rate * m / (v.sqrt() + 1e-8);
        }
    }
    double distance(net &of) const {
        double most = 0;
        auto all = of.parameters();
        for (std::size_t i = 0; i < all.size(); i++)
            most = std::max(most, (all[i] - value[i]).abs().max().item<double>());
        return most;
    }
};

/// With sharing off it is torch::optim::AdamW, whether gradients are freed or zeroed.
void equals_adamw(bool set_to_none) {
    torch::manual_seed(3);
    const int layers[2] = {2, 4};
    std::vector<std::shared_ptr<net>> ours, theirs;
    std::vector<std::unique_ptr<torch::optim::AdamW>> references;
    std::vector<mmopt::torch::attached> modules;
    for (int i = 0; i < 2; i++) {
        ours.push_back(std::make_shared<net>(layers[i]));
        theirs.push_back(twin(*ours[i], layers[i]));
        references.push_back(std::make_unique<torch::optim::AdamW>(
            theirs[i]->parameters(), torch::optim::AdamWOptions(rate).weight_decay(decay)));
        modules.emplace_back(i == 0 ? "shallow" : "deep", ours[i]);
    }
    auto options = mmopt::trainer_options(MMOPT_PRESET_ADAMW);
    options.learning_rate = rate;
    options.weight_decay = decay;
    std::vector<exact> exacts = {exact(*ours[0]), exact(*ours[1])};
    mmopt::torch::optimizer optimizer(modules, options);
    for (int step = 0; step < 100; step++) {
        const data batch;
        for (std::size_t i = 0; i < 2; i++) {
            const auto loss = ours[i]->loss(batch.x, batch.y);
            loss.backward();
            optimizer.accumulate(i, loss);
            // The same gradients, so that only the optimizers differ.
            auto from = ours[i]->parameters(), to = theirs[i]->parameters();
            for (std::size_t p = 0; p < from.size(); p++)
                to[p].mutable_grad() = from[p].grad().clone();
            references[i]->step();
            exacts[i].step(*ours[i]);
        }
        check(optimizer.step().n_updated == 2, "both models are updated");
        optimizer.zero_grad(set_to_none);
    }
    for (std::size_t i = 0; i < 2; i++) {
        const double far = distance(*ours[i], *theirs[i]);
        const double own = exacts[i].distance(*ours[i]), torchs = exacts[i].distance(*theirs[i]);
        std::printf("after 100 steps model %zu is %.2g from torch's AdamW; from AdamW in double "
                    "precision it is %.2g, torch's %.2g\n",
                    i, far, own, torchs);
        check(own <= 3e-6, "the steps are AdamW's");
        check(far <= 3e-6 + torchs, "the steps are torch's but for its rounding");
    }
}

/// With sharing on every matrix of a block is in a group.
void shares_blocks() {
    torch::manual_seed(4);
    std::vector<mmopt::torch::attached> modules = {{"a", std::make_shared<net>(2)},
                                                   {"b", std::make_shared<net>(2)}};
    auto options = mmopt::trainer_options(MMOPT_PRESET_ADAMW);
    options.share_policy = MMOPT_SHARE_POLICY_ALIGNED;
    options.share_rule = MMOPT_SHARE_RULE_GATED;
    options.share_every = 1;
    mmopt::torch::optimizer optimizer(modules, options);
    const std::string plan = optimizer.base().plan();
    const std::string shared = plan.substr(0, plan.find("\nleft out\n"));
    for (const auto &item : modules[0].module->named_parameters()) {
        if (item.key().find("layers.") == std::string::npos || item.value().dim() < 2)
            continue;
        check(shared.find(item.key()) != std::string::npos, item.key() + " is shared:\n" + plan);
    }
    check(plan.find("warning") == std::string::npos, "nothing to warn of");
    for (int step = 0; step < 3; step++) {
        const data batch;
        for (std::size_t i = 0; i < 2; i++) {
            const auto loss = static_cast<net &>(*modules[i].module).loss(batch.x, batch.y);
            loss.backward();
            optimizer.accumulate(i, loss);
        }
        check(optimizer.step().shared != 0, "gradients are shared");
        optimizer.zero_grad();
    }
}

template <class F> std::uint32_t code_of(F f) {
    try {
        f();
    } catch (const mmopt::error &e) {
        return e.code();
    }
    return MMOPT_CODE_OK;
}

/// bf16 values have masters; tied, frozen, unused and moved parameters.
void odd_parameters() {
    torch::manual_seed(5);
    auto linear = torch::nn::Linear(4, 4), tied = torch::nn::Linear(4, 4);
    tied->weight = tied->register_parameter("weight2", linear->weight);
    struct pair : torch::nn::Module {};
    auto both = std::make_shared<pair>();
    both->register_module("first", linear);
    both->register_module("second", tied);
    both->to(torch::kBFloat16);
    linear->bias.set_requires_grad(false);
    const auto before = linear->weight.clone(), bias = linear->bias.clone();
    auto options = mmopt::trainer_options(MMOPT_PRESET_ADAMW);
    options.learning_rate = 1e-4;
    mmopt::torch::optimizer optimizer({{"m", both}}, options);
    for (int step = 0; step < 200; step++) {
        // The bias of the second is not used: it has no gradient.
        const auto loss = linear(torch::ones({2, 4}, torch::kBFloat16)).sum();
        loss.backward();
        optimizer.accumulate(0, loss);
        optimizer.step();
        optimizer.zero_grad();
    }
    const auto moved = (before - linear->weight).to(torch::kFloat32);
    // 200 steps of 1e-4 add up, though each is less than bf16's spacing.
    check((moved - 0.02).abs().max().item<double>() < 4e-3, "small steps of bf16 values add up");
    check(torch::equal(bias, linear->bias), "a frozen parameter stays");
    // Other memory for the values.
    linear->weight.set_data(linear->weight.detach().clone());
    const auto here = linear->weight.clone();
    const auto loss = linear(torch::ones({2, 4}, torch::kBFloat16)).sum() * 100;
    loss.backward();
    optimizer.accumulate(0, loss);
    optimizer.base().set_learning_rate(0.1);
    optimizer.step();
    check(!torch::equal(here, linear->weight), "values are followed to other memory");
    check(code_of([&] { optimizer.accumulate(7, 0.0); }) == MMOPT_CODE_INVALID_ARGUMENT, "model 7");
    mmopt::torch::attached wrong{"m", both};
    wrong.roles["none"] = "{}";
    check(code_of([&] { mmopt::torch::optimizer({wrong}, options); }) == MMOPT_CODE_NOT_FOUND,
          "a role for no parameter");
}

} // namespace

int main() {
    torch::set_num_threads(1);
    equals_adamw(true);
    equals_adamw(false);
    shares_blocks();
    odd_parameters();
    std::printf("torch_test: %d failed\n", n_failed);
    return n_failed == 0 ? 0 : 1;
}
