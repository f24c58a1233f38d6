"""Evolution strategies against their recorded runs: the stream of keys and numbers."""

import json

import pytest
import torch

import funcopt as fo
from funcopt.core import philox
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir

PHILOX = json.loads((golden_dir("es") / "philox.json").read_text(encoding="utf-8"))
BY_KEY = pytest.mark.parametrize("case", PHILOX["keys"], ids=lambda case: "-".join(case["key"]))


def signed(words):
    """The int64 with the bits of each uint64, written as a decimal string."""
    return torch.tensor([(int(word) + 2**63) % 2**64 - 2**63 for word in words])


def test_knows_everything_that_was_recorded():
    only_keys("philox.json", PHILOX, {"doc", "known_answers", "note", "keys"})
    for case in PHILOX["keys"]:
        only_keys("philox.json, a key", case, {"key", "words_at_0", "split3", "fold_in", "normal13", "uniform6"})


@pytest.mark.parametrize("case", PHILOX["known_answers"], ids=lambda case: f"{case['counter'][0]:x}")
def test_cipher_gives_the_known_answers(case):
    schedule = philox.key_schedule(*case["key"])
    assert list(philox.rounds(*case["counter"], schedule)) == case["output"]
    tensors = philox.rounds(*torch.tensor(case["counter"]), philox.key_schedule(*torch.tensor(case["key"])))
    assert [word.item() for word in tensors] == case["output"]


@BY_KEY
def test_words_and_keys(case):
    key = signed(case["key"])
    assert fo.random.bits(key, 4).tolist() == case["words_at_0"]
    assert torch.equal(fo.random.split(key, 3), torch.stack([signed(pair) for pair in case["split3"]]))
    for i, expected in case["fold_in"].items():
        assert torch.equal(fo.random.fold_in(key, int(i)), signed(expected))
        assert torch.equal(torch.func.vmap(fo.random.fold_in)(key[None], torch.tensor([int(i)]))[0], signed(expected))


@BY_KEY
def test_uniforms_are_exact_and_normals_close(case):
    key = signed(case["key"])
    assert fo.random.uniform(key, 6).tolist() == case["uniform6"]
    torch.testing.assert_close(fo.random.normal(key, 13), torch.tensor(case["normal13"]), rtol=0, atol=2e-6)
