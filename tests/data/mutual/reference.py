"""Writes pytorch.txt: losses, divergences and gradients of the linear models in
tests/train/mutual/linear.rs that learn from all their peers with weight 0.7 at temperature 2.

    python reference.py > pytorch.txt
"""
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
MASK = (1 << 64) - 1
WEIGHT, T = 0.7, 2.0


def noise(seed, *shape):
    state, out = (seed * 0x9E3779B97F4A7C15 & MASK) | 1, []
    for _ in range(torch.Size(shape).numel()):
        state = (state * 6364136223846793005 + 1) & MASK
        out.append((state >> 40) / (1 << 23) - 1.0)
    return torch.tensor(out).reshape(shape)


def model(seed, shape, columns):
    return noise(seed, *shape), noise(seed + 50, shape[-1], columns).requires_grad_()


def divergence(target, z, weights):
    """T² Σ w KL(target ‖ softmax(z / T)) over rows."""
    each = F.kl_div(F.log_softmax(z / T, -1), target, reduction="none").sum(-1)
    return T * T * (weights * each).sum()


def report(case, i, w, loss, mutual):
    (gradient,) = torch.autograd.grad(loss + mutual, w, retain_graph=True)
    numbers = [loss.item(), mutual.item(), *gradient.flatten().tolist()]
    print(case, i, *(f"{x:.9g}" for x in numbers))


def classification():
    labels = torch.tensor([0, 1, -100, 1, 0, -100])
    models = [model(seed, (6, 4), 3) for seed in (1, 2, 3)]
    z = [x @ w for x, w in models]
    p = [F.softmax(z / T, -1).detach() for z in z]
    for i, (_, w) in enumerate(models):
        target = torch.stack([q for j, q in enumerate(p) if j != i]).mean(0)
        mutual = divergence(target, z[i], torch.full((6,), WEIGHT / 6))
        report("classification", i, w, F.cross_entropy(z[i], labels), mutual)


def tokens():
    words = [[[-1, 0, 1, -1, 2], [-1, 0, -1, 1, -1]], [[0, -1, 1, 3], [1, -1, 0, -1]]]
    labels = [[[-100, 1, 2, -100, 0], [-100, 0, -100, 1, -100]], [[1, -100, 2, 2], [-100] * 4]]
    models = [model(4, (2, 5, 4), 3), model(5, (2, 4, 4), 3)]
    z = [x @ w for x, w in models]
    for i, (_, w) in enumerate(models):
        p = F.softmax(z[1 - i] / T, -1).detach()
        n_words = sum(word >= 0 for row in words[i] for word in row)
        mutual = torch.zeros(())
        for b, row in enumerate(words[i]):
            for s, word in enumerate(row):
                if word in words[1 - i][b] and word >= 0:
                    target = p[b, words[1 - i][b].index(word)]
                    one = torch.full((1,), WEIGHT / n_words)
                    mutual = mutual + divergence(target[None], z[i][b, s][None], one)
        loss = F.cross_entropy(z[i].reshape(-1, 3), torch.tensor(labels[i]).flatten())
        report("tokens", i, w, loss, mutual)


def answers():
    words = [
        torch.tensor([[0, -1, 1, 1, 2, 3], [0, -1, 1, 2, 2, -1]]),
        torch.tensor([[-1, 1, 2, 2, 3], [-1, 1, 2, 2, -1]]),
    ]
    starts, ends = [[4, -100], [3, -100]], [[4, 3], [3, 2]]
    models = [model(6, (2, 6, 4), 2), model(7, (2, 5, 4), 2)]
    z = [x @ w for x, w in models]
    for i, (_, w) in enumerate(models):
        mutual, loss = torch.zeros(()), torch.zeros(())
        for part, labels in enumerate((starts[i], ends[i])):
            p = F.softmax(z[1 - i][..., part] / T, -1).detach()
            for b in range(2):
                own, theirs = words[i][b], words[1 - i][b]
                target = torch.zeros(len(own))
                for word in own[own >= 0].unique():
                    at = (own == word).nonzero().flatten()[0 if part == 0 else -1]
                    target[at] = p[b][theirs == word].sum()
                kept = target.sum()
                row = z[i][b, :, part][None]
                mutual = mutual + divergence((target / kept)[None], row, WEIGHT * kept / 4)
            loss = loss + F.cross_entropy(z[i][..., part], torch.tensor(labels)) / 2
        report("answers", i, w, loss, mutual)


print(f"# reference.py, PyTorch {torch.__version__}: case, model, loss, divergence, gradient")
classification()
tokens()
answers()
