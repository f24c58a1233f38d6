"""skorch and Ignite, which build or hold the optimizer themselves."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import funcopt as fo
from tests.torch_optim.runs import assert_close, assert_equal, batch, copies, model

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


ROWS = torch.randn(24, 3, generator=torch.Generator().manual_seed(2)).numpy()
CLASSES = (ROWS.sum(1) > 0).astype(np.int64)


def classifier(kind, **settings):
    skorch = pytest.importorskip("skorch")
    settings = {
        "max_epochs": 3,
        "batch_size": 8,
        "lr": 0.05,
        "train_split": None,
        "verbose": 0,
        "criterion": nn.CrossEntropyLoss,
        **settings,
    }
    return skorch.NeuralNetClassifier(Net, optimizer=kind, **settings)


def test_skorch_fits_as_with_torch():
    ours, theirs = (classifier(kind, optimizer__weight_decay=0.1).fit(ROWS, CLASSES) for kind in (fo.torch_optim.adamw, torch.optim.AdamW))
    assert_close(copies(ours.module_), copies(theirs.module_), rtol=1e-6, atol=3e-7)
    assert ours.history[:, "train_loss"] == pytest.approx(theirs.history[:, "train_loss"], rel=1e-6)


def test_skorch_sets_hyperparameters_of_groups_and_of_the_optimizer():
    nets = []
    for kind in (fo.torch_optim.sgd, torch.optim.SGD):
        net = classifier(kind, optimizer__momentum=0.9, optimizer__param_groups=[("layers.0.*", {"lr": 0.01})]).fit(ROWS, CLASSES)
        assert [group["lr"] for group in net.optimizer_.param_groups] == [0.01, 0.05]
        net.set_params(lr=0.02, optimizer__momentum=0.5)
        assert {group["momentum"] for group in net.optimizer_.param_groups} == {0.5}
        net.partial_fit(ROWS, CLASSES)
        nets.append(net)
    assert_close(copies(nets[0].module_), copies(nets[1].module_), rtol=1e-6, atol=3e-7)


def test_skorch_hands_its_closure_to_a_controller():
    kept = {"optimizer__lr_candidates": (0.5, 1.0, 2.0), "optimizer__episode_length": 2, "optimizer__seed": 0}
    net = classifier(fo.torch_optim.aees, **kept).fit(ROWS, CLASSES)
    assert int(fo.find(net.optimizer_.functional(), "UcbEpisodesState").step) == 9


@pytest.mark.parametrize("kind", [fo.torch_optim.adamw, fo.torch_optim.pilot], ids=["adamw", "pilot"])
def test_skorch_pickles_and_goes_on(kind, tmp_path):
    net = classifier(kind).fit(ROWS, CLASSES)
    again = pickle.loads(pickle.dumps(net))
    net.save_params(f_params=tmp_path / "net.pt", f_optimizer=tmp_path / "opt.pt")
    third = classifier(kind).initialize()
    third.load_params(f_params=tmp_path / "net.pt", f_optimizer=tmp_path / "opt.pt")
    for each in (net, again, third):
        each.partial_fit(ROWS, CLASSES)
    assert_equal(copies(net.module_), copies(again.module_))
    assert_equal(copies(net.module_), copies(third.module_))


def test_skorch_searches_rates():
    pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(classifier(fo.torch_optim.adamw), {"lr": [1e-6, 0.1]}, cv=2, scoring="accuracy")
    assert search.fit(ROWS, CLASSES).best_params_ == {"lr": 0.1}


def test_ignite_trains_schedules_and_saves_as_with_torch(tmp_path):
    pytest.importorskip("ignite")
    from ignite.engine import Events, create_supervised_trainer
    from ignite.handlers import Checkpoint, DiskSaver, LRScheduler, PiecewiseLinear

    def run(kind, folder):
        net = model(torch.float32)
        opt = kind(net.parameters(), lr=0.1)
        trainer = create_supervised_trainer(net, opt, nn.functional.mse_loss)
        trainer.add_event_handler(Events.ITERATION_STARTED, PiecewiseLinear(opt, "weight_decay", milestones_values=[(0, 0.0), (6, 0.1)]))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, LRScheduler(torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)))
        saver = Checkpoint({"net": net, "opt": opt}, DiskSaver(folder, require_empty=False), n_saved=1)
        trainer.add_event_handler(Events.COMPLETED, saver)
        trainer.run([(batch(step, torch.float32), torch.full((5, 2), 0.3)) for step in range(4)], max_epochs=2)
        fresh = model(torch.float32)
        other = kind(fresh.parameters(), lr=0.1)
        Checkpoint.load_objects({"net": fresh, "opt": other}, torch.load(folder / saver.last_checkpoint, weights_only=True))
        assert other.param_groups[0]["lr"] == opt.param_groups[0]["lr"]
        assert_equal(copies(fresh), copies(net))
        for each, its in ((net, opt), (fresh, other)):
            its.zero_grad()
            nn.functional.mse_loss(each(batch(9, torch.float32)), torch.zeros(5, 2)).backward()
            its.step()
        assert_equal(copies(fresh), copies(net))
        return copies(net)

    assert_close(run(fo.torch_optim.adamw, tmp_path / "ours"), run(torch.optim.AdamW, tmp_path / "theirs"), rtol=1e-6, atol=3e-7)
