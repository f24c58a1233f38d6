"""The 1797 handwritten digits (8 x 8 pixels, ten classes) of scikit-learn: perceptron, convolutions, wrong labels, a recurrent reader.

Nothing is downloaded. Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits",
UCI Machine Learning Repository, 1998. Wrong labels: Zhang, Bengio, Hardt, Recht and Vinyals,
"Understanding deep learning requires rethinking generalization", 2017.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

import funcopt as fo
from funcopt.race.extras import need
from funcopt.race.tasks.parts import Data, Task, classification, initial, linear

__all__ = ["digits_cnn", "digits_gru", "digits_mlp", "noisy_digits"]

TEST_SHARE = 0.3  # of the 1797 digits: 540 to test on, 1257 to train on
SPLIT_SEED = 0  # the split is part of the task; the seeds of a race do not touch it
CLASSES = 10


def digits_mlp(hidden: int = 64, *, validation: bool = False) -> Task:
    """Handwritten digits, and a perceptron 64 - `hidden` - `hidden` / 2 - 10 with ReLU.

    Args:
        hidden: units of the first hidden layer, >= 2.
        validation: takes 30 % of the training digits out, which are then not trained on, as
            a split "validation": for choosing rates and steps.

    Returns:
        A task of 1257 digits to train on and 540 to test on; with `validation` 30 % of the former are left out of
        training.

    Raises:
        ValueError: `hidden` is below 2.
        ImportError: scikit-learn is not installed.

    Example:
        >>> task = fo.race.digits_mlp(hidden=16)
        >>> params = task.init(fo.random.key(0))
        >>> tuple(params["hidden1.weight"].shape)
        (16, 64)
        >>> {split: len(labels) for split, (inputs, labels) in task.data.items()}
        {'train': 1257, 'test': 540}
    """
    if hidden < 2:
        raise ValueError(f"digits_mlp: hidden must be >= 2, got {hidden}")
    return _perceptron("digits mlp", hidden, digits(validation), measure="error")


def noisy_digits(hidden: int = 64, wrong: float = 0.2, *, validation: bool = True) -> Task:
    """Handwritten digits of which a fifth of the labels to train on is wrong, and the perceptron of `digits_mlp`.

    Args:
        hidden: units of the first hidden layer, >= 2.
        wrong: share of the training labels in place of which another class is drawn, in [0, 1]. Those of
            validation and test are right.
        validation: as for `digits_mlp`.

    Raises:
        ValueError: an argument is out of its range.
        ImportError: scikit-learn is not installed.
    """
    if hidden < 2:
        raise ValueError(f"noisy_digits: hidden must be >= 2, got {hidden}")
    if not 0 <= wrong <= 1:
        raise ValueError(f"noisy_digits: wrong must be in [0, 1], got {wrong}")
    data = digits(validation)
    inputs, labels = data["train"]
    keys = [fo.random.fold_in(fo.random.key(SPLIT_SEED), stream) for stream in range(2)]
    hit = fo.random.uniform(keys[0], labels.shape).argsort() < round(wrong * len(labels))  # exactly that many
    other = (fo.random.uniform(keys[1], labels.shape) * (CLASSES - 1)).long() + 1  # by how many classes it is off: 1 to 9
    data["train"] = inputs, torch.where(hit, (labels + other) % CLASSES, labels)
    return _perceptron("noisy digits", hidden, data, steps=1000, batch_size=50, measure="error")


def digits_cnn(channels: int = 8, *, validation: bool = False) -> Task:
    """Handwritten digits, and two 3 x 3 convolutions, each with ReLU and 2 x 2 max-pooling, then a linear layer.

    Args:
        channels: of the first convolution, >= 1; the second has twice as many.
        validation: as for `digits_mlp`.

    Returns:
        A task of 1257 digits to train on and 540 to test on; with `validation` 30 % of the former are left out of
        training.

    Raises:
        ValueError: `channels` is below 1.
        ImportError: scikit-learn is not installed.

    Example:
        >>> task = fo.race.digits_cnn(channels=4)
        >>> {name: tuple(p.shape) for name, p in task.init(fo.random.key(0)).items() if name.endswith("weight")}
        {'conv1.weight': (4, 1, 3, 3), 'conv2.weight': (8, 4, 3, 3), 'out.weight': (10, 32)}
    """
    if channels < 1:
        raise ValueError(f"digits_cnn: channels must be >= 1, got {channels}")
    shapes = {"conv1": (channels, 1, 3, 3), "conv2": (2 * channels, channels, 3, 3), "out": (CLASSES, 8 * channels)}

    def logits(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        h = inputs.reshape(-1, 1, 8, 8)
        for layer in ("conv1", "conv2"):
            h = F.conv2d(h, params[f"{layer}.weight"], params[f"{layer}.bias"], padding=1)
            h = F.max_pool2d(torch.relu(h), 2)
        return linear(params, "out", h.flatten(1))

    return classification("digits cnn", lambda key: initial(key, shapes), logits, digits(validation), measure="error")


def digits_gru(hidden: int = 24, *, validation: bool = True) -> Task:
    """Handwritten digits, read row by row from the top by a gated recurrent unit whose last state tells the class.

        r, z = sigmoid(W_r [x, h]), sigmoid(W_z [x, h]);  n = tanh(W_n [x, r h]);  h = (1 - z) n + z h

    Args:
        hidden: entries of the state, >= 1.
        validation: as for `digits_mlp`.

    Raises:
        ValueError: `hidden` is below 1.
        ImportError: scikit-learn is not installed.

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.
    """
    if hidden < 1:
        raise ValueError(f"digits_gru: hidden must be >= 1, got {hidden}")
    shapes = {"gates": (2 * hidden, 8 + hidden), "new": (hidden, 8 + hidden), "out": (CLASSES, hidden)}

    def logits(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, 8, 8)
        h = rows.new_zeros(len(rows), hidden)
        for i in range(8):
            x = rows[:, i]
            r, z = torch.sigmoid(linear(params, "gates", torch.cat([x, h], 1))).chunk(2, 1)
            h = (1 - z) * torch.tanh(linear(params, "new", torch.cat([x, r * h], 1))) + z * h
        return linear(params, "out", h)

    return classification("digits gru", lambda key: initial(key, shapes, 1.0), logits, digits(validation), steps=1000, batch_size=50)


def digits(validation: bool) -> Data:
    """The digits, split by class with a fixed seed, standardised by what the training part shows."""
    images, labels = need("sklearn.datasets", "scikit-learn").load_digits(return_X_y=True)
    # one scale for all pixels: those in the corners are constant
    return splits(images, labels, validation, stratify=True, per_column=False)


def splits(rows, targets, validation: bool, *, stratify: bool, per_column: bool, fold: int | None = None) -> Data:
    """Train, validation if wanted, and test, always the same; rows standardised by what the training part shows, targets as they are.

    fold: another deal, by this number, of the rows that are not for the test, into as many parts; None: the one above.
    """
    train_test_split = need("sklearn.model_selection", "scikit-learn").train_test_split

    def split(rows, targets, seed: int):
        return train_test_split(rows, targets, test_size=TEST_SHARE, random_state=seed, stratify=targets if stratify else None)

    if fold is not None:
        rows, _, targets, _ = split(rows, targets, SPLIT_SEED)
    parts = {}
    for name in ("test", "validation") if validation else ("test",):
        rows, part, targets, own = split(rows, targets, SPLIT_SEED if fold is None else fold)
        parts[name] = part, own
    axis = 0 if per_column else None
    mean, deviation = rows.mean(axis), rows.std(axis)
    dtype = torch.int64 if stratify else torch.float32

    def tensors(rows, targets) -> tuple[Tensor, Tensor]:
        return torch.tensor((rows - mean) / deviation, dtype=torch.float32), torch.tensor(targets, dtype=dtype)

    return {"train": tensors(rows, targets)} | {name: tensors(*parts[name]) for name in ("validation", "test") if name in parts}


def _perceptron(name: str, hidden: int, data: Data, **settings) -> Task:
    shapes = {"hidden1": (hidden, 64), "hidden2": (hidden // 2, hidden), "out": (CLASSES, hidden // 2)}

    def logits(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        h = torch.relu(linear(params, "hidden1", inputs))
        return linear(params, "out", torch.relu(linear(params, "hidden2", h)))

    return classification(name, lambda key: initial(key, shapes), logits, data, **settings)
