"""The JSON form of trees in the recorded optax runs, read into torch.

array leaf     {"$a": [...], "s": shape, "t": dtype}       complex leaf  {"$re": [...], "$im": [...], "s": shape}
list, tuple    {"$l": [...]}, {"$t": [...]}                NamedTuple    {"$nt": class, "f": {field: node}}
random key     {"$prng": true}                             dict node     any other object;  None  null
"""

from typing import Any, NamedTuple

import torch

__all__ = ["Missing", "Named", "RandomKey", "decode", "dtype_of", "leaf_tensors", "map_leaves", "only_keys"]

DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "bfloat16", "float16", "complex128", "complex64", "int64", "int32", "int16", "int8", "uint8", "bool")
}


class Named(NamedTuple):
    """A NamedTuple node of a recorded state: the name of its class and its fields."""

    name: str
    fields: dict[str, Any]


class RandomKey(NamedTuple):
    """Stands where the recording held a key of JAX's generator."""


class Missing(Exception):
    """Something that a case needs is not built."""

    def __init__(self, *names: str) -> None:
        super().__init__(f"not built: {', '.join(names)}")


def dtype_of(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"recorded data: do not know the dtype {name!r}")
    return DTYPES[name]


def only_keys(where: str, given: dict, allowed: set[str]) -> None:
    """Anything that this harness does not understand is an error."""
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise ValueError(f"{where}: do not understand the keys {unknown}; know {sorted(allowed)}")


def decode(node: Any, dtype: torch.dtype) -> Any:
    """A recorded tree with tensors for leaves; `dtype` is that of leaves which do not say theirs."""
    if node is None:
        return None
    if isinstance(node, (bool, int, float, str)):
        return _scalar(node, dtype)
    if not isinstance(node, dict):
        raise ValueError(f"recorded tree: do not understand a node of type {type(node).__name__}")
    if "$a" in node:
        only_keys("array leaf", node, {"$a", "s", "t"})
        return _array(node["$a"], node["s"], dtype_of(node["t"]) if "t" in node else dtype)
    if "$re" in node:
        only_keys("complex leaf", node, {"$re", "$im", "s", "t"})
        kind = dtype_of(node["t"]) if "t" in node else (dtype if dtype.is_complex else torch.complex128)
        return torch.complex(_array(node["$re"], node["s"], torch.float64), _array(node["$im"], node["s"], torch.float64)).to(kind)
    if "$l" in node:
        only_keys("list node", node, {"$l"})
        return [decode(child, dtype) for child in node["$l"]]
    if "$t" in node:
        only_keys("tuple node", node, {"$t"})
        return tuple(decode(child, dtype) for child in node["$t"])
    if "$nt" in node:
        only_keys("named node", node, {"$nt", "f"})
        return Named(node["$nt"], {name: decode(child, dtype) for name, child in node["f"].items()})
    if "$prng" in node:
        only_keys("random key", node, {"$prng"})
        return RandomKey()
    strange = [key for key in node if key.startswith("$")]
    if strange:
        raise ValueError(f"recorded tree: do not understand {strange}")
    return {name: decode(child, dtype) for name, child in node.items()}


def _scalar(value: Any, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(value, bool):
        return torch.tensor(value)
    return torch.tensor(float(value), dtype=dtype if dtype.is_floating_point else torch.float64)


def _array(values: list, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool or not (dtype.is_floating_point or dtype.is_complex):
        return torch.tensor(values, dtype=dtype).reshape(shape)
    # float() reads "nan", "inf" and "-inf" too; rounding to a narrower dtype happens once, from float64
    return torch.tensor([float(value) for value in values], dtype=torch.float64).to(dtype).reshape(shape)


def map_leaves(function, node: Any, *rest: Any) -> Any:
    """`function` over the tensors of trees of one structure; containers are kept, None stays None."""
    if node is None:
        return None
    if isinstance(node, dict):
        return {name: map_leaves(function, child, *(other[name] for other in rest)) for name, child in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node)(*(map_leaves(function, *children) for children in zip(node, *rest, strict=True)))
    if isinstance(node, (list, tuple)):
        return type(node)(map_leaves(function, *children) for children in zip(node, *rest, strict=True))
    return function(node, *rest)


def leaf_tensors(node: Any) -> list[torch.Tensor]:
    """The tensors of a tree, dictionaries in the order of their sorted keys (optree's and JAX's order)."""
    if node is None:
        return []
    if isinstance(node, dict):
        return [leaf for name in sorted(node) for leaf in leaf_tensors(node[name])]
    if isinstance(node, (list, tuple)):
        return [leaf for child in node for leaf in leaf_tensors(child)]
    return [node]
