"""The Trainer of Hugging Face on a tiny Bert of random weights: given as objects or by class, resumed, and told of losses and epochs."""

import pytest
import torch

import funcopt as fo
from tests.torch_optim.runs import assert_close, assert_equal, copies

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
ARMS = {"lr_candidates": (0.5, 1.0, 2.0), "noise_candidates": (0.0, 0.01), "episode_length": 2, "seed": 3}
WORDS, LENGTH, ROWS = 20, 5, 24


class Sentences(torch.utils.data.Dataset):
    """Sentences of random words; the label says which half of the words begins it."""

    def __init__(self):
        self.words = torch.randint(WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        return {"input_ids": self.words[index], "labels": (self.words[index][0] > WORDS // 2).long()}


def bert(dropout=0.0):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": LENGTH}
    return BertForSequenceClassification(
        BertConfig(vocab_size=WORDS, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, classifier_dropout=dropout, **sizes)
    )


class Tells(TrainerCallback):
    """Hands the loss to the optimizer before it steps: the Trainer keeps it to itself, so `Telling` notes it."""

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, model=None, **kwargs):
        getattr(optimizer, "optimizer", optimizer).observe(loss=model.last_loss)


class Telling(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        self.model.last_loss = loss.detach()
        return (loss, outputs) if return_outputs else loss


def trainer(folder, net, kind=Trainer, callbacks=None, steps=6, train=True, **settings):
    given = {name: settings.pop(name) for name in ("optimizers", "optimizer_cls_and_kwargs") if name in settings}
    base = {
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 1,
    }
    arguments = TrainingArguments(output_dir=str(folder), **{**base, "logging_steps": 1, "learning_rate": 0.01, **settings})
    return kind(model=net, args=arguments, train_dataset=Sentences(), callbacks=callbacks, **given)


def losses(run):
    return [row["loss"] for row in run.state.log_history if "loss" in row]


WAYS = {
    "linear decay": {},
    "clipped and warmed up": {"max_grad_norm": 0.05, "warmup_steps": 3, "lr_scheduler_type": "cosine"},
    "accumulated": {"gradient_accumulation_steps": 2, "steps": 4},
    "weight decay by groups": {"weight_decay": 0.1},
    "bf16": {"bf16": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_class_trains_as_that_of_torch(way, tmp_path):
    runs, nets = [], []
    for kind in (fo.torch_optim.adamw, torch.optim.AdamW):
        nets.append(bert())
        runs.append(trainer(tmp_path, nets[-1], optimizer_cls_and_kwargs=(kind, {"lr": 0.01, "betas": (0.9, 0.99)}), **WAYS[way]))
        runs[-1].train()
    assert_close(copies(nets[0]), copies(nets[1]), rtol=1e-4, atol=5e-6 if way != "bf16" else 1e-4)
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)
    assert len(runs[0].optimizer.param_groups) == 2


def test_objects_train_as_those_of_torch(tmp_path):
    runs, nets = [], []
    for kind in (fo.torch_optim.sgd, torch.optim.SGD):
        nets.append(bert())
        opt = kind(nets[-1].parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.8)
        runs.append(trainer(tmp_path, nets[-1], optimizers=(opt, scheduler)))
        runs[-1].train()
    assert_close(copies(nets[0]), copies(nets[1]), rtol=1e-4, atol=5e-6)
    assert [row["learning_rate"] for row in runs[0].state.log_history[:-1]] == [
        row["learning_rate"] for row in runs[1].state.log_history[:-1]
    ]


def test_a_rate_of_its_own_is_scheduled_relative_to_one(tmp_path):
    net = bert()
    opt = fo.torch_optim.Optimizer(net.parameters(), fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(0.01)))
    run = trainer(tmp_path, net, optimizers=(opt, torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)), steps=3)
    run.train()
    assert opt.effective_lrs() == [pytest.approx(0.01 * 0.5**2)]


@pytest.mark.parametrize("kind", ["adamw", "aees", "pilot"])
def test_resumed_from_a_checkpoint_it_continues_bit_for_bit(kind, tmp_path):
    settings = {"adamw": {}, "pilot": {}, "aees": ARMS}[kind]
    by_class = (getattr(fo.torch_optim, kind), {"lr": 0.01, **settings})
    told = {"kind": Telling, "callbacks": [Tells()]} if kind == "aees" else {}
    whole = bert(dropout=0.1)
    run = trainer(tmp_path, whole, optimizer_cls_and_kwargs=by_class, save_strategy="steps", save_steps=4, **told)
    run.train()
    resumed = bert(dropout=0.1)
    again = trainer(tmp_path, resumed, optimizer_cls_and_kwargs=by_class, **told)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_equal(copies(resumed), copies(whole))
    assert_equal(run.optimizer.optimizer.signals().values(), again.optimizer.optimizer.signals().values())
    torch.load(tmp_path / "checkpoint-4" / "optimizer.pt", weights_only=True)


def test_a_controller_hears_the_loss_of_each_step(tmp_path):
    net = bert()
    run = trainer(
        tmp_path,
        net,
        Telling,
        [Tells()],
        optimizer_cls_and_kwargs=(fo.torch_optim.aees, {"lr": 0.01, **ARMS}),
        lr_scheduler_type="constant",
    )
    heard = []

    class Listens(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            heard.append(float(getattr(optimizer, "optimizer", optimizer)._engine.pending["loss"]))

    run.add_callback(Listens())
    run.train()
    assert heard == pytest.approx(losses(run), abs=1e-4)
    assert run.optimizer.optimizer.effective_lrs()[0] in (0.005, 0.01, 0.02)


def test_a_roulette_hears_of_epochs(tmp_path):
    picks = []

    class Epochs(TrainerCallback):
        def on_epoch_begin(self, args, state, control, optimizer=None, **kwargs):
            getattr(optimizer, "optimizer", optimizer).on_epoch_start(round(state.epoch or 0))

        def on_epoch_end(self, args, state, control, optimizer=None, **kwargs):
            picks.append(int(getattr(optimizer, "optimizer", optimizer).signals()["pick"]))

    members = {"sgd": {"lr": 0.1}, "adam": {"lr": 0.01}}
    net = bert()
    opt = fo.torch_optim.optiroulette(net.parameters(), members, seed=3)
    scheduler = torch.optim.lr_scheduler.ConstantLR(opt, 1.0)
    trainer(tmp_path, net, callbacks=[Epochs()], optimizers=(opt, scheduler), steps=-1, num_train_epochs=6).train()

    by_hand, expected = fo.torch_optim.optiroulette([torch.nn.Parameter(torch.ones(2))], members, seed=3), []
    for epoch in range(6):
        by_hand.param_groups[0]["params"][0].sum().backward()
        by_hand.step(epoch=epoch)
        expected.append(int(by_hand.signals()["pick"]))
    assert picks == expected and len(set(picks)) == 2


class Alike(Trainer):
    """Evaluates on what it trains on."""

    def __init__(self, **given):
        super().__init__(eval_dataset=given["train_dataset"], **given)


def test_weights_for_evaluation_come_and_go_as_those_of_the_authors(tmp_path):
    schedulefree = pytest.importorskip("schedulefree")
    nets, runs = [], []
    for kind in (fo.torch_optim.schedule_free_sgd, schedulefree.SGDScheduleFree):
        nets.append(bert())
        by_class = (kind, {"lr": 0.1})
        runs.append(
            trainer(
                tmp_path,
                nets[-1],
                Alike,
                optimizer_cls_and_kwargs=by_class,
                eval_strategy="steps",
                eval_steps=2,
                lr_scheduler_type="constant",
            )
        )
        runs[-1].train()
    evaluated = [[row["eval_loss"] for row in run.state.log_history if "eval_loss" in row] for run in runs]
    assert len(evaluated[0]) == 3 and evaluated[0] == pytest.approx(evaluated[1], rel=1e-5)
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)
    assert_close(copies(nets[0]), copies(nets[1]), rtol=1e-4, atol=5e-6)


def test_a_checkpoint_with_weights_for_evaluation_in_place_goes_on(tmp_path):
    settings = {"optimizer_cls_and_kwargs": (fo.torch_optim.schedule_free_adamw, {"lr": 0.01}), "eval_strategy": "steps", "eval_steps": 2}
    whole = bert()
    run = trainer(tmp_path, whole, Alike, save_strategy="steps", save_steps=4, **settings)
    run.train()
    resumed = bert()
    again = trainer(tmp_path, resumed, Alike, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_equal(copies(resumed), copies(whole))
