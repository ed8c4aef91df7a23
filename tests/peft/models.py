"""Writes small random models, and adapters for them as peft saves them, for tests/peft/adapters.c.

    models.py DIR [MINILM]

DIR/NAME/base: a model as transformers saves it, without a head for its task where it gets a new one.
DIR/NAME/given: adapters with a head, by peft, all of them random.
DIR/list: a line for each, its name, task and targets.

MINILM is the directory of all-MiniLM-L6-v2, which becomes one of them.
"""

import os
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model

SIZES = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
             intermediate_size=48, max_position_embeddings=40)
GPT2 = dict(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=40, pad_token_id=1,
            bos_token_id=0, eos_token_id=0)
DISTILBERT = dict(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48,
                  max_position_embeddings=40)
# Name: configuration, class of the base, class with the task's head, task of peft, targets.
MODELS = {
    "bert": (transformers.BertConfig(**SIZES), transformers.BertModel,
             transformers.BertForSequenceClassification, "SEQ_CLS",
             ["query", "value", "intermediate.dense"]),
    "roberta": (transformers.RobertaConfig(**SIZES, pad_token_id=1), transformers.RobertaModel,
                transformers.RobertaForSequenceClassification, "SEQ_CLS", ["query", "key"]),
    "distilbert": (transformers.DistilBertConfig(**DISTILBERT), transformers.DistilBertModel,
                   transformers.DistilBertForSequenceClassification, "SEQ_CLS",
                   ["q_lin", "v_lin"]),
    "gpt2": (transformers.GPT2Config(**GPT2), transformers.GPT2LMHeadModel,
             transformers.GPT2LMHeadModel, "CAUSAL_LM", ["c_attn", "mlp.c_proj"]),
    "gpt2-seqcls": (transformers.GPT2Config(**GPT2), transformers.GPT2Model,
                    transformers.GPT2ForSequenceClassification, "SEQ_CLS", ["c_attn"]),
    # peft copies the whole head, with the decoder that is tied to the embedding.
    "bert-mlm": (transformers.BertConfig(**SIZES), transformers.BertModel,
                 transformers.BertForMaskedLM, "MASKED_LM", ["query", "value"]),
    "minilm": (None, transformers.BertModel, transformers.BertForSequenceClassification, "SEQ_CLS",
               ["query", "key", "value", "attention.output.dense"]),
}


def head_of(task):
    """What from_pretrained is told about the head."""
    return {"num_labels": 3} if task == "SEQ_CLS" else {}


def main(folder, minilm=None):
    torch.manual_seed(1)
    made = {n: m for n, m in MODELS.items() if minilm or m[0]}
    for name, (config, base, with_head, task, targets) in made.items():
        if config:
            base(config).save_pretrained(f"{folder}/{name}/base")
        else:
            os.makedirs(f"{folder}/{name}")
            os.symlink(os.path.abspath(minilm), f"{folder}/{name}/base")
        model = with_head.from_pretrained(f"{folder}/{name}/base", **head_of(task))
        is_masked = task == "MASKED_LM"
        model = get_peft_model(model, LoraConfig(
            task_type=None if is_masked else task, r=4, lora_alpha=10, lora_dropout=0.1,
            target_modules=targets, fan_in_fan_out=name.startswith("gpt2"),
            modules_to_save=["cls"] if is_masked else None))
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and "decoder" not in key:
                torch.nn.init.normal_(parameter, std=0.3 if config else 0.05)
        model.save_pretrained(f"{folder}/{name}/given")
    with open(f"{folder}/list", "w") as file:
        for name, (_, _, _, task, targets) in made.items():
            print(name, task, *targets, file=file)


if __name__ == "__main__":
    main(*sys.argv[1:])
