"""Characters of Python's standard library, one after the other, by a transformer.

    h   = E[token] + P[position]
    h  += O softmax(q k^T / sqrt(d) + causal) v,   q, k, v = linear of norm(h);    h += W2 gelu(W1 norm(h))      in each block
    p   = softmax(H norm(h))

The text is that of the Python that runs it: a fixed list of modules, which all versions from 3.10 on have; figures of one version
are not those of another. Characters are the 95 that print and the end of a line. Of every ten pieces of the text one is for validation
and one for the test.

Source: Vaswani et al., "Attention is all you need", 2017, with the norms first (Xiong et al., 2020).
"""

import functools
import sysconfig
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import funcopt as fo
from funcopt.race.tasks.parts import Data, Task, classification

__all__ = ["character_transformer"]

MODULES = (
    "argparse ast calendar configparser contextlib copy csv dataclasses difflib doctest enum fractions functools inspect ipaddress "
    "mailbox optparse "
    "pickle pickletools platform random shutil smtplib statistics subprocess tarfile tempfile textwrap threading tokenize traceback typing"
).split()
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96
PIECES = 100  # of the text; those that end in 8 are for validation, in 9 for the test
LOOKED_AT = 2400  # characters of validation and of test that are evaluated, in windows spread over all of it
SPREAD = 0.02  # of the first embeddings, as in GPT-2


def character_transformer(
    blocks: int = 1, width: int = 32, heads: int = 4, context: int = 24, batch_size: int = 4, looked_at: int = LOOKED_AT
) -> Task:
    """The next character of the standard library's source, by a transformer: 19,680 params unless more is asked for.

    Args:
        blocks: >= 1.
        width: of the residual stream, a multiple of `heads`.
        heads: of the attention, >= 1.
        context: characters in a row, >= 1.
        batch_size: rows a step, where the race is not told another.
        looked_at: characters of a split that are evaluated, >= `context`.

    Raises:
        ValueError: an argument is out of its range.
        FileNotFoundError: the standard library's sources are not there.
    """
    for name, value in (("blocks", blocks), ("heads", heads), ("context", context)):
        if value < 1:
            raise ValueError(f"character_transformer: {name} must be >= 1, got {value}")
    if width < heads or width % heads:
        raise ValueError(f"character_transformer: width must be a multiple of heads, {heads}, got {width}")
    if looked_at < context:
        raise ValueError(f"character_transformer: looked_at must be at least context, {context}, got {looked_at}")
    data = _windows(context, looked_at)
    causal = torch.full((context, context), float("-inf")).triu(1)

    def norm(params: dict[str, Tensor], name: str, h: Tensor) -> Tensor:
        return F.layer_norm(h, (width,), params[f"{name}.weight"], params[f"{name}.bias"])

    def logits(params: dict[str, Tensor], tokens: Tensor) -> Tensor:
        rows, length = tokens.shape
        h = F.embedding(tokens, params["embedding.weight"]) + params["position.weight"][:length]
        for i in range(blocks):
            mixed = F.linear(norm(params, f"norm{i}.1", h), params[f"qkv{i}.weight"], params[f"qkv{i}.bias"])
            q, k, v = mixed.reshape(rows, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            shares = torch.softmax(q @ k.transpose(-1, -2) * (width // heads) ** -0.5 + causal[:length, :length], -1)
            seen = (shares @ v).transpose(1, 2).reshape(rows, length, width)
            h = h + F.linear(seen, params[f"attended{i}.weight"], params[f"attended{i}.bias"])
            inner = F.gelu(F.linear(norm(params, f"norm{i}.2", h), params[f"wide{i}.weight"], params[f"wide{i}.bias"]))
            h = h + F.linear(inner, params[f"narrow{i}.weight"], params[f"narrow{i}.bias"])
        return F.linear(norm(params, "norm", h), params["head.weight"])

    def init(key: Tensor) -> dict[str, Tensor]:
        def normal(stream: int, shape: tuple[int, int], deviation: float) -> Tensor:
            return deviation * fo.random.normal(fo.random.fold_in(key, stream), shape)

        def zeros(n: int) -> Tensor:
            return torch.zeros(n, device=key.device)

        params = {"embedding.weight": normal(0, (len(ALPHABET), width), SPREAD), "position.weight": normal(1, (context, width), SPREAD)}
        into = (2 * blocks) ** -0.5  # what each block adds to the stream is as much smaller as there are more of them (GPT-2)
        for i in range(blocks):
            layers = {f"qkv{i}": (3, 1, 1.0), f"attended{i}": (1, 1, into), f"wide{i}": (4, 1, 1.0), f"narrow{i}": (1, 4, into)}
            for place, (layer, (rows, columns, scale)) in enumerate(layers.items()):
                params[f"{layer}.weight"] = normal(3 + 4 * i + place, (rows * width, columns * width), scale * (columns * width) ** -0.5)
                params[f"{layer}.bias"] = zeros(rows * width)
        params["head.weight"] = normal(2, (len(ALPHABET), width), width**-0.5)
        for name in (*(f"norm{i}.{j}" for i in range(blocks) for j in (1, 2)), "norm"):
            params[f"{name}.weight"], params[f"{name}.bias"] = zeros(width) + 1, zeros(width)
        return params

    name = "characters" if blocks == 1 else f"characters of {blocks} blocks"
    return classification(name, init, logits, data, most=looked_at // context, steps=1000, batch_size=batch_size)


def _windows(context: int, looked_at: int) -> Data:
    """Per split the characters, and those one later, as rows of `context`."""
    text = _text()
    length = len(text) // PIECES
    pieces = text[: PIECES * length].reshape(PIECES, length)
    each = (length - 1) // context  # windows of a piece
    before = pieces[:, : each * context].reshape(PIECES, each, context)
    after = pieces[:, 1 : each * context + 1].reshape(PIECES, each, context)
    last = torch.arange(PIECES) % 10
    data = {}
    for split, chosen in {"train": last < 8, "validation": last == 8, "test": last == 9}.items():
        x, y = before[chosen].flatten(0, 1), after[chosen].flatten(0, 1)
        if split != "train":
            spread = torch.linspace(0, len(x) - 1, looked_at // context).long()
            x, y = x[spread], y[spread]
        data[split] = (x, y)
    return data


@functools.cache
def _text() -> Tensor:
    folder = Path(sysconfig.get_path("stdlib"))
    place = {character: i for i, character in enumerate(ALPHABET)}
    texts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in MODULES]
    return torch.tensor([place[character] for character in "".join(texts).replace("\t", "    ") if character in place])
