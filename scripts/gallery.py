"""The pictures of docs/gallery.md, which stand on the pages of the reference too, drawn anew.

    python scripts/gallery.py                    all of them, into docs/gallery, and docs/gallery.md; a minute
    python scripts/gallery.py valley schedules   those alone

A picture is a function of PICTURES that draws and returns a matplotlib figure. Needs matplotlib and scikit-learn (".[race]").
"""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import funcopt as fo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FOLDER", "PAGE", "PICTURES", "Picture", "page"]

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PAGE = ROOT / "docs" / "gallery", ROOT / "docs" / "gallery.md"
DPI = 90
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#7F7F7F"


class Picture(NamedTuple):
    """One of them."""

    title: str
    sentence: str  # what is to be seen
    names: tuple[str, ...]  # public ones, on whose pages of the reference it stands, too
    draw: "Callable[[], Figure]"


# --- what is trained ------------------------------------------------------------------------------------------------------------


def valley(p: Tensor) -> Tensor:
    """Rosenbrock's, ten times as flat: the lowest point is (1, 1)."""
    return (1 - p[0]).square() + 10 * (p[1] - p[0].square()).square()


def lattice(number: int = 80) -> tuple[Tensor, Tensor, Tensor]:
    x, y = torch.meshgrid(torch.linspace(-2, 2, number), torch.linspace(-1.2, 2.8, number), indexing="xy")
    return x, y, (1 + valley(torch.stack([x, y]))).log()


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def perceptron() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    w1, w2 = torch.randn(64, 32, generator=generator) / 8, torch.randn(32, 10, generator=generator) / 6
    return {"w1": w1, "b1": torch.zeros(32), "w2": w2, "b2": torch.zeros(10)}


def loss_fn(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(torch.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"], y)


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = digits()
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,), generator=generator)
        yield x[chosen], y[chosen]


def history(tx: fo.GradientTransformation, steps: int = 400) -> list[dict[str, Any]]:
    """Loss and words of every step on the digits."""
    params = perceptron()
    state, told = tx.init(params), []
    for x, y in batches(steps):
        grads, loss = torch.func.grad_and_value(loss_fn)(params, x, y)
        updates, state = tx.update(grads, state, params, loss=loss)
        params = fo.apply_updates(params, updates)
        told.append({"loss": loss, **fo.read_signals(state)})
    return told


# --- pictures -------------------------------------------------------------------------------------------------------------------

VALLEY: dict[str, Callable[[float], fo.GradientTransformation]] = {
    "sgd": lambda lr: fo.sgd(lr),
    "sgd, momentum 0.9": lambda lr: fo.sgd(lr, 0.9),
    "rmsprop": lambda lr: fo.rmsprop(lr),
    "adam": lambda lr: fo.adam(lr),
    "nadam": lambda lr: fo.nadam(lr),
    "adabelief": lambda lr: fo.adabelief(lr),
    "adan": lambda lr: fo.adan(lr),
    "lion": lambda lr: fo.lion(lr),
    "adagrad": lambda lr: fo.adagrad(lr),
    "signum": lambda lr: fo.signum(lr),
    "rprop": lambda lr: fo.rprop(lr),
    "pilot": lambda lr: fo.pilot(lr),
}
STEPS, RATES = 80, [10 ** (-exponent / 4) for exponent in range(18)]


def walk(tx: fo.GradientTransformation, steps: int = STEPS) -> Tensor:
    """Where the steps lead from (-1.5, 2.2), [steps + 1, 2]."""
    p = torch.tensor([-1.5, 2.2])
    state, seen = tx.init(p), [p]
    for _ in range(steps):
        grad, loss = torch.func.grad_and_value(valley)(p)
        updates, state = tx.update(grad, state, p, loss=loss)
        p = fo.apply_updates(p, updates)
        seen.append(p)
    return torch.stack(seen)


def draw_valley() -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.6), layout="constrained")
    x, y, height = lattice()
    for axes, (name, make) in zip(figure.subplots(3, 4, sharex=True, sharey=True).flat, VALLEY.items(), strict=True):
        paths = {lr: walk(make(lr)) for lr in RATES}
        lr, path = min(paths.items(), key=lambda pair: float(valley(pair[1][-1]).nan_to_num(torch.inf)))
        axes.contour(x, y, height, 12, cmap="Greys", linewidths=0.5)
        axes.plot(*path.T, ".-", color=BLUE, linewidth=1, markersize=3)
        axes.plot(1, 1, "*", color=ORANGE, markersize=9)
        axes.set_title(f"{name}, lr {lr:.2g}: {valley(path[-1]):.1e}", fontsize=9)
        axes.set(xlim=(-2, 2), ylim=(-1.2, 2.8), xticks=[], yticks=[])
    return figure


def draw_pilot() -> "Figure":
    return fo.viz.signals(history(fo.pilot(3e-3, lr_phi=0.05)))


def draw_roulette() -> "Figure":
    pool = {
        "adam": fo.Member(fo.scale_by_adam(), lr=3e-3),
        "momentum": fo.Member(fo.trace(0.9), lr=1e-1),
        "lion": fo.Member(fo.scale_by_lion(), lr=1e-3),
    }
    return fo.viz.signals(history(fo.chain(fo.roulette(pool, every=40, seed=3), fo.lr_scale())))


def draw_aees() -> "Figure":
    return fo.viz.signals(history(fo.aees(fo.adamw(3e-3), lr_candidates=(0.5, 1.0, 2.0), episode_length=20, seed=0)))


def draw_adaptive() -> "Figure":
    return fo.viz.signals(history(fo.adaptive(fo.adamw, lr=fo.rules.trend(2e-3) * fo.rules.variance(), b1="relative")))


def draw_rates() -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for start, colour in zip((1e-7, 1e-5, 1e-3), (BLUE, ORANGE, GREY), strict=True):
        told = history(fo.rate_free(start=start), 300)
        left.plot([float(said["lr"]) for said in told], color=colour, label=f"from {start:g}")
        right.plot([float(said["loss"]) for said in told], color=colour, linewidth=0.8)
    left.set(yscale="log", title="lr of rate_free", xlabel="step")
    right.set(title="loss of the batch", xlabel="step")
    left.legend()
    return figure


SEARCHES = {
    "SNES": lambda: fo.es.snes(20, 0.5),
    "separable CMA-ES": lambda: fo.es.sep_cma_es(20, 0.5),
    "xNES": lambda: fo.es.xnes(20, 0.5),
    "CMA-ES": lambda: fo.es.cma_es(20, 0.5),
}


def draw_searches() -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.9), layout="constrained")
    x, y, height = lattice()
    evaluate = fo.es.evaluator(valley)
    for axes, (name, make) in zip(figure.subplots(1, 4, sharey=True), SEARCHES.items(), strict=True):
        search = make()
        state = search.init(torch.tensor([-1.5, 2.2]), key=1)
        centers = [search.center(state)]
        axes.contour(x, y, height, 12, cmap="Greys", linewidths=0.5)
        for generation in range(60):
            population, state = search.ask(state)
            state = search.tell(state, evaluate(population))
            centers.append(search.center(state))
            if generation % 6 == 0:
                axes.scatter(*population.stacked().T, s=4)
        axes.plot(*torch.stack(centers).T, "k.-", linewidth=0.8, markersize=2)
        axes.plot(1, 1, "*", color=ORANGE, markersize=9)
        axes.set_title(f"{name}: best {search.best(state)[1]:.0e}", fontsize=9)
        axes.set(xlim=(-2, 2), ylim=(-1.2, 2.8), xticks=[], yticks=[])
    return figure


def draw_restarts() -> "Figure":
    def rastrigin(params: dict) -> Tensor:
        return (params["x"].square() - 10 * torch.cos(2 * torch.pi * params["x"]) + 10).sum()

    box = fo.es.domain({"x": (-5.0, 5.0)})
    search = fo.es.restarts(fo.es.cma_es, sigma=2.0, start=box.uniform)
    seen = fo.es.run(search, box.of(rastrigin), {"x": torch.full((4,), 3.0, dtype=torch.float64)}, 3, 420)
    return fo.viz.search(seen, logarithmic=True)


def draw_compared() -> "Figure":
    weights = torch.logspace(0, 6, 20, dtype=torch.float64)

    def ellipsoid(x: Tensor) -> Tensor:
        return (weights * x.square()).sum()

    searches = {"snes": fo.es.snes(sigma=0.5), "sep_cma_es": fo.es.sep_cma_es(sigma=0.5), "cma_es": fo.es.cma_es(sigma=0.5)}
    seen = {name: fo.es.run(search, ellipsoid, torch.ones_like(weights), 0, 700) for name, search in searches.items()}
    return fo.viz.search(seen, logarithmic=True)


def draw_moons() -> "Figure":
    from matplotlib.figure import Figure
    from sklearn.datasets import make_moons

    points, side = (torch.tensor(a) for a in make_moons(400, noise=0.15, random_state=0))
    points = points.float()

    def decide(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return (torch.tanh(torch.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]) @ p["w3"]).argmax(-1)

    def accuracy(p: dict[str, Tensor]) -> Tensor:
        return (decide(p, points) == side).float().mean()

    shapes = {"w1": (2, 16), "b1": (16,), "w2": (16, 16), "b2": (16,), "w3": (16, 2)}
    params = first = {name: 0.5 * fo.random.normal(fo.random.fold_in(0, i), shape) for i, (name, shape) in enumerate(shapes.items())}
    tx, grad_fn = fo.adam(0.1), fo.es.grad(accuracy, popsize=128, sigma=0.2, maximize=True)
    state, means = tx.init(params), []
    for generation in range(60):
        grads, info = grad_fn(params, key=generation)
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)
        means.append(float(info.mean))
    figure = Figure(figsize=(10, 3), layout="constrained")
    before, after, right = figure.subplots(1, 3)
    x, y = torch.meshgrid(torch.linspace(-1.6, 2.6, 120), torch.linspace(-1.2, 1.7, 120), indexing="xy")
    for axes, p, title in ((before, first, "before"), (after, params, "after")):
        axes.contourf(x, y, decide(p, torch.stack([x, y], -1)), cmap="coolwarm", alpha=0.3)
        axes.scatter(*points.T, c=side, cmap="coolwarm", s=6)
        axes.set(title=f"{title}: {100 * accuracy(p):.0f} % right", xticks=[], yticks=[])
    right.plot(means, color=BLUE)
    right.set(title="mean accuracy of the copies", xlabel="generation")
    return figure


def curves() -> dict[str, Callable[[Tensor], Any]]:
    s = fo.schedules
    return {
        "linear": s.linear_schedule(1.0, 0.0, 100),
        "cosine_decay": s.cosine_decay_schedule(1.0, 100),
        "exponential_decay": s.exponential_decay(1.0, 20, 0.5),
        "polynomial": s.polynomial_schedule(1.0, 0.0, 2, 100),
        "piecewise_constant": s.piecewise_constant_schedule(1.0, {40: 0.5, 70: 0.2}),
        "warmup_cosine_decay": s.warmup_cosine_decay_schedule(0.0, 1.0, 20, 100),
        "cosine_onecycle": s.cosine_onecycle_schedule(100, 1.0),
        "warmup_stable_decay": s.warmup_stable_decay_schedule(0.0, 1.0, 15, 100, 30),
        "rex_decay": s.rex_decay_schedule(1.0, 100),
    }


def draw_schedules() -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for axes, (name, schedule) in zip(figure.subplots(3, 3, sharex=True, sharey=True).flat, curves().items(), strict=True):
        axes.plot([float(schedule(torch.tensor(count))) for count in range(101)], color=BLUE)
        axes.set_title(name, fontsize=9)
    return figure


def draw_population() -> "Figure":
    from matplotlib.figure import Figure

    rates = torch.logspace(-4, 0, 24, dtype=torch.float64)
    step = fo.population.make_step(loss_fn, lambda lr: fo.adam(lr), hyper={"lr": rates})
    params, state = step.init(fo.population.stack([perceptron()] * len(rates)))
    losses = []
    for x, y in batches(200):
        params, state, loss = step(params, state, x, y)
        losses.append(loss)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    smooth = torch.stack(losses).unfold(0, 20, 20).mean(-1)  # [points, lanes]
    for lane, colour in enumerate(torch.linspace(0, 1, len(rates)).tolist()):
        left.plot(range(20, 201, 20), smooth[:, lane], color=(colour, 0.45, 1 - colour), linewidth=0.9)
    left.set(yscale="log", title="loss, blue 1e-4 to red 1", xlabel="step")
    right.plot(rates, smooth[-1], ".-", color=BLUE)
    right.set(xscale="log", yscale="log", title="loss of the last 20 steps, by rate", xlabel="lr of Adam")
    return figure


PICTURES = {
    "valley": Picture(
        "One valley, twelve ways down",
        f"{STEPS} steps from one point, each at the best of {len(RATES)} rates; the star is the lowest point, the number what is reached.",
        ("sgd", "rmsprop", "adam", "nadam", "adabelief", "adan", "lion", "adagrad", "signum", "rprop"),
        draw_valley,
    ),
    "schedules": Picture("Schedules", "Nine of `fo.schedules` over a hundred steps.", ("schedules.linear_schedule",), draw_schedules),
    "pilot": Picture("PILOT", "Three knobs turned by how far successive gradients agree, on handwritten digits.", ("pilot",), draw_pilot),
    "roulette": Picture("OptiRoulette", "Every forty steps another member of the pool is drawn.", ("roulette",), draw_roulette),
    "aees": Picture("PulseOpt", "A bandit stretches the steps of AdamW, episode by episode.", ("aees", "ucb_episodes"), draw_aees),
    "adaptive": Picture("AdaptiveOptimizer", "Rate and momentum follow the loss.", ("adaptive",), draw_adaptive),
    "rates": Picture(
        "The rate that finds itself",
        "Three starts, four orders of magnitude apart.",
        ("find_rate", "rate_free"),
        draw_rates,
    ),
    "population": Picture(
        "A sweep in one step", "Twenty-four rates of Adam, as lanes of one vmapped step.", ("population.make_step",), draw_population
    ),
    "moons": Picture(
        "Training on accuracy",
        "A network judged by the share of points on the right side, by `fo.es.grad`.",
        ("es.grad",),
        draw_moons,
    ),
    "searches": Picture(
        "Searches",
        "Sixty generations of twenty; the dots are members, the line is the center.",
        ("es.snes", "es.sep_cma_es", "es.xnes", "es.cma_es"),
        draw_searches,
    ),
    "restarts": Picture(
        "What `fo.es.run` returns",
        "Drawn by `fo.viz.search`: CMA-ES among the valleys of Rastrigin in four dimensions. Where a run has nothing left to learn, "
        "the next\nbegins with a larger population: sigma jumps up.",
        ("viz.search", "es.restarts", "es.run"),
        draw_restarts,
    ),
    "compared": Picture(
        "Searches side by side",
        "Drawn by `fo.viz.search` from a mapping: an ellipsoid in 20 dimensions, whose axes differ by a factor of 1000.",
        ("viz.search",),
        draw_compared,
    ),
}

HEAD = """# Gallery

Pictures made by the library and about it. `python scripts/gallery.py` draws all of this page anew, `python scripts/gallery.py NAME` one
of them: the code of each is a function of `scripts/gallery.py`.
"""
ELSEWHERE = """
## On other pages

| | made by |
|---|---|
| [the race](race.md): curves, and what controllers decided | `make race` |
| [what the starting rate decides](methods/rate.md) | `python examples/rate_sensitivity.py` |
| [rates and curves of all tasks](evidence.md) | `make evidence` |
"""


def page() -> str:
    """docs/gallery.md."""
    parts = [
        f"## {picture.title}\n\n{picture.sentence}\n\n![{picture.title}](gallery/{name}.png)\n\n    python scripts/gallery.py {name}\n"
        for name, picture in PICTURES.items()
    ]
    return "\n".join([HEAD, *parts]) + ELSEWHERE


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(PICTURES))
    if unknown:
        raise SystemExit(f"gallery.py: there is no picture {', '.join(unknown)}; there are {', '.join(PICTURES)}")
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        PICTURES[name].draw().savefig(FOLDER / f"{name}.png", dpi=DPI)
        print((FOLDER / f"{name}.png").relative_to(ROOT), flush=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
