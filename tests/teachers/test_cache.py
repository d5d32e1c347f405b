"""Records of features on disk: what is read is what was written, or is known not to be."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sak.errors import UserError
from teachers import array_files
from teachers.cache import CORRUPT, EMPTY, FILLED, WRITTEN, TeacherCache, allocate
from teachers.fingerprints import files_hash, weights_hash

SHAPES = [(6, 3, 4), (5, 2, 2)]
IMAGES = 11


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


def make(root, dtype="float16", views=2, images=IMAGES, shard_bytes=400, **depends):
    return TeacherCache(root, "sam", SHAPES, images, views, dtype, depends, shard_bytes)


def features(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, generator=draw) * 3 for shape in SHAPES]


def record(cache, number):
    """A record that its number determines."""
    return cache.encode(features(1, seed=number))


def allocated(cache):
    allocate([cache], lambda line: None)
    return cache


def test_float16_comes_back_as_it_was_rounded_over_several_files(tmp_path):
    cache = allocated(make(tmp_path))
    assert cache.per_shard == 400 // (2 * (72 + 20))
    levels = features(IMAGES)
    order = torch.randperm(IMAGES).tolist()
    cache.write(1, order, cache.encode([level[order] for level in levels]))
    read = [cache.read(1, index) for index in range(IMAGES)]
    assert [state for state, _ in read] == [FILLED] * IMAGES
    back = cache.decode(torch.from_numpy(np.stack([content for _, content in read])))
    for ours, theirs in zip(back, levels, strict=True):
        assert torch.equal(ours, theirs.half().float())
    assert not cache.filled(0, range(IMAGES)).any()
    assert len(list(cache.directory.glob("view-001/records-*.npy"))) == 6


def test_files_are_plain_arrays_of_numpy(tmp_path):
    cache = allocated(make(tmp_path))
    levels = features(2)
    cache.write(0, [3, 2], cache.encode(levels))  # two records in a file
    array = np.load(cache.directory / "view-000" / "records-00001.npy", mmap_mode="r")
    np.testing.assert_array_equal(array["level0"], levels[0].half().numpy()[::-1])
    np.testing.assert_array_equal(array["level1"], levels[1].half().numpy()[::-1])


def test_int8_is_off_by_half_a_step_of_its_channel_at_most(tmp_path):
    cache = allocated(make(tmp_path, "int8"))
    levels = features(4)
    levels[0][:, 1] *= 1000  # one loud channel leaves the others alone
    levels[1][2, 3] = 0
    back = cache.decode(torch.from_numpy(cache.encode(levels)))
    for ours, theirs in zip(back, levels, strict=True):
        step = theirs.abs().amax(dim=(2, 3), keepdim=True) / 127
        assert ((ours - theirs).abs() <= 0.5001 * step).all()
        assert (ours - theirs).abs().max() > 0


def test_what_float16_cannot_hold_is_refused_and_int8_named(tmp_path):
    levels = features(2)
    levels[1][1, 2, 0, 0] = 1e5
    with pytest.raises(
        UserError, match=r"sam at level 1 .*too large for float16, they reach 1e\+05: .*cache.dtype=int8"
    ):
        make(tmp_path).encode(levels)
    loud = make(tmp_path, "int8").decode(torch.from_numpy(make(tmp_path, "int8").encode(levels)))
    assert loud[1][1, 2, 0, 0].item() == pytest.approx(1e5)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused_and_no_other_dtype_is_advised(tmp_path, value, dtype):
    levels = features(2)
    levels[1][1, 2, 0, 0] = value
    with pytest.raises(UserError, match="sam at level 1 are infinite or NaN, no numbers: check its weights") as raised:
        make(tmp_path, dtype).encode(levels)
    assert "int8" not in str(raised.value)


def test_whatever_features_depend_on_has_a_directory_of_its_own(tmp_path):
    base = {"weights": "abc", "seed": 0, "image_size": [96, 96], "spec": {"levels": [1, 2]}}
    others = [
        {**base, "weights": "abd"},
        {**base, "seed": 1},
        {**base, "image_size": [96, 112]},
        {**base, "spec": {"levels": [1, 3]}},
    ]
    directories = [make(tmp_path, **depends).directory for depends in (base, *others)]
    directories += [make(tmp_path, "int8", **base).directory, make(tmp_path, images=12, **base).directory]
    assert len(set(directories)) == len(directories)
    assert make(tmp_path, views=5, **base).directory == directories[0]  # more views of the same

    filled, other = allocated(make(tmp_path, **base)), allocated(make(tmp_path, **others[0]))
    filled.write(0, [0], record(filled, 0))
    assert filled.read(0, 0)[0] == FILLED
    assert other.read(0, 0)[0] == EMPTY


def test_a_flipped_bit_is_found_and_replaced(tmp_path):
    cache = allocated(make(tmp_path))
    content = cache.encode(features(IMAGES))
    cache.write(0, range(IMAGES), content)
    path = cache.directory / "view-000" / "records-00002.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [cache.read(0, index)[0] for index in range(IMAGES)] == [FILLED] * 5 + [CORRUPT] + [FILLED] * 5
    cache.write(0, [5], content[5:6])
    state, again = cache.read(0, 5)
    assert state == FILLED
    np.testing.assert_array_equal(again, content[5])


@pytest.mark.parametrize("damage", ["cut", "gone", "header"])
def test_a_file_that_is_cut_short_gone_or_no_array_is_made_good_and_its_records_known_as_lost(tmp_path, damage):
    cache = allocated(make(tmp_path))
    cache.write(0, range(IMAGES), cache.encode(features(IMAGES)))
    path = cache.directory / "view-000" / "records-00002.npy"  # images 4 and 5
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 10)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"x" * 16 + path.read_bytes()[16:])
    allocate([cache], lambda line: None)
    lost = {"cut": [5], "gone": [4, 5], "header": []}[damage]
    assert [index for index in range(IMAGES) if cache.read(0, index)[0] == CORRUPT] == lost
    assert np.load(path).shape == (2,)


@pytest.mark.parametrize(("calls", "states"), [(2, [WRITTEN, EMPTY, EMPTY]), (3, [WRITTEN, EMPTY, EMPTY]),
                                               (6, [WRITTEN] * 3), (7, [FILLED, WRITTEN, WRITTEN])])  # fmt: skip
def test_a_writer_that_dies_leaves_records_that_say_so(tmp_path, monkeypatch, calls, states):
    cache = allocated(make(tmp_path))
    real, done = array_files.write_at, []

    def dying(path, position, data):
        if len(done) == calls:
            real(path, position, data[: len(data) // 2])
            raise Killed
        done.append(path)
        real(path, position, data)

    monkeypatch.setattr(array_files, "write_at", dying)
    with pytest.raises(Killed):
        cache.write(0, [0, 1, 2], cache.encode(features(3)))
    assert [cache.read(0, index)[0] for index in range(3)] == states


def _write_forever(root, pipe):
    cache = make(root, images=500)
    allocate([cache], lambda line: None)
    pipe.send("ready")
    for index in range(500):
        cache.write(0, [index], record(cache, index))


def test_after_sigkill_all_that_is_filled_is_right_and_the_rest_can_be_filled(tmp_path):
    context = multiprocessing.get_context("fork")
    for pause in (0.0, 0.01, 0.03):
        ours, theirs = context.Pipe()
        process = context.Process(target=_write_forever, args=(tmp_path, theirs))
        process.start()
        assert ours.poll(60)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        cache = allocated(make(tmp_path, images=500))
        for index in range(500):
            state, content = cache.read(0, index)
            assert state in (EMPTY, WRITTEN, FILLED)
            if state != EMPTY:
                np.testing.assert_array_equal(content, record(cache, index)[0])
    missing = np.flatnonzero(~cache.filled(0, range(500))).tolist()
    for index in missing:
        cache.write(0, [index], record(cache, index))
    assert cache.filled(0, range(500)).all()


def _write_some(root, indices):
    cache = make(root, images=60)
    allocate([cache], lambda line: None)
    for index in indices:
        cache.write(0, [index], record(cache, index))


def test_several_processes_fill_the_same_files(tmp_path):
    context = multiprocessing.get_context("fork")
    # Interleaved records, and some that all of them write.
    parts = [[*range(first, 60, 3), *range(20, 30)] for first in range(3)]
    processes = [context.Process(target=_write_some, args=(tmp_path, part)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    cache = make(tmp_path, images=60)
    for index in range(60):
        state, content = cache.read(0, index)
        assert state == FILLED
        np.testing.assert_array_equal(content, record(cache, index)[0])


def test_the_size_is_said_and_refused_before_the_first_byte(tmp_path, monkeypatch):
    caches = [
        make(tmp_path / "new", images=10**9, shard_bytes=10**11),
        make(tmp_path / "new", "int8", images=10**9, shard_bytes=10**11),
    ]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40 - 10**11, 10**11))
    said = []
    with pytest.raises(UserError, match=r"need 660GB more, but .*new has 100GB free: choose another cache.path"):
        allocate(caches, said.append)
    assert "1000000000 images x 2 views x 184B = 378GB" in said[0]
    assert "all features: 660GB" in said[-1]
    assert "sparse" in said[-1]
    assert not (tmp_path / "new").exists()


def test_files_are_sparse_and_what_is_there_needs_no_room_again(tmp_path, monkeypatch):
    large = make(tmp_path, images=10**6, shard_bytes=10**8)
    allocated(large)
    assert large.size > 3e8
    assert large.occupied < 1e6
    cache = allocated(make(tmp_path, seed=1))
    for view in range(2):
        cache.write(view, range(IMAGES), cache.encode(features(IMAGES)))
    os.sync()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    allocate([cache], lambda line: None)  # the disk is full, and nothing is needed


def test_a_disk_that_fills_up_is_one_sentence_and_what_was_stored_is_kept(tmp_path, monkeypatch):
    cache = allocated(make(tmp_path))
    cache.write(0, [0], record(cache, 0))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(array_files, "write_at", full)
        with pytest.raises(UserError, match=r"cannot be stored in .*No space left on device.*make room"):
            cache.write(0, [1], record(cache, 1))
    assert [cache.read(0, index)[0] for index in range(2)] == [FILLED, EMPTY]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache.path .* cannot be written"):
        allocate([make(tmp_path / "file" / "cache")], lambda line: None)


def test_the_hash_of_weights_sees_parameters_and_buffers():
    one, two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    assert weights_hash(one) == weights_hash(two)
    two.running_mean[1] = 1e-7
    assert weights_hash(one) != weights_hash(two)
    three = nn.BatchNorm2d(3)
    with torch.no_grad():
        three.weight[2] += 1e-6
    assert len({weights_hash(module) for module in (one, two, three, nn.BatchNorm2d(3).double())}) == 4


def test_the_hash_of_files_sees_names_sizes_and_order_but_no_folder(tmp_path):
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name, size in (("x", 3), ("y", 4)):
            files.append(Path(tmp_path, folder, f"{name}.jpg"))
            files[-1].write_bytes(bytes(size))
    assert files_hash(files[:2]) == files_hash(files[2:])
    assert files_hash(files[:2]) != files_hash(files[1::-1])
    before = files_hash(files[:2])
    files[0].write_bytes(bytes(5))
    assert files_hash(files[:2]) != before


def store(root, number, start, queue):
    """A process that computes other bits than its neighbour for the same images, image by image and in batches."""
    cache = make(root, images=64, shard_bytes=4000)
    start.wait()
    seen = []
    for first in range(0, 64, 4):
        indices = list(range(first, first + 4))
        content = np.concatenate([record(cache, 1000 * number + index) for index in indices])
        seen.append(cache.write(0, indices, content))
    queue.put((number, np.concatenate(seen)))


def test_two_processes_that_compute_the_same_images_use_what_the_first_has_stored(tmp_path):
    cache = allocated(make(tmp_path, images=64, shard_bytes=4000))
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        start, queue = context.Barrier(2), context.Queue()
        workers = [context.Process(target=store, args=(tmp_path, number, start, queue)) for number in (1, 2)]
        for worker in workers:
            worker.start()
        used = dict(queue.get(timeout=60) for _ in workers)
        for worker in workers:
            worker.join()
        array_files.mapped.cache_clear()
        read = [cache.read(0, index) for index in range(64)]
        assert [state for state, _ in read] == [FILLED] * 64
        stored = np.stack([content for _, content in read])
        for number in (1, 2):
            np.testing.assert_array_equal(used[number], stored)
        shutil.rmtree(cache.directory)
        cache.allocate()


def test_who_writes_has_the_file_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"00")
    context = multiprocessing.get_context("fork")
    inside, go_on = context.Event(), context.Event()

    def hold():
        with array_files.alone(tmp_path / "file") as file:
            inside.set()
            go_on.wait()
            array_files.write_at(file, 0, b"1")

    other = context.Process(target=hold)
    other.start()
    inside.wait()
    began = context.Event()

    def read():
        began.set()
        with array_files.alone(tmp_path / "file") as file:
            (tmp_path / "seen").write_bytes(array_files.read_at(file, 0, 2))

    reader = context.Process(target=read)
    reader.start()
    began.wait()
    time.sleep(0.3)
    assert not (tmp_path / "seen").exists()
    go_on.set()
    reader.join()
    other.join()
    assert (tmp_path / "seen").read_bytes() == b"10"


def test_what_another_process_has_filled_is_seen_at_once_and_damage_is_written_over(tmp_path):
    """As a second machine, whose mapping of the file is older."""
    cache = allocated(make(tmp_path))
    assert not cache.filled(0, [2]).any()
    mine, others = record(cache, 1), record(cache, 2)
    assert (cache.write(0, [2], others) == others).all()
    assert cache.filled(0, [2]).all()
    assert (cache.write(0, [2], mine) == others).all()
    path = cache.directory / "view-000" / "records-00001.npy"
    data = bytearray(path.read_bytes())
    data[array_files.data_offset(cache.record, 2) + 5] ^= 1
    path.write_bytes(data)
    assert (cache.write(0, [2], mine) == mine).all()
    assert cache.read(0, 2)[0] == FILLED
