"""Files and directories that appear whole or not at all, readable as the umask says, and errors that name them."""

import errno
import json
import os
import stat

import pytest
import safetensors.torch
import torch

from sak.errors import UserError
from sak.files import about, read_json, replacing, replacing_directory, tidy, write_json
from sak.tensors import writing_safetensors


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def private(path):
    """Write as safetensors does: through a temporary file that is the owner's alone."""
    temporary = path.with_name("temporary")
    temporary.write_text("new")
    temporary.chmod(0o600)
    os.replace(temporary, path)


def test_permissions_are_what_the_umask_leaves(tmp_path, umask):
    write_json(tmp_path / "a.json", {})
    with replacing(tmp_path / "b") as partial:
        private(partial)
    with replacing(tmp_path / "c.safetensors") as partial:
        safetensors.torch.save_file({"x": torch.ones(1)}, partial)
    with replacing_directory(tmp_path / "d") as partial:
        private(partial / "inner")
    for name in ("a.json", "b", "c.safetensors", "d/inner"):
        assert mode(tmp_path / name) == 0o666 & ~umask, name
    assert mode(tmp_path / "d") == 0o777 & ~umask


def test_what_is_written_is_flushed_before_it_appears(tmp_path, monkeypatch):
    """File, then rename, then the directory that names it; of a directory all that is in it."""
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: done.append(os.readlink(f"/proc/self/fd/{handle}")) or fsync(handle)
    )
    monkeypatch.setattr(os, "replace", lambda old, new: done.append("replace") or replace(old, new))
    with replacing(tmp_path / "a") as partial:
        partial.write_text("a")
    assert done == [str(partial), "replace", str(tmp_path)]
    done.clear()
    with replacing_directory(tmp_path / "d") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "b").write_text("b")
    where = done.index("replace")
    assert set(done[:where]) == {str(partial), str(partial / "deep"), str(partial / "deep" / "b")}
    assert done[where:] == ["replace", str(tmp_path)]


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    before = tree(tmp_path)
    for writer, name in ((replacing, "file"), (replacing_directory, "folder"), (replacing, "new")):
        with pytest.raises(IsADirectoryError), writer(tmp_path / name) as partial:
            (partial / "file" if partial.is_dir() else partial).write_text("half") and tmp_path.read_text()
    assert tree(tmp_path) == before


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    for content in ({"a": "1", "b": "1"}, {"b": "2", "c": "2"}):
        with replacing_directory(tmp_path / "student") as partial:
            for name, text in content.items():
                (partial / name).write_text(text)
        assert tree(tmp_path) == {f"student/{name}": text for name, text in content.items()}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("calls", range(4))
def test_a_kill_at_any_moment_leaves_the_old_directory_or_the_new_one(tmp_path, monkeypatch, calls):
    """Dies at each system call that renames or removes; then the next start tidies up."""
    place = tmp_path / "run" / "student_best"
    with replacing_directory(place) as partial:
        (partial / "weights").write_text("old")
    left = [calls]

    def dying(real):
        def call(*arguments, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr("sak.files.shutil.rmtree", dying(__import__("shutil").rmtree))
        try:
            with replacing_directory(place) as partial:
                (partial / "weights").write_text("new")
        except Killed:
            pass
    tidy(place.parent)
    assert tree(place.parent) in ({"student_best/weights": "old"}, {"student_best/weights": "new"})
    assert [path.name for path in place.parent.iterdir()] == ["student_best"]
    with replacing_directory(place) as partial:
        (partial / "weights").write_text("newest")
    assert tree(place.parent) == {"student_best/weights": "newest"}


def test_a_directory_that_was_set_aside_comes_back(tmp_path):
    """As a kill between the two renames leaves it."""
    (tmp_path / ".student_best.replaced").mkdir()
    (tmp_path / ".student_best.replaced" / "weights").write_text("old")
    (tmp_path / ".student_best.17.partial").mkdir()
    (tmp_path / ".results.md.17.partial").write_text("half")
    tidy(tmp_path)
    assert tree(tmp_path) == {"student_best/weights": "old"}


def test_a_link_to_a_directory_is_replaced_and_its_target_left(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "weights").write_text("old")
    (tmp_path / "student").symlink_to("disk")
    with replacing_directory(tmp_path / "student") as partial:
        (partial / "weights").write_text("new")
    assert tree(tmp_path) == {"disk/weights": "old", "student/weights": "new"}


@pytest.mark.parametrize("writer", [replacing, replacing_directory])
@pytest.mark.parametrize("place", ["file/deeper", "folder", "n" * 250, "circle/deeper"])
def test_a_refusal_of_the_system_names_the_file_that_was_meant(tmp_path, writer, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "circle").symlink_to("circle")
    if (writer, place) == (replacing_directory, "folder"):
        place = "file"
    before = tree(tmp_path)
    with pytest.raises(OSError) as error, writer(tmp_path / place) as partial:  # noqa: PT011  (any, with a name)
        partial.write_text("") if writer is replacing else None
    named = [error.value.filename, error.value.filename2]
    assert any(str(name).startswith(str(tmp_path / place.split("/")[0])) for name in named if name)
    assert tree(tmp_path) == before


def test_a_full_disk_says_which_file(tmp_path):
    with pytest.raises(OSError) as error, about(tmp_path / "events"), open("/dev/full", "w") as file:  # noqa: PT011
        file.write("scalar")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "events"))
    with pytest.raises(FileNotFoundError) as error, about("somewhere"):
        open(tmp_path / "nowhere")  # noqa: SIM115
    assert error.value.filename == str(tmp_path / "nowhere")  # what has a name keeps it
    with pytest.raises(ConnectionResetError) as error, about("somewhere"):  # of a worker process, say
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    assert error.value.filename is None


def test_the_tensor_library_s_own_errors_are_the_system_s(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as error, writing_safetensors(tmp_path / "folder"):  # noqa: PT011
        safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "folder")
    assert error.value.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
    assert error.value.filename == str(tmp_path / "folder")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff", b"null", b'{"a": 1}', b"[" * 100_000, "é".encode("utf-16")]
)
def test_json_that_is_not_ours_is_one_sentence(tmp_path, content):
    (tmp_path / "best.json").write_bytes(content)
    with pytest.raises(UserError, match=r"best.json is corrupt \(.*\): delete it, or restore it"):
        read_json(tmp_path / "best.json", ["a", "b"])


def test_json_that_is_ours(tmp_path):
    write_json(tmp_path / "best.json", {"a": 1.5, "ü": None})
    assert (
        read_json(tmp_path / "best.json", ["a"])
        == json.loads((tmp_path / "best.json").read_text())
        == {"a": 1.5, "ü": None}
    )
