"""Memory asked for in large pages is memory as any other."""

import torch

from funcopt.es.noise.pages import LARGE, fresh


def test_large_and_small_blocks_hold_what_is_written():
    for size in (7, LARGE // 4 + 3):
        block = fresh((size,), torch.float32, torch.device("cpu"))
        block.fill_(2.0)
        assert block.shape == (size,) and block.dtype == torch.float32 and block.is_contiguous()
        assert block.sum(dtype=torch.float64) == 2 * size
