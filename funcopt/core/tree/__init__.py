"""Trees of tensors: `fo.tree`. `map` is in mapping.py, what a tree is made of in structure.py, norms and sums in reductions.py."""

from funcopt.core.tree.arithmetic import (
    add as add,
    add_scale as add_scale,
    conj as conj,
    div as div,
    mul as mul,
    real as real,
    scale as scale,
    sub as sub,
    where as where,
)
from funcopt.core.tree.entries import all_finite as all_finite, batch_shape as batch_shape, clip as clip, random_like as random_like
from funcopt.core.tree.makers import (
    cast as cast,
    cast_like as cast_like,
    clone as clone,
    full_like as full_like,
    ones_like as ones_like,
    width as width,
    zeros_like as zeros_like,
)
from funcopt.core.tree.mapping import (
    columns as columns,
    map as map,
    map_plain as map_plain,
    map_until as map_until,
    substitute as substitute,
)
from funcopt.core.tree.paths import (
    assert_alike as assert_alike,
    first_difference as first_difference,
    map_with_path as map_with_path,
    paths as paths,
    paths_of as paths_of,
)
from funcopt.core.tree.prefixes import (
    broadcast_prefix as broadcast_prefix,
    entries_at as entries_at,
)
from funcopt.core.tree.reductions import (
    allclose as allclose,
    dtype as dtype,
    max as max,
    min as min,
    norm as norm,
    size as size,
    squared_norm as squared_norm,
    sum as sum,
    vdot as vdot,
)
from funcopt.core.tree.scalars import (
    device as device,
    scalar as scalar,
    scalar_dtype as scalar_dtype,
)
from funcopt.core.tree.search import (
    DictKey as DictKey,
    NamedTupleKey as NamedTupleKey,
    SequenceKey as SequenceKey,
    get as get,
    get_all_with_path as get_all_with_path,
    set as set,
)
from funcopt.core.tree.structure import (
    flatten as flatten,
    leaves as leaves,
    prune as prune,
    structure as structure,
    subtrees as subtrees,
    unflatten as unflatten,
)
