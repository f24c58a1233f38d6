"""Files of states: a changed bit is found, links and permissions stay, and what cannot be written is said in a sentence."""

import errno
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
PARAMS = {
    "w": torch.linspace(-1, 1, 6).reshape(2, 3),
    "b": torch.zeros(()),
    "narrow": torch.ones(3, dtype=torch.bfloat16),
    "n": torch.tensor([3, -4]),
}
FORMS = pytest.mark.parametrize("name", ["run.pt", "run.safetensors"])


@pytest.fixture(autouse=True)
def with_safetensors(request):
    if str(getattr(getattr(request.node, "callspec", None), "params", {}).get("name", "")).endswith(".safetensors"):
        pytest.importorskip("safetensors")


def same(x, y):
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)


def blank():
    return fo.tree.map_plain(torch.zeros_like, PARAMS)


@FORMS
def test_a_flipped_bit_anywhere_is_never_another_number(tmp_path, name):
    """Every eighth byte of the file, one bit each: what loads is what was saved."""
    path = tmp_path / name
    fo.checkpoint.save(path, PARAMS)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 8):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place // 8) % 8
        path.write_bytes(changed)
        try:
            loaded = fo.checkpoint.load(path, blank())
        except ValueError as error:
            refused += 1
            assert str(error).startswith("checkpoint.")
        else:
            assert all(map(same, fo.tree.leaves(loaded), fo.tree.leaves(PARAMS)))
    assert refused > 10


def numbers_start(data):
    """Where the bytes of the number 7.0 stand, three in a row."""
    return data.index(torch.full((3,), 7.0).numpy().tobytes())


@FORMS
def test_a_flipped_bit_of_a_number_is_found_and_can_be_passed_over(tmp_path, name):
    path = tmp_path / name
    fo.checkpoint.save(path, {"w": torch.full((3,), 7.0)})
    data = bytearray(path.read_bytes())
    data[numbers_start(data)] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match="its check sum is another: the file is damaged. Take an older one; checksum=False reads it as it is"
    ):
        fo.checkpoint.load(path, {"w": torch.zeros(3)})
    loaded = fo.checkpoint.load(path, {"w": torch.zeros(3)}, checksum=False)
    assert 7.0 < loaded["w"][0] < 7.00001 and loaded["w"][1] == 7.0


def test_files_without_an_entry_for_it_are_held_against_the_sums_of_the_zip(tmp_path):
    """Files of earlier versions, and of `torch.save(state_dict(...))`."""
    path = tmp_path / "run.pt"
    torch.save(fo.checkpoint.state_dict({"w": torch.full((3,), 7.0)}), path)
    assert fo.checkpoint.load(path, {"w": torch.zeros(3)})["w"].sum() == 21
    data = bytearray(path.read_bytes())
    data[numbers_start(data)] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its check sum is another"):
        fo.checkpoint.load(path, {"w": torch.zeros(3)})


@FORMS
def test_a_file_can_be_written_without_the_sum(tmp_path, name):
    fo.checkpoint.save(tmp_path / name, PARAMS, checksum=False)
    loaded = fo.checkpoint.load(tmp_path / name, blank())
    assert all(map(same, fo.tree.leaves(loaded), fo.tree.leaves(PARAMS)))


@given(
    seed=st.integers(0, 2**31),
    shape=st.lists(st.integers(0, 4), max_size=3),
    dtype=st.sampled_from([torch.float64, torch.float16, torch.int64, torch.bool]),
)
@settings(max_examples=30, deadline=None)
def test_any_tensor_fits_its_own_sum_and_not_that_of_a_neighbour(seed, shape, dtype):
    from funcopt.checkpoint import checksums

    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, shape, generator=generator).to(dtype)
    saved = {"x": x, "y": x.mT.contiguous().mT if x.dim() > 1 else x}
    saved["funcopt.checksum"] = checksums.of(saved)
    assert checksums.fit(saved)
    if x.numel():
        changed = x.clone()
        changed.view(-1)[0] = changed.view(-1)[0] == 0
        assert not checksums.fit({**saved, "x": changed})
    assert not checksums.fit({**saved, "x": x[None]})
    assert not checksums.fit({"z": x, "y": saved["y"], "funcopt.checksum": saved["funcopt.checksum"]})


@FORMS
def test_a_link_stays_a_link_and_what_it_points_to_is_new(tmp_path, name):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / name, tmp_path / name
    fo.checkpoint.save(target, {"w": torch.zeros(2)})
    link.symlink_to(target)
    fo.checkpoint.save(link, {"w": torch.ones(2)})
    assert link.is_symlink() and fo.checkpoint.load(target, {"w": torch.zeros(2)})["w"].sum() == 2
    assert os.listdir(tmp_path / "disk") == [name]
    dangling = tmp_path / f"new-{name}"
    dangling.symlink_to(tmp_path / "disk" / f"later-{name}")
    fo.checkpoint.save(dangling, {"w": torch.ones(2)})
    assert dangling.is_symlink() and (tmp_path / "disk" / f"later-{name}").is_file()


@FORMS
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_an_existing_file_keeps_its_permissions(tmp_path, name, mode):
    path = tmp_path / name
    fo.checkpoint.save(path, PARAMS)
    path.chmod(mode)
    fo.checkpoint.save(path, PARAMS)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nobody_can_read_a_private_file_while_it_is_written(tmp_path, monkeypatch):
    path, seen = tmp_path / "run.pt", []
    fo.checkpoint.save(path, PARAMS)
    path.chmod(0o600)
    real = torch.save

    def watched(saved, file):
        real(saved, file)
        seen.append([stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)])

    monkeypatch.setattr(torch, "save", watched)
    fo.checkpoint.save(path, PARAMS)
    assert seen == [[0o600, 0o600]]


def leftovers(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


KILLED = """
import os, sys, torch, funcopt as fo
os.fsync = lambda handle: os._exit(9)
fo.checkpoint.save(sys.argv[1], {"w": torch.ones(3)})
"""


def test_what_a_killed_save_has_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "run.pt"
    assert subprocess.run([sys.executable, "-c", KILLED, path], cwd=Path(fo.__file__).parents[1]).returncode == 9
    assert len(leftovers(tmp_path)) == 1
    (tmp_path / ".other.pt.0123456789abcdef").touch()  # not of this file
    (tmp_path / ".run.pt.0123456789abcdef").touch()  # of this file, by whom is not known, a moment ago
    (tmp_path / ".run.pt.fedcba9876543210").touch()  # the same, the day before yesterday
    os.utime(tmp_path / ".run.pt.fedcba9876543210", (0, 0))
    fo.checkpoint.save(path, PARAMS)
    assert leftovers(tmp_path) == [".other.pt.0123456789abcdef", ".run.pt.0123456789abcdef"]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    from funcopt.checkpoint.unfinished import MACHINE

    theirs = tmp_path / f".run.pt.{MACHINE}-{os.getppid()}-0123456789abcdef"
    theirs.touch()
    fo.checkpoint.save(tmp_path / "run.pt", PARAMS)
    assert theirs.exists()


def test_two_saves_of_one_process_do_not_remove_each_others_file(tmp_path, monkeypatch):
    path, real, depth = tmp_path / "run.pt", torch.save, []

    def nested(saved, file):
        if not depth:
            depth.append(1)
            fo.checkpoint.save(path, {"w": torch.zeros(1)})
        real(saved, file)

    monkeypatch.setattr(torch, "save", nested)
    fo.checkpoint.save(path, {"w": torch.ones(1)})
    assert fo.checkpoint.load(path, {"w": torch.zeros(1)})["w"] == 1
    assert leftovers(tmp_path) == []


def test_a_missing_folder_a_folder_and_a_loop_of_links_are_said_to_be(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"checkpoint.save: the folder of the file must exist, got .*none/run.pt; make .*none first"
    ) as error:
        fo.checkpoint.save(tmp_path / "none" / "run.pt", PARAMS)
    assert error.value.errno == errno.ENOENT
    with pytest.raises(IsADirectoryError, match=r"checkpoint.save: path must name a file, got the folder .*; say what the file is called"):
        fo.checkpoint.save(tmp_path, PARAMS)
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    with pytest.raises(OSError, match="a link that leads back to itself; remove the link"):
        fo.checkpoint.save(tmp_path / "loop.pt", PARAMS)
    with pytest.raises(OSError, match="which is a device or a pipe; save to a file"):
        fo.checkpoint.save(os.devnull, PARAMS)
    assert leftovers(tmp_path) == []


@FORMS
def test_a_file_that_may_not_grow_so_large_is_said_in_words_and_leaves_the_old_one(tmp_path, name):
    path = tmp_path / name
    fo.checkpoint.save(path, {"w": torch.ones(3)})
    resource = pytest.importorskip("resource")  # Windows has it not
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=rf"checkpoint.save: .*{name} could not be written.* What was there before is untouched") as error:
            fo.checkpoint.save(path, {"w": torch.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f".{name}." not in str(error.value)
    assert fo.checkpoint.load(path, {"w": torch.zeros(3)})["w"].sum() == 3
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "number, sentence",
    [
        (errno.ENOSPC, "the disk is full; make room"),
        (errno.EACCES, "its folder does not let this user write"),
        (errno.EROFS, "the disk is read-only"),
    ],
)
def test_errors_of_the_system_name_the_file_and_keep_their_class(tmp_path, monkeypatch, number, sentence):
    kind = type(OSError(number, ""))

    def broken(saved, file):
        raise OSError(number, os.strerror(number), file.name)

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(kind, match=f"checkpoint.save: .*/run.pt could not be written: {sentence}") as error:
        fo.checkpoint.save(tmp_path / "run.pt", PARAMS)
    assert error.value.errno == number and type(error.value) is kind


@pytest.mark.parametrize(
    "leaf, sentence",
    [
        (torch.ones(2, 2).to_sparse(), r"got a sparse tensor at 'w'; save x.to_dense\(\)"),
        (torch.ones(2, 2).to_sparse_csr(), r"got a sparse tensor at 'w'"),
        (torch.ones(2, device="meta"), "got a meta tensor at 'w'; it has no numbers"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "got a nested tensor at 'w'; save its parts"),
    ],
    ids=["sparse", "csr", "meta", "nested"],
)
def test_what_has_no_numbers_one_by_one_is_not_saved_nor_taken(leaf, sentence, tmp_path):
    with pytest.raises(TypeError, match=f"checkpoint.state_dict: every leaf must hold its numbers one by one, {sentence}"):
        fo.checkpoint.save(tmp_path / "run.pt", {"w": leaf})
    assert os.listdir(tmp_path) == []
    if not leaf.is_nested:
        with pytest.raises(ValueError, match="without numbers one by one: w, saved as a"):
            fo.checkpoint.load_state_dict({"w": torch.ones(leaf.shape)}, {"w": leaf})


@pytest.mark.skipif(not hasattr(torch, "quantize_per_tensor"), reason="torch makes no quantized tensors any more")
@pytest.mark.filterwarnings("ignore")
def test_quantized_numbers_are_not_saved_nor_taken():
    leaf = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=r"got a quantized tensor at 'w'; save x.dequantize\(\)"):
        fo.checkpoint.state_dict({"w": leaf})
    with pytest.raises(ValueError, match="without numbers one by one: w, saved as a quantized tensor"):
        fo.checkpoint.load_state_dict({"w": torch.ones(2)}, {"w": leaf})


@pytest.mark.parametrize(
    "form",
    [
        torch.tensor(0),
        torch.tensor(-1),
        torch.tensor(float("nan")),
        torch.tensor(1.5),
        torch.ones(2, dtype=torch.int64),
        torch.tensor(True),
    ],
)
def test_a_damaged_form_is_refused(form):
    with pytest.raises(ValueError, match="is damaged: take an older file"):
        fo.checkpoint.load_state_dict(PARAMS, {**fo.checkpoint.state_dict(PARAMS), "funcopt.format": form})


@pytest.mark.parametrize(
    "saved, kind", [(None, "NoneType"), ([], "list"), ({"w": 1.0}, "float at 'w'"), ({3: torch.ones(1)}, "Tensor at 3"), ("run.pt", "str")]
)
def test_what_is_no_mapping_of_tensors_is_refused(saved, kind):
    with pytest.raises(TypeError, match=f"checkpoint.load_state_dict: saved must be a mapping from names to tensors.*, got {kind}"):
        fo.checkpoint.load_state_dict(PARAMS, saved)


@pytest.mark.parametrize(
    "migration, error, sentence",
    [
        ({"x": "y"}, ValueError, r"every old name must be one that was saved.*\['x'\] meet nothing; there are funcopt.format, w"),
        ({"w": "v", "w.b": None}, ValueError, r"\['w.b'\] meet nothing"),
        ({"w": 3}, TypeError, "migration must say names, or None for what is dropped, got 'w': 3"),
        (3, TypeError, "migration must be a mapping from old names to new ones, or a function, got int"),
        ([("w", "v")], TypeError, "got list"),
        (lambda old: None, TypeError, "the function must return a mapping from names to tensors, got NoneType; does it end with return"),
        (lambda old: {"w": 1.0}, TypeError, "what the function returns must be a mapping from names to tensors, got float at 'w'"),
    ],
)
def test_a_migration_that_is_none_or_meets_nothing_is_refused(migration, error, sentence):
    with pytest.raises(error, match=sentence):
        fo.checkpoint.load_state_dict(PARAMS, fo.checkpoint.state_dict({"w": torch.ones(2)}), migration=migration)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_without_strict_a_number_of_another_kind_is_not_taken(dtype):
    template = {"w": torch.full((2,), 5.0)}
    saved = {"w": torch.ones(2, dtype=dtype)}
    with pytest.raises(ValueError, match="of other dtype: w is torch.float32"):
        fo.checkpoint.load_state_dict(template, saved)
    assert fo.checkpoint.load_state_dict(template, saved, strict=False)["w"].sum() == 10  # kept as it was
    wide = {"w": torch.ones(2, dtype=torch.float64)}
    assert fo.checkpoint.load_state_dict(template, wide, strict=False)["w"].sum() == 2


def test_the_names_of_the_form_are_its_own():
    with pytest.raises(ValueError, match="the form uses the path 'funcopt.format' itself; rename that key"):
        fo.checkpoint.state_dict({"funcopt.format": torch.ones(1)})


def test_a_file_of_torchs_old_form_is_read(tmp_path):
    saved = fo.checkpoint.state_dict({"w": torch.ones(2)})
    torch.save(saved, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "old.pt")
    assert fo.checkpoint.load(tmp_path / "old.pt", {"w": torch.zeros(2)})["w"].sum() == 2


def test_the_sum_is_in_the_file_alone(tmp_path):
    fo.checkpoint.save(tmp_path / "run.pt", {"w": torch.ones(2)})
    assert "funcopt.checksum" in torch.load(tmp_path / "run.pt", weights_only=True)
    assert "funcopt.checksum" not in fo.checkpoint.state_dict({"w": torch.ones(2)})
