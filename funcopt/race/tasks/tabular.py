"""Tables of scikit-learn: breast cancer (569 rows of 30), wine (178 of 13), diabetes (442 of 10), and a perceptron with one hidden layer.

Nothing is downloaded. Sources: Street, Wolberg and Mangasarian 1993; Aeberhard and Forina 1991 (UCI); Efron, Hastie, Johnstone and
Tibshirani, "Least angle regression", 2004.
"""

import torch
from torch import Tensor

from funcopt.race.extras import need
from funcopt.race.tasks.digits import splits
from funcopt.race.tasks.parts import Task, classification, initial, linear, regression

__all__ = ["table_mlp"]

TABLES = {"cancer": ("load_breast_cancer", 2), "wine": ("load_wine", 3), "diabetes": ("load_diabetes", 1)}  # loader, outputs


def table_mlp(table: str = "cancer", hidden: int = 32, *, fold: int | None = None) -> Task:
    """A table of numbers, and a perceptron with one hidden layer of ReLU.

    Args:
        table: "cancer" or "wine" (classes), or "diabetes" (regression: the disease's progression, standardised).
        hidden: units, >= 1.
        fold: deals the rows that are not for the test out anew, by this number, to train, validation and test, >= 0: for choosing
            settings on more than one small split, without a look at the test. None: the split of the race.

    Raises:
        ValueError: an argument is out of its range.
        ImportError: scikit-learn is not installed.
    """
    if table not in TABLES:
        raise ValueError(f"table_mlp: table must be one of {', '.join(TABLES)}, got {table!r}")
    if hidden < 1:
        raise ValueError(f"table_mlp: hidden must be >= 1, got {hidden}")
    if fold is not None and fold < 0:
        raise ValueError(f"table_mlp: fold must be >= 0, or None for the split of the race, got {fold}")
    loader, outputs = TABLES[table]
    rows, targets = getattr(need("sklearn.datasets", "scikit-learn"), loader)(return_X_y=True)
    classes = outputs > 1
    if not classes:
        targets = (targets - targets.mean()) / targets.std()
    data = splits(rows, targets, True, stratify=classes, per_column=True, fold=fold)
    shapes = {"hidden": (hidden, rows.shape[1]), "out": (outputs, hidden)}

    def answers(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        found = linear(params, "out", torch.relu(linear(params, "hidden", inputs)))
        return found if classes else found[..., 0]

    make = classification if classes else regression
    return make(table, lambda key: initial(key, shapes), answers, data, steps=600, batch_size=32)
