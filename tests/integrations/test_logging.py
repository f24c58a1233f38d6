"""The recipes of docs/logging.md run, and what arrives is what was said."""

import csv
import logging
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import funcopt as fo

PAGE = (Path(__file__).parents[2] / "docs" / "logging.md").read_text(encoding="utf-8")
ALWAYS = re.search(r"```python\n# always\n(.*?)```", PAGE, re.DOTALL).group(1)
RECIPES = dict(re.findall(r"```python\n# tool: (\w+)\n(.*?)```", PAGE, re.DOTALL))
STEPS = 5

pytestmark = pytest.mark.filterwarnings("ignore")


def optimizer(model):
    return fo.torch_optim.aees(model.parameters(), lr=0.01, lr_candidates=(0.5, 1.0, 2.0), episode_length=2, seed=0)


def names(tool, folder):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    batches = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(STEPS)]
    space = {"torch": torch, "fo": fo, "model": model, "opt": optimizer(model), "batches": batches, "folder": folder}
    exec(ALWAYS, space)
    exec(RECIPES[tool], space)
    return space


@pytest.fixture
def said(tmp_path):
    return names("list", tmp_path)["history"]


def test_a_list(said):
    assert len(said) == STEPS
    assert {"loss", "effective_lr/0", "lr", "lr_multiplier", "episode_reward", "noise_std"} == set(said[0])
    assert [row["effective_lr/0"] for row in said] == pytest.approx([0.01 * row["lr_multiplier"] for row in said])


def test_the_picture_of_a_list(said, tmp_path):
    pytest.importorskip("matplotlib")
    fo.viz.signals(said, tmp_path / "signals.png")
    assert (tmp_path / "signals.png").stat().st_size > 10_000


def test_every_tool_has_its_recipe():
    assert set(RECIPES) == {"list", "tensorboard", "wandb", "mlflow", "lightning", "transformers"}
    assert all(len(recipe.strip().splitlines()) <= 12 for recipe in RECIPES.values())


def test_tensorboard(said, tmp_path):
    pytest.importorskip("tensorboard")
    names("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["scalars"]) == set(said[0])
    for word in said[0]:
        assert [event.value for event in found.Scalars(word)] == pytest.approx([row[word] for row in said])


# Large packages that the extra leaves out.
if find_spec("wandb"):

    def test_wandb(said, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_SILENT", "true")
        names("wandb", tmp_path)
        (file,) = tmp_path.rglob("*.wandb")
        for word in said[0]:
            assert file.read_bytes().count(word.encode()) >= STEPS


if find_spec("mlflow"):

    def test_mlflow(said, tmp_path):
        space = names("mlflow", tmp_path)
        client = space["mlflow"].MlflowClient()
        for word in said[0]:
            history = client.get_metric_history(space["run"].info.run_id, word)
            assert [metric.value for metric in history] == pytest.approx([row[word] for row in said])


def test_lightning(tmp_path):
    L = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    from lightning.pytorch.loggers import CSVLogger

    words = names("lightning", tmp_path)["Words"]

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(3, 1)

        def configure_optimizers(self):
            return optimizer(self)

        def training_step(self, batch, index):
            return torch.nn.functional.mse_loss(self.net(batch), batch.sum(1, keepdim=True))

    logger = CSVLogger(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=logger, log_every_n_steps=1, callbacks=[words()], **quiet)
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(4 * STEPS, 3), batch_size=4))
    with open(logger.experiment.metrics_file_path, newline="") as file:
        rows = [{word: float(value) for word, value in row.items() if value} for row in csv.DictReader(file)]
    assert len(rows) == STEPS
    assert [row["effective_lr/0"] for row in rows] == pytest.approx([0.01 * row["lr_multiplier"] for row in rows])


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = names("transformers", tmp_path)["Words"]

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return {"input_ids": torch.arange(4) + index % 3, "labels": torch.tensor(index % 2)}

    sizes = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))
    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, logging_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    trainer = transformers.Trainer(
        model=model, args=settings, train_dataset=Rows(), optimizer_cls_and_kwargs=(fo.torch_optim.pilot, {"lr": 0.01})
    )
    trainer.callback_handler.callbacks.insert(0, words())
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 2 and all(0 < row["effective_lr/0"] <= 0.01 and "agreement" in row for row in rows)
