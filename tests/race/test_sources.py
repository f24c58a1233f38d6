"""The sources' own runs, tried on generated files of the form in which their data come."""

import gzip
import json
import pickle
import struct

import numpy as np
import pytest
import torch

from funcopt.__main__ import main
from funcopt.race.sources import networks
from funcopt.race.sources.images import load
from funcopt.race.sources.settings import SETTINGS

TRAIN, TEST = 60, 20
DRAW = np.random.RandomState(0)


def write_cifar(folder, classes):
    """Batches as pickled dicts with keys of bytes: rows of 3,072 bytes, red first."""
    if classes == 10:
        home, files, key = (
            folder / "cifar-10-batches-py",
            {f"data_batch_{i}": TRAIN // 5 for i in range(1, 6)} | {"test_batch": TEST},
            b"labels",
        )
    else:
        home, files, key = folder / "cifar-100-python", {"train": TRAIN, "test": TEST}, b"fine_labels"
    home.mkdir(parents=True)
    for name, n in files.items():
        batch = {
            b"data": DRAW.randint(0, 256, (n, 3072), np.uint8),
            key: DRAW.randint(0, classes, n).tolist(),
            b"batch_label": b"generated",
        }
        (home / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_fashion(folder, zipped):
    home = folder / "FashionMNIST" / "raw"
    home.mkdir(parents=True)
    for name, n in (("train", TRAIN), ("t10k", TEST)):
        images = b"\0\0\x08\x03" + struct.pack(">3i", n, 28, 28) + DRAW.randint(0, 256, (n, 28, 28), np.uint8).tobytes()
        labels = b"\0\0\x08\x01" + struct.pack(">i", n) + DRAW.randint(0, 10, n).astype(np.uint8).tobytes()
        for kind, raw in (("images-idx3", images), ("labels-idx1", labels)):
            path = home / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(raw) if zipped else raw)


def write_svhn(folder):
    from scipy.io import savemat

    for name, n in (("train", TRAIN), ("test", TEST)):
        savemat(folder / f"{name}_32x32.mat", {"X": DRAW.randint(0, 256, (32, 32, 3, n), np.uint8), "y": DRAW.randint(1, 11, (n, 1))})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cifar(folder, 10)
    write_cifar(folder, 100)
    write_fashion(folder, zipped=True)
    write_svhn(folder)
    return folder


@pytest.mark.parametrize(
    "name, shape, classes",
    [("cifar10", (3, 32, 32), 10), ("cifar100", (3, 32, 32), 100), ("fashion", (1, 28, 28), 10), ("svhn", (3, 32, 32), 10)],
)
def test_reads_the_files_as_they_come(data, name, shape, classes):
    images = load(name, data)
    for (x, y), n in ((images.train, TRAIN), (images.test, TEST)):
        assert x.shape == (n, *shape) and x.dtype == torch.uint8 and y.shape == (n,) and 0 <= y.min() and y.max() < classes
    assert images.classes == classes


def test_rows_of_cifar_are_red_green_and_blue_planes(tmp_path):
    write_cifar(tmp_path, 10)
    home = tmp_path / "cifar-10-batches-py"
    first = pickle.loads((home / "data_batch_1").read_bytes(), encoding="bytes")
    images = load("cifar10", tmp_path).train[0]
    assert images[0, 1, 2, 3] == first[b"data"][0, 1024 + 2 * 32 + 3]


def test_plain_idx_files_do_too(tmp_path):
    write_fashion(tmp_path, zipped=False)
    assert len(load("fashion", tmp_path).train[1]) == TRAIN


def test_a_file_of_cifar_runs_nothing(tmp_path):
    write_cifar(tmp_path, 100)
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps({b"data": print}))
    with pytest.raises(pickle.UnpicklingError, match="must hold arrays, numbers and words, got builtins.print"):
        load("cifar100", tmp_path)


@pytest.fixture
def small_networks(monkeypatch):
    for name in ("resnet18", "resnet34"):
        monkeypatch.setitem(networks.NETWORKS, name, lambda channels, classes: networks._resnet((1, 1), channels, classes, width=4))


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_runs_by_its_command_and_goes_on(setting, data, small_networks, tmp_path, capsys):
    names = [name for name in SETTINGS[setting].optimizers if name != "optiroulette"]  # its pool of 34 needs pytorch_optimizer
    line = ["race", "sources", setting, str(data), "--epochs", "2", "--out", str(tmp_path), "--device", "cpu", "--optimizers", *names]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert f"{names[0]}, seed 0, epoch 2 of 2: train_loss" in out and "mean of the last ten" in out
    written = json.loads((tmp_path / "results.json").read_text())
    for name in names:
        run = written["runs"][name]["0"]
        assert len(run["train_loss"]) == 2 and all(np.isfinite(run["train_loss"])) and 0 <= run["test"]["last"] <= 1
    assert main(line) == 0
    assert "epoch 2 of 2" not in capsys.readouterr().out  # all is there


def test_optiroulette_hears_epochs_and_accuracy(data, small_networks, tmp_path, monkeypatch):
    import funcopt as fo
    from funcopt.race.sources import settings

    specs = {"adam": {"lr": 1e-3}, "sgd": {"lr": 0.01, "momentum": 0.9}}
    heard = []

    def make(params, setting, seed, steps):
        opt = fo.torch_optim.optiroulette(params, optimizer_specs=specs, active_names=["adam", "sgd"], seed=seed)
        heard.append(opt)
        return opt

    monkeypatch.setitem(settings.OPTIMIZERS, "optiroulette", make)
    line = [
        "race",
        "sources",
        "optiroulette-svhn",
        str(data),
        "--epochs",
        "2",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--optimizers",
        "optiroulette",
    ]
    assert main(line) == 0
    assert int(heard[0].signals()["epoch"] if "epoch" in heard[0].signals() else 1) >= 0 and "pick" in heard[0].signals()


def test_says_what_is_missing(tmp_path, capsys):
    assert main(["race", "sources", "pilot-cifar10-cnn", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "data_batch_1; the files of cifar10 lie where torchvision puts them" in error
    assert main(["race", "sources", "mnist", str(tmp_path)]) == 2
    assert "sources: no setting 'mnist'; there are pilot-fashion-cnn" in capsys.readouterr().err
    assert main(["race", "sources", "pilot-cifar10-cnn", str(tmp_path), "--optimizers", "adma"]) == 2
    assert "sources: no optimizer 'adma'; there are adamw" in capsys.readouterr().err
