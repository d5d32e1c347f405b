import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sak.data.discovery import expand
from sak.data.images import Images, find_images
from sak.data.shards import tar
from sak.errors import UserError

CLASSES = ("n01440764", "n02102040", "n15075141")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pictures():
    """{name in a folder per class: bytes of a JPEG}"""
    rng = np.random.default_rng(0)
    pictures = {}
    for number, name in enumerate(f"{kind}/{kind}_{index}.JPEG" for kind in CLASSES for index in range(4)):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)).save(file, "JPEG")
        pictures[name] = file.getvalue()
    return pictures


def write(path, contents, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def packed(contents):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def folder(root, contents):
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def of_class(pictures, kind):
    return {name.split("/")[1]: content for name, content in pictures.items() if name.startswith(kind)}


def shards(root, pictures):
    """As WebDataset writes them: samples of files that share a stem."""
    root.mkdir()
    names = list(pictures)
    for number in range(3):
        part = {}
        for index, name in enumerate(names[4 * number : 4 * number + 4]):
            part |= {f"{number}{index:05d}.cls": b"7", f"{number}{index:05d}.jpg": pictures[name]}
        write(root / f"imagenet-{number:06d}.tar", part)
    return root


def forms(root, pictures):
    """The same images in the same order in every form that is read."""
    nested = {f"{kind}.tar": packed(of_class(pictures, kind)) for kind in CLASSES}
    return {
        "tar": write(root / "train.tar", {"train/notes.txt": b"-", **{f"train/{n}": c for n, c in pictures.items()}}),
        "tar of tars": write(root / "ILSVRC2012_img_train.tar", nested),
        "folder of tars": folder(root / "classes", nested),
        "shards": shards(root / "shards", pictures),
        "pattern": f"{root}/shards/imagenet-{{000000..000002}}.tar",
        "folder": folder(root / "folder", pictures),
    }


def test_every_form_yields_the_same_items(tmp_path, pictures):
    wanted = None
    for form, source in forms(tmp_path, pictures).items():
        found = find_images(source)
        assert [file.read_bytes() for file in found] == list(pictures.values()), form
        dataset = Images(found, (16, 24), seed=3)
        dataset.set_epoch(2)
        items = torch.stack([item["image"] for item in dataset])
        wanted = items if wanted is None else wanted
        assert torch.equal(items, wanted), form


def test_members_know_their_names(tmp_path, pictures):
    sources = forms(tmp_path, pictures)
    assert find_images(sources["tar of tars"])[4].name == "n02102040.tar/n02102040_0.JPEG"
    assert find_images(sources["tar of tars"])[-1].stem == "n15075141_3"
    assert str(find_images(sources["shards"])[5]).endswith("imagenet-000001.tar, member 100001.jpg,")
    with pytest.raises(IndexError):
        find_images(sources["shards"])[12]


def test_workers_read_the_same(tmp_path, pictures):
    dataset = Images(find_images(forms(tmp_path, pictures)["shards"]), (16, 16))
    alone = torch.stack([item["image"] for item in dataset])
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert torch.equal(torch.stack([item["image"] for item in loader]), alone)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["image"], alone[3])


def test_few_archives_are_open_at_once(tmp_path, pictures):
    content = {"one.jpg": next(iter(pictures.values()))}
    for number in range(tar.OPEN_ARCHIVES + 40):
        write(tmp_path / f"{number:03d}.tar", content)
    before = len(os.listdir("/proc/self/fd"))
    assert {file.read_bytes() for file in find_images(tmp_path)} == set(content.values())
    assert len(os.listdir("/proc/self/fd")) - before <= tar.OPEN_ARCHIVES


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, pictures, form):
    content = next(iter(pictures.values()))
    names = [f"{'long' * 60}/größe.JPEG", "b" * 120 + ".png", "日本.jpg"]
    archive = write(tmp_path / "train.tar", dict.fromkeys(names, content), format=form)
    assert [file.name for file in find_images(archive)] == names
    assert [file.read_bytes() for file in find_images(archive)] == [content] * 3


def test_the_list_is_made_once_and_anew_for_another_state(tmp_path, cache, pictures, monkeypatch):
    archive = write(tmp_path / "train.tar", pictures)
    before = archive.stat()
    first = list(find_images(archive))
    walked = []
    walk = tar._walk
    monkeypatch.setattr(tar, "_walk", lambda *arguments: walked.append(arguments) or walk(*arguments))
    assert list(find_images(archive)) == first
    assert walked == []
    (kept,) = cache.rglob("*.npz")
    kept.write_bytes(b"corrupt")
    assert list(find_images(archive)) == first
    assert len(walked) == 1
    assert archive.stat() == before  # nothing was written to it
    write(archive, dict(list(pictures.items())[:5]))
    assert len(find_images(archive)) == 5
    assert len(walked) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, cache, pictures, capsys):
    cache.write_text("a file where the directory should be")
    assert len(find_images(write(tmp_path / "train.tar", pictures))) == 12
    assert "cannot be kept" in capsys.readouterr().out


def truncated_member(path, pictures):
    os.truncate(write(path, pictures), 12_000)


def truncated_between_members(path, pictures):
    write(path, pictures)
    with tarfile.open(path) as archive:
        end = archive.getmembers()[5].offset
    os.truncate(path, end)


def corrupt_header(path, pictures):
    write(path, pictures)
    with tarfile.open(path) as archive:
        start = archive.getmembers()[5].offset
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(b"x" * 400)


def truncated_inner(path, pictures):
    write(path, {"n01440764.tar": packed(of_class(pictures, "n01440764"))[:-12_000]})


def compressed(path, pictures):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("one.jpg")
        archive.addfile(member, io.BytesIO())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated_member, r"train.tar ends within its member n02102040/n02102040_1.JPEG: it is truncated"),
        (truncated_between_members, r"train.tar is truncated or corrupt at byte \d+"),
        (corrupt_header, r"train.tar is truncated or corrupt at byte \d+"),
        (truncated_inner, r"train.tar, member n01440764.tar, "),
        (lambda path, _: path.touch(), "train.tar is empty"),
        (lambda path, _: write(path, {}), "train.tar holds no image"),
        (lambda path, _: write(path, {"a.txt": b"text"}), "train.tar holds no image"),
        (lambda path, _: path.write_bytes(b"no tar" * 1000), "train.tar is no uncompressed tar archive"),
        (compressed, "train.tar is no uncompressed tar archive"),
        (lambda path, _: None, "1 of 1 archives are missing, the first is .*train.tar"),
    ],
)
def test_archives_that_are_none_or_not_whole(tmp_path, cache, pictures, make, message):
    make(tmp_path / "train.tar", pictures)
    with pytest.raises(UserError, match=message):
        find_images(tmp_path / "train.tar")
    assert not list(cache.rglob("*"))


def test_missing_shards_are_counted(tmp_path, pictures):
    shards(tmp_path / "shards", pictures)
    with pytest.raises(UserError, match=r"2 of 5 archives are missing, the first is .*imagenet-000003\.tar"):
        find_images(f"{tmp_path}/shards/imagenet-{{000000..000004}}.tar")
    with pytest.raises(UserError, match="no file"):
        find_images(f"{tmp_path}/shards/imagenet-{{000004..000000}}.tar")


def test_a_folder_of_images_and_tars_is_ambiguous(tmp_path, pictures):
    folder(tmp_path, pictures)
    write(tmp_path / "train.tar", pictures)
    with pytest.raises(UserError, match=r"holds images \(n01440764/.*\) and tar archives \(train.tar\)"):
        find_images(tmp_path)


def test_a_corrupt_image_is_named_with_its_archive(tmp_path, pictures):
    corrupt = {**pictures, "n02102040/n02102040_1.JPEG": b"no JPEG"}
    dataset = Images(find_images(write(tmp_path / "train.tar", corrupt)), (8, 8))
    dataset[4]
    with pytest.raises(UserError, match=r"train.tar, member n02102040/n02102040_1.JPEG, is corrupt"):
        dataset[5]


def test_an_archive_cut_after_it_was_listed(tmp_path, pictures):
    archive = write(tmp_path / "train.tar", pictures)
    dataset = Images(find_images(archive), (8, 8))
    os.truncate(archive, 5000)
    with pytest.raises(UserError, match=r"train.tar, member n15075141/n15075141_3.JPEG, .*ends within it"):
        dataset[11]


def test_patterns():
    assert [str(file) for file in expand("a/b-{08..11}.tar")] == [f"a/b-{n}.tar" for n in ("08", "09", "10", "11")]
    assert [str(file) for file in expand("{0..1}-{2..3}.tar")] == ["0-2.tar", "0-3.tar", "1-2.tar", "1-3.tar"]
