// A step through C++: prints the median of its microseconds, and a checksum of the weights.
#include "bench.h"

#include <mmopt.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>

static mmopt::optimizer make() {
    std::vector<mmopt::host_model> models(MODELS);
    for (int i = 0; i < MODELS; i++) {
        mmopt::host_parameter weight, bias;
        weight.name = weight_name;
        weight.shape = {WIDTH, WIDTH};
        weight.data = values[i];
        weight.gradient = gradients[i];
        bias.name = bias_name;
        bias.shape = {WIDTH};
        bias.data = values[i] + WIDTH * WIDTH;
        bias.gradient = gradients[i] + WIDTH * WIDTH;
        models[static_cast<std::size_t>(i)].name = model_names[i];
        models[static_cast<std::size_t>(i)].parameters = {weight, bias};
        models[static_cast<std::size_t>(i)].stable_gradients = true;
    }
    auto options = mmopt::trainer_options();
    options.learning_rate = learning_rate;
    options.n_threads = 1;
    return mmopt::optimizer(models, options);
}

static double run(mmopt::optimizer &optimizer, int n_steps) {
    const auto start = std::chrono::steady_clock::now();
    for (int step = 0; step < n_steps; step++) {
        for (std::size_t i = 0; i < MODELS; i++)
            optimizer.accumulate(i, 1.0);
        optimizer.step();
    }
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
    return time.count() / n_steps;
}

int main() {
    fill();
    auto optimizer = make();
    run(optimizer, WARM_UP);
    std::vector<double> times;
    for (int i = 0; i < CHUNKS; i++)
        times.push_back(run(optimizer, CHUNK));
    std::sort(times.begin(), times.end());
    std::printf("%.4f %.9e\n", times[CHUNKS / 2], checksum());
    return 0;
}
