"""Optimizer: any transformation as a `torch.optim.Optimizer`, for loops and trainers that exist already.

    g_t            = p.grad of every parameter that has one
    updates, state = tx.update(g_t, state, p_{t-1}, signals={"base_lr": group["lr"]}, loss=loss)
    p_t            = p_{t-1} + updates, written in place

Parameters are one tree `{name: tensor}`. State is where torch keeps it, in tensors and
plain containers (`storage.py`); who shares counters with whom is told in `units.py`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, overload

import torch
from torch import Tensor

from funcopt.core import check
from funcopt.core.protocol import GradientTransformation
from funcopt.core.versions import compiling, untraced
from funcopt.execute.downhill import warn_of_climbing, warn_of_leaves_that_climb
from funcopt.execute.probe import vouch, vouch_search
from funcopt.torch_optim import interchange, saving, steering
from funcopt.torch_optim.engine import Engine, Flat, OnMissing, Options, StateDtype
from funcopt.torch_optim.groups import Params, check_rate, members, named_apart, refuse_no_params, refuse_tied, warn_of_lacking
from funcopt.torch_optim.hyperparameters import Fixed
from funcopt.torch_optim.refuse_shards import refuse_dealt
from funcopt.torch_optim.run import traced
from funcopt.torch_optim.storage import ENTRY

__all__ = ["Optimizer"]

Value = TypeVar("Value")

FLAGS = ("maximize", "capturable", "compile")
INSTEAD = {
    "foreach": "compile=True",
    "fused": "compile=True",
    "differentiable": "the functional loop, where every hyperparameter may require grad",
}


class Optimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` around any transformation.

    Args:
        params: tensors, dicts (groups) or pairs of a name and a tensor, as in torch.
        transformation: a `GradientTransformation`, or a function without arguments that
            makes one (with a function of a module the optimizer can be pickled).
        lr: the rate, if the transformation leaves it to the loop (`fo.adamw(None)`): a
            number, or a tensor of one element, which schedulers change in place. A
            transformation with a rate of its own takes none here; its groups then have
            `lr` 1.0, by which finished updates are multiplied, so that schedulers work.
        maximize: go uphill.
        compile: put update and addition into one graph, which is not compiled again as
            rates, counts and losses change (torch 2.10 or newer, else eagerly).
        flat: run on one vector. "auto": where that is faster, parameters stay where they
            are. True: they become views of the vector, the fastest form for many small ones.
        capturable: counters on the device of the parameters, at addresses that stay.
        process_group: over which losses, rewards and metrics are averaged before use
            where torch.distributed is initialised. None: all ranks. False: not at all.
        on_missing: of a loss (epoch, ...) that a link declares that it `needs`: "raise", or
            "hold" for a controller that goes on as it is: it is told NaN, or the last epoch.
        state_dtype: "auto" keeps the state of half precision parameters in float32 and
            adds in float32; None keeps that of bfloat16 in bfloat16.
        foreach, fused, differentiable: for calls written for torch; not True.

    Raises:
        ValueError: as torch does; `lr` is missing or there is one too many; `flat=True`
            for a transformation that looks at each leaf.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> opt = fo.torch_optim.Optimizer([w], fo.chain(fo.sign(), fo.lr_scale()), lr=0.5)
        >>> (w**2).sum().backward()
        >>> opt.step()
        >>> w.data, opt.effective_lrs()
        (tensor([ 0.5000, -1.5000]), [0.5])
    """

    _engine: Engine
    check_params: ClassVar[Callable[..., None] | None] = None  # a class that takes only certain parameters

    def __init__(
        self,
        params: Params,
        transformation: GradientTransformation | Callable[[], GradientTransformation],
        *,
        lr: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: Flat = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: OnMissing = "raise",
        state_dtype: StateDtype | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ):
        recipe = Fixed(transformation)
        if not recipe.hears_rate and lr is not None:
            raise ValueError(
                f"{type(self).__name__}: lr must not be given, since {recipe.tx.name} has its own rate; "
                "leave it out, or make the transformation with lr=None"
            )
        given = {"lr": (lr if recipe.hears_rate else 1.0), "maximize": maximize, "capturable": capturable}
        options = {"compile": compile, "flat": flat, "process_group": process_group, "on_missing": on_missing, "state_dtype": state_dtype}
        self._begin(params, recipe, given, options, {"foreach": foreach, "fused": fused, "differentiable": differentiable})

    def _begin(self, params: Params, recipe: Any, defaults: dict[str, Any], options: dict[str, Any], elsewhere: dict[str, Any]) -> None:
        for name, value in (*defaults.items(), *options.items()):
            if name in FLAGS:
                check.flag(type(self).__name__, name, value)
        for name, value in elsewhere.items():
            if value is not None:
                check.flag(type(self).__name__, name, value)
            if value:
                raise ValueError(f"{type(self).__name__}: {name} must be False or None, got {value!r}; use {INSTEAD[name]}")
        refuse_dealt(type(self).__name__, recipe.per_leaf)
        settled = Options(type(self).__name__, capturable=defaults["capturable"], **options)
        self._engine = Engine(recipe, settled)
        if defaults["lr"] is not None:
            check_rate(defaults["lr"])
        refuse_no_params(type(self).__name__, params)
        sample = recipe.sampled()
        warn_of_climbing(type(self).__name__, sample)
        super().__init__(params, defaults)
        tree = {member.key: member.param for member in members(self.param_groups)}
        vouch(sample, tree)
        vouch_search(sample, tree)
        warn_of_leaves_that_climb(type(self).__name__, sample, tree)

    # --- groups ---

    @untraced
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, at any time; its parameters begin with counters of their own where the method has them."""
        engine = self._engine
        if isinstance(param_group, dict):
            param_group = named_apart(param_group)
            own = None if engine.recipe.hears_rate or engine.recipe.rate != 1.0 else param_group.get("lr", 1.0)
            if own is not None and not isinstance(own, Tensor) and own != 1.0:
                raise ValueError(
                    f"{type(self).__name__}: a group must not have an lr of its own, since the transformation has its own rate"
                )
            lr = param_group.get("lr", self.defaults["lr"])
            if lr is None:
                raise ValueError(
                    f"{type(self).__name__}: needs lr, since no link of the transformation says 'base_lr'; pass lr= (a link of your own "
                    "that says it declares must_be_heard=('base_lr',))"
                )
            check_rate(lr)
            for name in ("maximize", "capturable"):
                check.flag(type(self).__name__, name, param_group.get(name, False))
            check_params = type(self).check_params
            if check_params is not None and not isinstance(param_group.get("params"), (Tensor, set)):
                for param in param_group["params"]:
                    check_params(type(self).__name__, param)
            warn_of_lacking(type(self).__name__, param_group, self.defaults)
            engine.recipe.check({**self.defaults, **param_group}, self.param_groups)
        if isinstance(param_group, dict) and "params" not in param_group:
            raise ValueError(f"{type(self).__name__}: a group must have 'params', got {', '.join(map(str, param_group)) or 'nothing'}")
        super().add_param_group(param_group)
        if "param_names" not in param_group and any("param_names" in group for group in self.param_groups):
            self.param_groups.pop()
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group without names to the optimizer"
            )
        try:
            refuse_tied(self.param_groups)
        except ValueError:
            self.param_groups.pop()
            raise
        engine.forget()

    @untraced
    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in torch. A loss observed for gradients that are thrown away here, unused, is forgotten."""
        self._engine.drop_stale(self.param_groups)
        super().zero_grad(set_to_none)

    # --- the step ---

    @overload
    def step(self, closure: None = None, *, loss: Any = None, reward: Any = None, metric: Any = None, **extra: Any) -> None: ...

    @overload
    def step(self, closure: Callable[[], Value], *, loss: Any = None, reward: Any = None, metric: Any = None, **extra: Any) -> Value: ...

    def step(
        self, closure: Callable[[], Any] | None = None, *, loss: Any = None, reward: Any = None, metric: Any = None, **extra: Any
    ) -> Any:
        """One step from the gradients that are there; without any, nothing changes.

        Args:
            closure: computes the loss and the gradients, called once; its value is the
                `loss` if none is given.
            loss, reward, metric: what controllers are told; numbers or 0-dim tensors.
            extra: whatever else the transformation takes, such as `epoch`.

        Returns:
            The value of the closure; None without.

        Raises:
            ValueError: a link needs what was neither given nor observed. Parameters and
                state are as before.
        """
        given = {"loss": loss, "reward": reward, "metric": metric, **extra}
        if compiling() and closure is None and traced.ready(self, given):
            return traced.step(self, given)
        return self._step(closure, given)

    @untraced
    def _step(self, closure: Callable[[], Any] | None, given: dict[str, Any]) -> Any:
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
            if given["loss"] is None and (isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)):
                given["loss"] = value.detach().reshape(()) if isinstance(value, Tensor) else value
        with torch.no_grad():
            self._engine.step(self.param_groups, self.state, given)
        return value

    def observe(self, **told: Any) -> None:
        """Hands over `loss=`, `reward=`, `metric=`, ... for the next step, where a trainer calls `step`.

        A later call overwrites by name. A loss belongs to the gradients that are there at
        the next step; a metric or reward waits for a step that happens.
        """
        self._engine.observe(told, self.param_groups)

    # --- looking in ---

    def signals(self) -> dict[str, Tensor]:
        """All words that the state says, as 0-dim tensors; those of further groups as "group1/word"."""
        return steering.signals(self)

    def effective_lrs(self) -> list[float]:
        """For each group the size of its last step per unit of direction: what `lr_scale` used, times what the group adds."""
        return steering.effective_lrs(self)

    def functional(self) -> Any:
        """The state as the tree of the functional loop, over `{name: parameter}`; a tuple of trees where groups have their own."""
        return steering.functional(self)

    def set_functional(self, state: Any) -> None:
        """Takes over a state in the form of `functional()`; copies."""
        steering.set_functional(self, state)

    def control(self, hook: str, *arguments: Any, **named: Any) -> None:
        """Calls a controller's function on its part of the state, as `fo.control` does: `control("finalize")`, `control("lock", "adam")`.

        Raises:
            ValueError: no link has such a function; tells those that there are.
        """
        steering.control(self, hook, *arguments, **named)

    def train(self, mode: bool = True) -> None:
        """Back from `eval()`: the parameters are those that are trained."""
        steering.train(self, mode)

    def eval(self) -> None:
        """Swaps in the weights for evaluation where the method has some (schedule-free); else nothing."""
        steering.train(self, False)

    def assert_in_sync(self) -> None:
        """Raises a ValueError with the first path at which ranks differ in words, counters or parameters."""
        from funcopt.torch_optim.sync import assert_in_sync

        assert_in_sync(self)

    # --- saving ---

    @untraced
    def state_dict(self) -> dict[str, Any]:
        """As in torch, with what a run needs to go on bit for bit in `group["funcopt"]`."""
        self._engine.note(self.param_groups, self.state)
        return super().state_dict()

    @untraced
    def to_torch_state_dict(self) -> dict[str, Any]:
        """The state in the form of torch's own class, which loads it and goes on.

        Returns:
            A copy, as `torch.optim.AdamW.state_dict()` gives for `adamw`: "state" by the number of the
            parameter, "param_groups" with torch's keys.

        Raises:
            ValueError: torch has no class with this formula; the weights are those of
                evaluation; there is a mask or a schedule, which torch's groups do not hold.

        Example:
            >>> w = torch.nn.Parameter(torch.zeros(1))
            >>> opt = fo.torch_optim.adam([w], betas=(0.75, 0.5))
            >>> w.grad = torch.tensor([4.0])
            >>> opt.step()
            >>> opt.to_torch_state_dict()["state"][0]
            {'step': tensor(1.), 'exp_avg': tensor([1.]), 'exp_avg_sq': tensor([8.])}
        """
        return interchange.to_torch(self)

    @untraced
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch; every tensor gets the dtype and device that the transformation gives it.

        A class that torch has, too, takes the state of torch's class and goes on with it.

        Raises:
            ValueError: it is the state of another transformation (lists what is missing,
                unexpected or of other shape), of another class of torch, or of a newer form;
                or it is no state of an optimizer at all.
        """
        if not isinstance(state_dict, dict):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: must be given what state_dict() of an optimizer returns, got {state_dict!r}"
            )
        with saving.reading(self):
            super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self._engine.note(self.param_groups, self.state)
        return {**super().__getstate__(), "_engine": self._engine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_engine" not in state:
            saving.restore(self, state)
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)
        self.__dict__.setdefault("_warned_capturable_if_run_uncaptured", True)  # the base class warns else

    def __repr__(self) -> str:
        hidden = [(group, group.pop(ENTRY)) for group in self.param_groups if ENTRY in group]
        try:
            return super().__repr__()
        finally:
            for group, entry in hidden:
                group[ENTRY] = entry
