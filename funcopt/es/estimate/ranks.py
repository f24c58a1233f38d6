"""One estimate by many ranks: chunks of members are dealt out, fitness comes back, and every element of the gradient is summed by one rank.

    evaluate   chunk c of the population on rank c mod R; one all_gather of P K numbers
    sum        tile t of the elements on rank t mod R, over all members in their order; one all_gather of D numbers

Every rank holds the parameters and the key, so no noise is sent. Chunks and tiles do
not depend on R, and neither does a bit of the result. `gradient="replicated"` sums
everything on every rank and saves the second exchange.

With the fitness goes a checksum of everything that decides the result: settings, functions,
parameters, key and data (agreement.py). Ranks that differ in it are told so, before the
first exchange whose size depends on it. A member that raises is NaN on any number of ranks.

Traffic a rank: 8 P K + 4 D bytes, twice the second term where there are fewer tiles than
half the ranks (benchmarks/es_cost_model.py counts to the byte). Source: Salimans et al., 2017 (shared keys); the tiles
are our own.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.ranks import Team
from funcopt.es.estimate.agreement import Standing, Words, differences, total_of, words_of
from funcopt.es.estimate.weighted_sums import Piece, assemble, pieces, summed
from funcopt.es.evaluate.evaluator import Evaluation, Evaluator, Task, auto_chunk, shapes_of
from funcopt.es.noise.population import Perturbations

__all__ = ["evaluate_shared", "gradient_shared"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of fitness; 0 in the header: nothing to tell


def evaluate_shared(team: Team, evaluator: Evaluator, perturbations: Perturbations, task: Task) -> Evaluation:
    """The fitness of all members, of which each rank evaluates its chunks."""
    settings, what = perturbations.settings, perturbations.settings.estimand
    standing = evaluator.standing = evaluator.standing or Standing(settings.where)
    team.who = f"{standing.who}, generation {standing.calls}"  # counted from 0 by the calls
    standing.calls += 1
    words = words_of(evaluator, perturbations, task)
    shares = _shares(team, evaluator, perturbations, task, words)
    mine = shares[team.rank]
    width = 1 if what.weights is None else len(torch.as_tensor(what.weights).reshape(-1))
    device = perturbations.leaves[0].device
    longest = max(sum(len(part) for part in parts) for parts in shares)
    # A row for each pair: its fitness, and whether it raised.
    payload = torch.full((longest, what.signs * width + 1), torch.nan, dtype=tree.scalar_dtype(device), device=device)
    row, kind, problem, aux = 0, 0, None, []
    for part in mine:
        rows = slice(row, row + len(part))
        row += len(part)
        payload[rows, -1] = 0.0
        try:
            evaluation = evaluator.evaluate(perturbations, task, None, part)
        except Exception as error:
            problem = problem or error
            payload[rows, -1] = 1.0
            aux.append(None)
            continue
        fitness = evaluation.fitness.reshape(what.signs, len(part), width)
        kind = DTYPES.index(fitness.dtype) + 1
        payload[rows, :-1] = fitness.transpose(0, 1).reshape(len(part), -1).to(payload)
        aux.append(tree.map_plain(lambda x, part=part: x.reshape(what.signs, len(part), *x.shape[1:]), evaluation.aux))
    everything = torch.stack(team.gather(torch.cat([_header(words, kind).to(payload), payload.reshape(-1)])))
    _check_alike(team, words, everything[:, :4])
    everything = team.said_by_the_first(everything)
    kinds, given = everything[:, 4], everything[:, 5:].reshape(team.size, *payload.shape)
    rows = torch.cat([table[: sum(len(part) for part in parts)] for table, parts in zip(given, shares, strict=True)])
    order = torch.tensor([j for parts in shares for part in parts for j in part], dtype=torch.int64).argsort().to(device)
    _report(settings.where, team, rows[:, -1], problem)
    dtype = DTYPES[max(int(kinds.max()), 1) - 1]  # of those who evaluated any
    fitness = rows[order, :-1].reshape(what.pairs, what.signs, width).transpose(0, 1).reshape(what.popsize, width).to(dtype)
    gathered = _gathered_aux(team, aux, shares, order) if settings.execution.has_aux else ()
    return Evaluation(fitness.squeeze(1) if what.weights is None else fitness, gathered)


def _shares(team: Team, evaluator: Evaluator, perturbations: Perturbations, task: Task, words: Words) -> list[list[range]]:
    """The pairs of every rank, chunk by chunk."""
    what = perturbations.settings.estimand
    _settle(team, evaluator, perturbations, task, words)
    if evaluator.how == "processes":
        return [[range(rank, what.pairs, team.size)] if rank < what.pairs else [] for rank in range(team.size)]
    size, _ = evaluator.chunk(perturbations, task)
    parts = [range(start, min(start + size, what.pairs)) for start in range(0, what.pairs, size)]
    return [parts[rank :: team.size] for rank in range(team.size)]


def _settle(team: Team, evaluator: Evaluator, perturbations: Perturbations, task: Task, words: Words) -> None:
    """That all make the same call, and how, and how many at once, they are evaluated, whatever each memory; once for a shape of params."""
    shapes, problem, mine = shapes_of(perturbations), None, [0, -1]
    if shapes in evaluator.agreed:
        return
    if evaluator.how != "processes":
        try:
            evaluator.settle(perturbations, task)
            mine = [int(evaluator.how == "loop"), auto_chunk(perturbations, task, perturbations.settings.estimand.popsize)]
        except Exception as error:
            problem = error
    total = total_of(words)
    said = torch.stack(team.gather(torch.cat([torch.tensor(mine, device=total.device), total.reshape(1)])))
    _check_alike(team, words, said[:, 2:])
    if evaluator.how == "processes":
        evaluator.agreed[shapes] = 1
        return
    if problem is not None:
        raise problem
    fewest, looped = int(said[:, 1].min()), int(said[:, 0].max())
    if fewest < 0:
        raise RuntimeError(
            f"{perturbations.settings.where}: rank {int(said[:, 1].argmin())} cannot evaluate the objective; its own message says why"
        )
    evaluator.how = "loop" if looped else evaluator.how
    evaluator.agreed[shapes] = fewest
    settings, what = perturbations.settings, perturbations.settings.estimand
    size, _ = evaluator.chunk(perturbations, task)
    if team.rank == 0 and settings.execution.chunk_size == "auto" and -(-what.pairs // size) < team.size:
        warnings.warn(
            f"{settings.where}: chunks of {size * what.signs} members leave ranks of {team.size} without work; "
            f"say chunk_size={max(what.signs, what.popsize // team.size)} or less",
            stacklevel=6,
        )


def _header(words: Words, kind: int) -> Tensor:
    """64 bits of what decides the result as four exact numbers, and the dtype of fitness."""
    total = total_of(words)
    return torch.stack([*((total >> shift) & 0xFFFF for shift in (0, 16, 32, 48)), torch.full_like(total, kind)])


def _check_alike(team: Team, words: Words, headers: Tensor) -> None:
    if bool((headers != headers[0]).any()):  # ranks have just waited for each other
        raise RuntimeError(f"{team.who}: {differences(team, words)}")


def _report(where: str, team: Team, failed: Tensor, problem: Exception | None) -> None:
    """All ranks raise where every member raised; else the rank with a problem warns of it."""
    if bool((failed == 1).all()):
        raise RuntimeError(f"{where}: every member raised on its rank; here the first said: {problem!r}") from problem
    if problem is not None:
        warnings.warn(f"{where}: members failed on rank {team.rank} and count as NaN; the first said: {problem!r}", stacklevel=6)


def _gathered_aux(team: Team, aux: list[Any], shares: list[list[range]], order: Tensor) -> Any:
    device = order.device
    lists = team.gather_object(tree.map_plain(lambda x: x.to("cpu"), aux))
    sample = next(given for rank in lists for given in rank if given is not None)
    blocks = []
    for rank, parts in zip(lists, shares, strict=True):
        for given, part in zip(rank, parts, strict=True):
            if given is None:
                given = tree.map_plain(
                    lambda x, part=part: torch.zeros(x.shape[0], len(part), *x.shape[2:], dtype=x.dtype, device="cpu"), sample
                )
            blocks.append(given)
    whole = tree.map_plain(lambda *xs: torch.cat(xs, dim=1).to(device)[:, order], *blocks)
    return tree.map_plain(lambda x: x.reshape(-1, *x.shape[2:]), whole)


def gradient_shared(team: Team, perturbations: Perturbations, weights: Tensor, size: Tensor | None) -> Any:
    """The gradient, every piece summed by one rank and handed to all."""
    cut = pieces(perturbations, elements=True)
    if perturbations.settings.estimand.gradient == "replicated" or team.size == 1:
        return assemble(perturbations, [(piece, summed(perturbations, weights, None, piece)) for piece in cut], size)
    mine = [tensor for piece in cut[team.rank :: team.size] for tensor in summed(perturbations, weights, None, piece)]
    layouts = [[entry for piece in cut[rank :: team.size] for entry in _sizes(perturbations, piece)] for rank in range(team.size)]
    kinds = sorted({entry[1:] for layout in layouts for entry in layout}, key=str)
    found: list[dict[int, Tensor]] = [{} for _ in layouts]  # by rank: number of the tensor -> the tensor
    for dtype, device in kinds:
        places = [[n for n, entry in enumerate(layout) if entry[1:] == (dtype, device)] for layout in layouts]
        lengths = [sum(layouts[rank][n][0] for n in numbers) for rank, numbers in enumerate(places)]
        flat = torch.cat([torch.zeros(0, dtype=dtype, device=device), *(mine[n].to(dtype) for n in places[team.rank])])
        if team.size * max(lengths) > 2 * sum(lengths):  # few pieces for many ranks: parts of one length would be padding for the most part
            blank = [flat.new_zeros(length) for length in (sum(lengths[: team.rank]), sum(lengths[team.rank + 1 :]))]
            parts = team.put_together(torch.cat([blank[0], flat, blank[1]])).split(lengths)
        else:
            parts = team.gather(torch.cat([flat, flat.new_zeros(max(lengths) - len(flat))]))
        for rank, given in enumerate(parts):
            sizes = [layouts[rank][n][0] for n in places[rank]]
            found[rank].update(zip(places[rank], given[: lengths[rank]].split(sizes) if sizes else (), strict=True))
    sums: list[tuple[Piece, list[Tensor]]] = []
    taken = [0] * team.size
    for number, piece in enumerate(cut):
        rank = number % team.size
        count = len(_sizes(perturbations, piece))
        sums.append((piece, [found[rank][n] for n in range(taken[rank], taken[rank] + count)]))
        taken[rank] += count
    return assemble(perturbations, sums, size)


def _sizes(perturbations: Perturbations, piece: Piece) -> list[tuple[int, torch.dtype, torch.device]]:
    """Elements, dtype and device of each tensor that `summed` gives for a piece."""
    places = [piece.field] if piece.joint is None else list(perturbations.joints[piece.joint].members)
    entries = []
    for index in places:
        leaf = perturbations.fields[index].leaf
        size = leaf.numel() if piece.start is None or piece.stop is None else piece.stop - piece.start
        entries.append((size, perturbations.sum_dtype(leaf), leaf.device))
    return entries
