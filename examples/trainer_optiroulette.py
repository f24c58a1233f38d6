"""OptiRoulette in the Trainer of Hugging Face: a tiny Bert of random weights, and which optimizer made the steps of each epoch.

    python examples/trainer_optiroulette.py
    python examples/trainer_optiroulette.py --epochs 20 --seed 1

The Trainer makes the optimizer itself, of a class and its arguments, and schedules it as any other. A callback tells the roulette
which epoch it is and how well the last one ended, and prints who was drawn, the size of the last step and the accuracy.
Needs transformers and accelerate; no network.
"""

import argparse
import os
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import funcopt as fo

WORDS, LENGTH = 30, 8
POOL = {
    "adam": {"lr": 3e-3},
    "adamw": {"lr": 2e-3, "weight_decay": 0.01},
    "nadam": {"lr": 2e-3},
    "lion": {"lr": 3e-4},
    "sgd": {"lr": 0.05, "momentum": 0.9},
}


class Sentences(torch.utils.data.Dataset):
    """Random sentences; half of the words are kind, and a sentence is if most of its words are."""

    def __init__(self, rows, seed):
        self.words = torch.randint(WORDS, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
        self.kind = ((self.words < WORDS // 2).sum(1) > LENGTH // 2).long()

    def __len__(self):
        return len(self.kind)

    def __getitem__(self, row):
        return {"input_ids": self.words[row], "labels": self.kind[row]}


class Wheel(TrainerCallback):
    """Turns the roulette, and keeps its book."""

    def __init__(self):
        self.rows = []

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self.roulette = optimizer.optimizer  # Accelerate stands around it
        print(f"{'epoch':>5}  {'drawn':<8}{'effective lr':>14}{'loss':>9}{'accuracy':>10}")

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.roulette.on_epoch_start(round(state.epoch))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        drawn = list(POOL)[int(self.roulette.signals()["pick"])]
        rate = self.roulette.effective_lrs()[0]
        loss = next(row["loss"] for row in reversed(state.log_history) if "loss" in row)
        self.rows.append((drawn, rate, metrics["eval_accuracy"]))
        print(f"{round(state.epoch):>5}  {drawn:<8}{rate:>14.2e}{loss:>9.3f}{100 * metrics['eval_accuracy']:>9.1f}%")
        self.roulette.on_epoch_end(val_acc=metrics["eval_accuracy"])


def main(arguments: list[str] | None = None) -> list[tuple[str, float, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": LENGTH,
    }
    bert = BertForSequenceClassification(BertConfig(vocab_size=WORDS, **sizes))
    wheel = Wheel()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=256,
            lr_scheduler_type="linear",  # from 1.0, by which the members' own rates are multiplied
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=bert,
            args=settings,
            train_dataset=Sentences(1024, seed=1),
            eval_dataset=Sentences(512, seed=2),
            compute_metrics=lambda given: {"accuracy": float((given.predictions.argmax(-1) == given.label_ids).mean())},
            optimizer_cls_and_kwargs=(fo.torch_optim.optiroulette, {"optimizer_specs": POOL, "seed": options.seed}),
            callbacks=[wheel],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return wheel.rows


if __name__ == "__main__":
    main()
