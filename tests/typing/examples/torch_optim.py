"""What an editor knows of `fo.torch_optim`: classes, their words, and what a step gives."""

from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import assert_type

import funcopt as fo
from funcopt import torch_optim

model = torch.nn.Linear(2, 1)

opt = fo.torch_optim.pilot(model.parameters(), lr=1e-3, betas=(0.9, 0.99), gamma=0.9, meta_step="normalized", flat="auto")
assert_type(opt, fo.torch_optim.pilot)
assert_type(opt.signals(), dict[str, Tensor])
assert_type(opt.effective_lrs(), list[float])
assert_type(opt.param_groups, list[dict[str, Any]])
assert_type(opt.step(), None)
assert_type(opt.step(loss=torch.tensor(1.0)), None)
assert_type(opt.step(lambda: 0.5), float)
assert_type(opt.state_dict(), dict[str, Any])

adamw = torch_optim.adamw([{"params": list(model.parameters()), "lr": 0.1}], 1e-3, weight_decay=torch.tensor(0.1))
assert_type(adamw, torch_optim.adamw)
assert_type(adamw.to_torch_state_dict(), dict[str, Any])
torch.optim.lr_scheduler.StepLR(adamw, 10)

aees = torch_optim.aees(model.parameters(), inner="sgd", lr_candidates=(0.5, 1.0), control="joint", momentum=0.9, seed=0)
aees.step_end(1.0)
assert_type(aees.get_logs(), dict[str, list[Any]])
adaptive = torch_optim.adaptive(model.parameters(), lr_rule="trend", bounds={"lr": (0.1, 2.0)})
assert_type(adaptive.lr, float)
torch_optim.rate_free(model.named_parameters(), inner="nadamw", per_group=True)
torch_optim.optiroulette(model.parameters(), warmup=fo.fixed_warmup(2), switch="epoch").on_epoch_start(0)

mine = torch_optim.optimizer_class(fo.lamb)(model.parameters(), lr=0.1, eps=1e-6)
assert_type(mine.signals(), dict[str, Tensor])
plain = torch_optim.Optimizer(model.parameters(), fo.chain(fo.clip(1.0), fo.adamw(None)), lr=0.1, on_missing="hold")
assert_type(plain.step(), None)
assert_type(torch_optim.param_groups(model), list[dict[str, Any]])

missing: Literal["raise", "hold"] = "hold"
torch_optim.lion(model.parameters(), on_missing=missing)
