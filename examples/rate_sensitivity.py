"""The picture of README's first screen: what the starting rate decides, with AdamW and with the rate that finds itself.

    python examples/rate_sensitivity.py                              # half a minute; the picture is runs/rate.png
    python examples/rate_sensitivity.py --readme README.md           # docs/rate.png too, and the sentence below it in README

A perceptron learns handwritten digits from every starting rate and seed at once: each is a lane of one vmapped step, with the
same initial parameters and the same order of data for both methods. AdamW keeps its rate; `rate_free` begins at it.
Shown is the loss on test digits after the
last step (of `rate_free` at its averaged params), the mean over seeds and its 95 % interval. Needs scikit-learn and matplotlib.
"""

import argparse
import time
from pathlib import Path

import matplotlib.ticker
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch.func import vmap

import funcopt as fo
from funcopt import race

RATES = tuple(float(f"{10 ** (exponent / 2):.1g}") for exponent in range(-14, -2))  # 1e-7, 3e-7, ... 3e-2
COLOURS = ("#7F7F7F", "#0072B2")
METHODS = {"AdamW": lambda rate: fo.adamw(rate), "rate_free": lambda rate: fo.rate_free(start=rate)}


def final_losses(task, make, seeds, steps, batch_size):
    """Test loss after the last step, [rates, seeds]."""
    rates = torch.tensor(RATES, dtype=torch.float64).repeat_interleave(seeds)
    keys = torch.stack([fo.random.fold_in(fo.random.key(seed), 0) for seed in range(seeds)]).repeat(len(RATES), 1)
    inputs, labels = task.data["train"]
    step = fo.population.make_step(task.loss, make, hyper={"rate": rates}, in_dims=0)
    params, state = step.init(task.init, keys)
    batches = len(inputs) // batch_size
    for count in range(steps):
        epoch, i = divmod(count, batches)
        if i == 0:
            order = fo.population.permutations(keys, len(inputs), epoch)
        rows = order[:, i * batch_size : (i + 1) * batch_size]
        params, state, _ = step(params, state, (inputs[rows], labels[rows]))
    averaged = vmap(fo.averaged_params)(state.inner, params)
    with torch.no_grad():
        loss, _ = vmap(lambda params: task.evaluate(params, "test"))(averaged)
    return loss.reshape(len(RATES), seeds)


def interval(losses):
    """Mean over seeds and half of its 95 % interval, each [rates]."""
    n = losses.shape[1]
    half = float(stats.t.ppf(0.975, n - 1)) * losses.std(1) / n**0.5
    return losses.mean(1).numpy(), half.numpy()


def table(found):
    lines = [f"{'starting rate':>13}  " + "  ".join(f"{name:>15}" for name in found)]
    for i, rate in enumerate(RATES):
        cells = [f"{mean[i]:.3f} ± {half[i]:.3f}" for mean, half in found.values()]
        lines.append(f"{rate:>13.0e}  " + "  ".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)


def sentence(found, steps, batch_size, seeds):
    """What the picture shows, for the lines below it."""
    (adamw, _), (free, _) = found.values()
    below = [i for i, rate in enumerate(RATES) if rate <= 1e-2]
    flat, best = free[below], int(adamw.argmin())
    return (
        f"Test loss of a perceptron on handwritten digits after {steps} steps of {batch_size}, {seeds} seeds, mean and 95 % interval, "
        "by starting "
        "rate.\n"
        f"From every rate between {RATES[0]:.0e} and 1e-02 `rate_free` ends between {flat.min():.3f} and {flat.max():.3f}; "
        "AdamW, which keeps its rate,\n"
        f"at {adamw[0]:.3f} with {RATES[0]:.0e} and at {adamw[best]:.3f} with {RATES[best]:.0e}, the best of the {len(RATES)}. "
        f"From {RATES[-1]:.0e}, where AdamW has {adamw[-1]:.3f}, it ends at {free[-1]:.3f}."
    )


def into_readme(path, text):
    """Puts the sentence between its two marks."""
    first, last = "<!-- by examples/rate_sensitivity.py -->", "<!-- end -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(first)
    path.write_text(f"{before}{first}\n{text}\n{last}{rest.partition(last)[2]}", encoding="utf-8")


def picture(found, title, path):
    """Loss against starting rate, both logarithmic; a white ground, so that it reads on dark pages too."""
    figure = Figure(figsize=(8, 3.4), dpi=130, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for (name, (mean, half)), colour in zip(found.items(), COLOURS, strict=True):
        axes.fill_between(RATES, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)
        axes.plot(RATES, mean, color=colour, marker="o", markersize=4, linewidth=2, label=name)
    axes.set(xscale="log", yscale="log", xlabel="starting rate", ylabel="loss on test digits")
    axes.set_title(title, loc="left", fontsize=10)
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0, 0.6))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2, for the interval")
    parser.add_argument("--steps", type=int, default=600, help="updates of each")
    parser.add_argument("--batch-size", type=int, default=64, help="rows of an update")
    parser.add_argument("--out", type=Path, default=Path("runs/rate.png"), help="the picture")
    parser.add_argument("--readme", type=Path, help="README.md: the sentence goes into it, the picture into docs/rate.png beside it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # networks this small only wait for a second thread
    task, started = race.digits_mlp(), time.perf_counter()
    found = {
        name: interval(final_losses(task, make, arguments.seeds, arguments.steps, arguments.batch_size)) for name, make in METHODS.items()
    }
    print(
        f"handwritten digits, a perceptron: test loss after {arguments.steps} steps of {arguments.batch_size}, {arguments.seeds} seeds, "
        "mean and 95 % interval"
    )
    print(table(found))
    said = sentence(found, arguments.steps, arguments.batch_size, arguments.seeds)
    print(f"\n{said}\n")
    out = arguments.out if arguments.readme is None else arguments.readme.parent / "docs" / "rate.png"
    picture(found, f"Handwritten digits after {arguments.steps} steps, {arguments.seeds} seeds: mean and 95 % interval", out)
    if arguments.readme is not None:
        into_readme(arguments.readme, said)
    print(f"{time.perf_counter() - started:.0f} s; picture: {out}")


if __name__ == "__main__":
    main()
