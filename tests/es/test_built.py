"""Members of an eager chunk, stacked in memory that chunks and calls share: the same members, and nobody's but their own."""

import threading

import pytest
import torch

import funcopt as fo
from funcopt.es.evaluate import built
from funcopt.es.evaluate.chunks import Task, auto_chunk
from funcopt.es.noise.population import Perturbations
from funcopt.es.noise.sources import EAGER
from funcopt.es.options import settings_of

PARAMS = {
    "w": torch.linspace(-1, 1, 12).reshape(3, 4),
    "b": torch.linspace(0, 1, 3),
    "steps": torch.tensor(3),
    "half": torch.ones(5, dtype=torch.bfloat16),
}


def bowl(p, x):
    return (p["w"] @ x + p["b"]).square().sum() + p["half"].sum().float() * p["steps"]


def kept(p, x):
    return bowl(p, x), p


@pytest.mark.parametrize("chunk_size", [None, 4, 6])
@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("options", [{}, {"mask": {"w": True, "b": torch.tensor([1.0, 0.0, 1.0]), "steps": True, "half": False}}], ids=str)
def test_what_a_member_saw_is_what_the_key_says(chunk_size, antithetic, options):
    x = torch.ones(4)
    grad_fn = fo.es.grad(kept, popsize=10, sigma=0.1, has_aux=True, antithetic=antithetic, chunk_size=chunk_size, **options)
    for key in (0, 1):
        _, info = grad_fn(PARAMS, x, key=key)
        for i in range(10):
            member = info.member(i)
            for name, rows in info.user_aux.items():
                assert torch.equal(rows[i], member[name])
            torch.testing.assert_close(info.fitness[i], bowl(member, x))


def test_an_objective_may_write_into_its_parameters():
    def writes(p):
        p["w"].add_(1)
        return p["w"].sum()

    w = {"w": torch.zeros(3)}
    grad_fn = fo.es.grad(writes, popsize=8, sigma=0.1, chunk_size=2)
    first, again = (grad_fn(w, key=0)[1].fitness for _ in range(2))
    assert torch.equal(first, again) and bool((first > 1).all())
    assert torch.equal(w["w"], torch.zeros(3))


def test_threads_that_call_at_once_get_their_own_members():
    barrier, seen = threading.Barrier(4), {}

    def waits(p):
        barrier.wait(10)  # all are in the middle of a chunk
        return p.sum()

    grad_fn = fo.es.grad(waits, popsize=8, sigma=0.1, chunk_size=4, vectorize="vmap")

    def call(number):
        seen[number] = grad_fn(torch.full((1000,), float(number)), key=0)[1]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, info in seen.items():
        torch.testing.assert_close(info.fitness[5], info.member(5).sum(), rtol=1e-5, atol=1e-3)
        assert round(info.mean.item() / 1000) == number


def test_little_memory_waits_for_the_next_call():
    def waiting(size, chunk_size):
        rooms = built.Rooms()
        with rooms.one() as room:
            room.take(0, torch.zeros(size), chunk_size)
        return [room.bytes for room in rooms.free]

    assert waiting(1000, 8) == [32_000]
    assert waiting(built.KEPT // 4, 8) == []


def test_a_room_is_made_anew_for_a_leaf_of_another_kind():
    room = built.Room()
    assert room.take(0, torch.zeros(3), 4).shape == (4, 3)
    assert room.take(0, torch.zeros(2, 2), 2).shape == (2, 2, 2)
    assert room.take(0, torch.zeros(2, 2, dtype=torch.float64), 2).dtype == torch.float64


def test_inference_mode_leaves_no_memory_that_others_cannot_write():
    grad_fn = fo.es.grad(lambda p: p.sum(), popsize=8, sigma=0.1)
    with torch.inference_mode():
        first = grad_fn(torch.ones(3), key=0)[1].fitness
    assert torch.equal(grad_fn(torch.ones(3), key=0)[1].fitness, first.clone())


def test_under_vmap_members_are_placed_one_by_one():
    grad_fn = fo.es.grad(lambda p, x: (p * x).sum(), popsize=8, sigma=0.1, shaping="none")
    xs = torch.tensor([1.0, -2.0])
    grads = torch.func.vmap(lambda x: grad_fn(torch.ones(3), x, key=0)[0])(xs)
    for x, g in zip(xs, grads, strict=True):
        torch.testing.assert_close(g, grad_fn(torch.ones(3), x, key=0)[0])


def test_small_leaves_that_are_drawn_together_have_the_numbers_of_each():
    sizes = [640, 32, 10, 1, 256]
    for offset in (0, 2**32 - 3, -5):
        keys = [torch.tensor([17 - i, offset + i]) for i in range(len(sizes))]
        for pairs in (range(5), range(3, 9), range(1)):
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                together = EAGER.normals(keys, sizes, pairs, dtype, torch.device("cpu"))
                for key, size, rows in zip(keys, sizes, together, strict=True):
                    assert torch.equal(rows, EAGER.normal(key, size, pairs, dtype))


@pytest.mark.parametrize("rows, members", [(1, 256), (64, 64), (4096, 4)])
def test_an_eager_chunk_holds_more_members_the_smaller_they_are(rows, members):
    params = {"w": torch.zeros(512, 16)}
    perturbations = Perturbations(settings_of("es.grad", popsize=512, sigma=0.1), params, fo.random.key(0))
    assert auto_chunk(perturbations, Task((params, torch.zeros(rows, 16)), {}), 512) == members
