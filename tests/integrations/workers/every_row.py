"""Every row of the zoo on sharded params: the numbers of one process on whole ones, or a sentence at `init` or the first step."""

import torch
from torch.distributed.tensor import Shard, distribute_tensor

import funcopt as fo
from tests.integrations.workers.common import check, full, main, mesh
from tests.zoo import ROWS

SENTENCES = ("must lie in one piece", "must have leaves that are not sharded")


def trained(row, cut: bool):
    """Params after four steps."""
    generator = torch.Generator().manual_seed(5)

    def drawn():
        found = {"w": torch.randn(6, 4, generator=generator, dtype=torch.float64)}
        return {**found, "b": torch.randn(5, generator=generator, dtype=torch.float64)}

    def given(tree):
        return {key: distribute_tensor(x, mesh(), [Shard(0)]) for key, x in tree.items()} if cut else tree

    params, tx = given(drawn()), row.make()
    state = tx.init(params)
    for step in range(4):
        updates, state = tx.update(given(drawn()), state, params, **row.extra(step))
        params = fo.apply_updates(params, updates)
    return {key: full(x) for key, x in params.items()}


@check
def every_row_is_that_of_whole_params_or_says_why_not():
    wrong = []
    for row in ROWS:
        try:
            expected = trained(row, cut=False)
        except Exception:  # a row that wants other params
            continue
        try:
            found = trained(row, cut=True)
            for key in expected:
                torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-11)
        except ValueError as error:
            if not any(sentence in str(error) for sentence in SENTENCES):
                wrong.append(f"{row.id}: {error}")
        except Exception as error:
            wrong.append(f"{row.id}: {type(error).__name__}: {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    main()
