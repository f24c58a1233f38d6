"""In and out of torch.optim: `fo.torch_optim`."""

from funcopt.torch_optim.foreign import FromTorch as FromTorch, FromTorchState as FromTorchState, from_torch as from_torch
from funcopt.torch_optim.optimizer import Optimizer as Optimizer
from funcopt.torch_optim.profile_members import member_from_profile as member_from_profile
