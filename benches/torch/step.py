"""What a joint step of three transformers costs in PyTorch: the other side of `make bench-torch`.

The sizes, the batch, dropout and the optimizer's settings are those of benches/train.rs, which
starts this program and reads its last line, a JSON object. Models are written with torch's own
modules and functions: fused query-key-value matrices, scaled dot-product attention, fused AdamW.
"""

import argparse
import contextlib
import json
import resource
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A layer: normalised before its parts (GPT-2) or after them (BERT, RoBERTa)."""

    def __init__(self, hidden, heads, inner, dropout, causal):
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)

    def attend(self, x, mask):
        batch, length, hidden = x.shape
        split = self.qkv(x).view(batch, length, 3, self.heads, hidden // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=None if self.causal else mask, dropout_p=dropout, is_causal=self.causal
        )
        return self.drop(self.out(y.transpose(1, 2).reshape(batch, length, hidden)))

    def feed(self, x):
        approximate = "tanh" if self.causal else "none"
        return self.drop(self.down(F.gelu(self.up(x), approximate=approximate)))

    def forward(self, x, mask):
        if self.causal:
            x = x + self.attend(self.norm1(x), mask)
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attend(x, mask))
        return self.norm2(x + self.feed(x))


class Classifier(nn.Module):
    """A sequence classifier in the manner of bert, gpt2 or roberta."""

    def __init__(self, name, layers, hidden, heads, vocab):
        super().__init__()
        own = {"bert": (30_522, 512), "gpt2": (50_257, 1024), "roberta": (50_265, 514)}[name]
        self.causal = name == "gpt2"
        self.tokens = nn.Embedding(vocab or own[0], hidden)
        self.positions = nn.Embedding(own[1], hidden)
        self.types = None if self.causal else nn.Embedding(2 if name == "bert" else 1, hidden)
        self.norm = nn.LayerNorm(hidden)
        blocks = [Block(hidden, heads, 4 * hidden, 0.1, self.causal) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.dense = None if self.causal else nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 2)

    def forward(self, ids, mask):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        if self.types is not None:
            x = self.norm(x + self.types.weight[0])
        x = F.dropout(x, 0.1, self.training)
        for block in self.blocks:
            x = block(x, mask)
        if self.causal:
            return self.head(self.norm(x)[:, -1])
        return self.head(F.dropout(torch.tanh(self.dense(x[:, 0])), 0.1, self.training))


def kind(name):
    """The class of a parameter, by which the published method groups."""
    for part, word in [("embedding", ("tokens", "positions", "types")), ("attention", ("qkv", "out"))]:
        if any(w in name for w in word):
            return part
    return "norm" if "norm" in name else "other"


def groups_of(models):
    """Parameters of equal class and shape."""
    groups = {}
    for model in models:
        for name, p in model.named_parameters():
            groups.setdefault((kind(name), tuple(p.shape)), []).append(p)
    return [group for group in groups.values() if len(group) > 1]


def share(groups, alpha=0.2):
    """g <- (1 - alpha) g + alpha * (sum of the group's gradients), as the published method has it."""
    with torch.no_grad():
        for group in groups:
            total = sum(p.grad for p in group)
            for p in group:
                p.grad.mul_(1 - alpha).add_(total, alpha=alpha)


def synchronise(groups, beta=0.1):
    """p <- (1 - beta) p + beta * (mean of the group)."""
    with torch.no_grad():
        for group in groups:
            mean = sum(group) / len(group)
            for p in group:
                p.mul_(1 - beta).add_(mean, alpha=beta)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="bert,gpt2,roberta")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--sharing", choices=["none", "paper"], default="none")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocab", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    names = a.models.split(",")
    models = [Classifier(n, a.layers, a.hidden, a.heads, a.vocab) for n in names]
    ids = torch.randint(5, a.vocab or 30_000, (a.batch, a.length))
    labels = torch.randint(0, 2, (a.batch,))
    mask = torch.ones(a.batch, 1, 1, a.length, dtype=torch.bool)
    paper = a.sharing == "paper"
    optimizers = [
        torch.optim.AdamW(m.parameters(), lr=3e-5, weight_decay=0.01, fused=not paper) for m in models
    ]
    groups = groups_of(models) if paper else []
    narrow = torch.autocast("cpu", torch.bfloat16) if a.precision == "bf16" else contextlib.nullcontext()
    passes, updates = [], []
    for step in range(a.steps + 2):
        start = time.perf_counter()
        for model in models:
            with narrow:
                loss = F.cross_entropy(model(ids, mask).float(), labels)
            loss.backward()
        passed = time.perf_counter()
        if paper:
            share(groups)
        else:
            for model in models:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if paper and step % 10 == 9:
            synchronise(groups)
        for optimizer in optimizers:
            optimizer.zero_grad()
        if step > 1:
            passes.append(1e3 * (passed - start))
            updates.append(1e3 * (time.perf_counter() - passed))
    median = lambda x: sorted(x)[len(x) // 2]
    totals = [p + u for p, u in zip(passes, updates)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({
        "passes": median(passes), "optimizer": median(updates), "step": median(totals), "peak": peak,
        "version": torch.__version__,
    }))


main()
