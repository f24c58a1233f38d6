"""Recurrent cells that `vmap` accepts: torch's own have no batching rule.

    rnn    h' = tanh(W x + b + U h + c)                                      (or relu)
    lstm   i, f, g, o = rows of W x + b + U h + c
           c' = sigmoid(f) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c')
    gru    r, z, n of W x + b and of U h + c
           r = sigmoid(r_x + r_h),  z = sigmoid(z_x + z_h),  n = tanh(n_x + r n_h)
           h' = (1 - z) n + z h

Reference: torch.nn.RNNCell, LSTMCell, GRUCell, whose parameters, names, order of
gates and initial values these have. So a state dict of torch's loads, and what
was trained here goes back.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from funcopt.core import check

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "gru_cell", "lstm_cell", "rnn_cell"]

Nonlinearity = Literal["tanh", "relu"]


def rnn_cell(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    nonlinearity: Nonlinearity = "tanh",
) -> Tensor:
    """One step of a plain recurrent cell.

    Args:
        x: input [..., in].
        h: hidden state [..., hidden].
        weight_ih: [hidden, in].
        weight_hh: [hidden, hidden].
        bias_ih: [hidden].
        bias_hh: [hidden].
        nonlinearity: "tanh" or "relu".

    Returns:
        The next hidden state.

    Raises:
        ValueError: `nonlinearity` is unknown.

    Example:
        >>> fo.es.rnn_cell(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([[3.0]]), torch.tensor([[-1.0]]), nonlinearity="relu")
        tensor([5.])
    """
    check.choice("rnn_cell", "nonlinearity", nonlinearity, get_args(Nonlinearity))
    s = linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh)
    return s.tanh() if nonlinearity == "tanh" else s.relu()


def lstm_cell(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory.

    Args:
        x: input [..., in].
        state: hidden state and cell, each [..., hidden].
        weight_ih: [4 hidden, in]; rows of the gates in the order i, f, g, o.
        weight_hh: [4 hidden, hidden].
        bias_ih: [4 hidden].
        bias_hh: [4 hidden].

    Returns:
        The next hidden state and cell.

    Example:
        >>> one = torch.zeros(1)
        >>> fo.es.lstm_cell(one, (one, one + 2), torch.zeros(4, 1), torch.zeros(4, 1))  # c' = 2 / 2, h' = tanh(1) / 2
        (tensor([0.3808]), tensor([1.]))
    """
    h, c = state
    i, f, g, o = (linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_cell(
    x: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None = None, bias_hh: Tensor | None = None
) -> Tensor:
    """One step of a gated recurrent unit.

    Args:
        x: input [..., in].
        h: hidden state [..., hidden].
        weight_ih: [3 hidden, in]; rows of the gates in the order r, z, n.
        weight_hh: [3 hidden, hidden].
        bias_ih: [3 hidden].
        bias_hh: [3 hidden].

    Returns:
        The next hidden state.

    Example:
        >>> fo.es.gru_cell(torch.zeros(1), torch.ones(1), torch.zeros(3, 1), torch.zeros(3, 1))  # z = 1/2, n = 0
        tensor([0.5000])
    """
    r_x, z_x, n_x = linear(x, weight_ih, bias_ih).chunk(3, -1)
    r_h, z_h, n_h = linear(h, weight_hh, bias_hh).chunk(3, -1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return (1 - z) * n + z * h


def _start(cell: nn.RNNCellBase, x: Tensor) -> Tensor:
    return torch.zeros(*x.shape[:-1], cell.hidden_size, dtype=x.dtype, device=x.device)


class RNNCell(nn.RNNCell):
    """`torch.nn.RNNCell` for `vmap`; any number of batch axes.

    Example:
        >>> cell = fo.es.RNNCell(3, 5)
        >>> cell(torch.zeros(3)).shape
        torch.Size([5])
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = _start(self, input) if hx is None else hx
        kind: Any = self.nonlinearity
        return rnn_cell(input, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, nonlinearity=kind)


class LSTMCell(nn.LSTMCell):
    """`torch.nn.LSTMCell` for `vmap`; any number of batch axes.

    Example:
        >>> cell = fo.es.LSTMCell(3, 5)
        >>> h, c = cell(torch.zeros(2, 3))
        >>> h.shape, c.shape
        (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        state = (_start(self, input), _start(self, input)) if hx is None else hx
        return lstm_cell(input, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class GRUCell(nn.GRUCell):
    """`torch.nn.GRUCell` for `vmap`; any number of batch axes.

    Example:
        >>> cell = fo.es.GRUCell(3, 5)
        >>> cell(torch.zeros(3)).shape
        torch.Size([5])
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = _start(self, input) if hx is None else hx
        return gru_cell(input, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
