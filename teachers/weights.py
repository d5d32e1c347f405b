"""Where a teacher's weights come from, and how they get into it: found or fetched, read, loaded strictly, reported."""

import dataclasses
import hashlib
import json
import urllib.error
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from sak.errors import UserError
from sak.files import replacing
from sak.tensors import metadata_of, read_tensors
from teachers.architecture import NOTES, compare, facts_of, noted
from teachers.checkpoints import State, of_network, opened

ABSENT = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)


@dataclasses.dataclass
class LoadReport:
    """What became of one file of weights.

    Attributes:
        source: the file.
        loaded: tensors that the backbone holds now.
        left_out: names in the file that play no part in the features: other towers, heads, necks.
        resized: names whose tensor was brought to another size, such as position embeddings.
        unwrapped: what trainings and tools had put around the names.
    """

    source: str
    loaded: int
    left_out: list[str]
    resized: list[str]
    unwrapped: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        """One line. The left out are named by what their names begin with."""
        parts = sorted({name.split(".")[0] if "." in name else name for name in self.left_out})
        unwrapped = f"; unwrapped: {', '.join(self.unwrapped)}" if self.unwrapped else ""
        resized = f"; resized: {', '.join(self.resized)}" if self.resized else ""
        left_out = f"; left out: {', '.join(parts)} ({len(self.left_out)})" if parts else ""
        return f"{self.loaded} tensors of {self.source}{unwrapped}{left_out}{resized}"


def found(path: str, files: Sequence[str] = ()) -> Path | None:
    """The file that a config's path names, in the working directory or beside this package.

    Args:
        files: what a folder's is called, the first that is there; of folders that hold a copy of a hub's repository.
    """
    places = [Path(path).expanduser(), Path(__file__).parent.parent / path]
    places += [place / file for place in places for file in files]
    return next((place for place in places if place.is_file()), None)


def local(path: str, teacher: str, files: Sequence[str] = ()) -> Path:
    """`found` of a teacher's weights.

    Raises:
        UserError: there is none.
    """
    file = found(path, files)
    if file is None:
        inside = f" nor a folder of that name with {' or '.join(files)}" if files else ""
        raise UserError(
            f"teacher {teacher}: there is no weights file {path}{inside}; correct `weights` or put the file there."
        )
    return file


def from_hub(
    teacher: str, repo: str, files: Sequence[str], revision: str | None = None, else_give: str = "its path as `weights`"
) -> Path:
    """The first of `files` that the Hugging Face repository holds, from the hub's cache or downloaded into it.

    Args:
        else_give: what the config may name instead, where there is no network.

    Raises:
        UserError: the repository is gated or does not exist, or there is neither a cached file nor a network.
    """
    page = f"https://huggingface.co/{repo}"
    missing = f"fetch {page}/resolve/{revision or 'main'}/{files[0]} elsewhere and give {else_give}"
    try:
        for file in files:
            try:
                return Path(hf_hub_download(repo, file, revision=revision))
            except EntryNotFoundError:
                if file == files[-1]:
                    raise
    except GatedRepoError as error:
        raise UserError(
            f"teacher {teacher}: the weights are gated; accept the terms at {page} and run `hf auth login`, "
            f"or {missing}."
        ) from error
    except (*ABSENT, OSError) as error:  # without a network: an entry that is not found locally, or an HTTP error
        if isinstance(error, LocalEntryNotFoundError) or not isinstance(error, ABSENT):
            raise UserError(
                f"teacher {teacher}: {files[0]} of {repo} is not in the cache ({constants.HF_HUB_CACHE}) and cannot be "
                f"downloaded; {missing}."
            ) from error
        what = f"revision {revision} of {repo}" if isinstance(error, RevisionNotFoundError) else repo
        raise UserError(
            f"teacher {teacher}: the hub has no {what} with {' or '.join(files)} that you may read; correct `model`, "
            "`options` or `revision`, or give a local file as `weights`."
        ) from error
    raise AssertionError("files is empty")


def from_url(teacher: str, url: str, sha256: str) -> Path:
    """The file at `url` from torch.hub's cache or downloaded into it; `sha256` is how its digest begins.

    Raises:
        UserError: there is neither a cached file nor a network, or the digest differs.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=sha256)  # appears whole or not at all
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"teacher {teacher}: {file} is not there and cannot be downloaded ({error}); fetch {url} elsewhere and "
                "put it there, or give its path as `weights`."
            ) from error
    check_sha256(file, sha256, teacher)
    return file


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):  # hashlib.file_digest is newer than Python 3.10
            digest.update(block)
    return digest.hexdigest()


def check_sha256(file: Path, begins: str, teacher: str) -> None:
    """Raise a `UserError` unless the file's SHA-256 begins so: a published file that is corrupt or is another."""
    digest = sha256_of(file)
    if not digest.startswith(begins):
        raise UserError(
            f"teacher {teacher}: the SHA-256 of {file} begins with {digest[: len(begins)]}, that of the "
            f"published file with {begins}; it is corrupt or another file under this name, fetch it again."
        )


def read(file: Path, teacher: str) -> State:
    """The tensors of a safetensors file, or of a torch file or TorchScript archive that holds a state dict somewhere.

    Raises:
        UserError: the file is corrupt, or holds code or no tensors.
    """
    try:
        return opened(read_tensors(file), file, noted(metadata_of(file), file))
    except UserError as error:
        raise UserError(f"teacher {teacher}: {error}") from error


def save(
    file: Path, tensors: Mapping[str, Tensor], network: nn.Module, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write tensors with notes of what their shapes do not tell of their network and of the pixels that it sees."""
    notes = {**facts_of(network), "mean": list(mean), "std": list(std)}
    with replacing(file) as partial:
        # One key alone: safetensors writes several in an order that differs from call to call.
        save_file(dict(tensors), partial, {NOTES: json.dumps(notes)})


def load(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str | Path,
    teacher: str,
    prefix: str = "",
    leave_out: tuple[str, ...] = (),
) -> LoadReport:
    """Load the tensors whose names start with `prefix` (cut off) into `module`, strictly.

    What trainings and tools put around the names is taken off before (`teachers.checkpoints`).

    `leave_out` names the beginnings of the names that the file may hold beside them.

    Raises:
        UserError: a name is missing, any other name is left over, a shape does not fit, or a tensor holds no real
            finite numbers; it names the first such. Or the file notes another architecture.
    """
    names = module.state_dict()
    state = unwrapped(state, names, source, teacher, prefix)
    left_out = [*state.beside, *(key for key in state if key.startswith(leave_out))]
    tensors = {key: value for key, value in state.items() if not key.startswith(leave_out)}
    own = {prefix + key: value for key, value in names.items()}
    misfits = [f"{key} has shape {tuple(tensors[key].shape)}, here {tuple(value.shape)}"
               for key, value in own.items() if key in tensors and tensors[key].shape != value.shape]  # fmt: skip
    for keys, problem in (
        ([key for key in own if key not in tensors], "lacks"),
        ([key for key in tensors if key not in own], "holds unknown"),
        (misfits, "does not fit:"),
    ):
        if keys:
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(f"teacher {teacher}: {source} {problem} {shown}; check family, model, options and weights.")
    check_numbers(tensors, own, source, teacher)
    compare(module, state.facts, source, teacher)
    module.load_state_dict({key.removeprefix(prefix): value for key, value in tensors.items()})
    return LoadReport(str(source), len(tensors), left_out, resized=[], unwrapped=state.unwrapped)


def unwrapped(
    state: Mapping[str, Tensor], names: Collection[str], source: str | Path, teacher: str, prefix: str = ""
) -> State:
    """As `checkpoints.of_network`, for the names of a module's state dict."""
    try:
        return of_network(state if isinstance(state, State) else State(state), names, prefix, source)
    except UserError as error:
        raise UserError(f"teacher {teacher}: {error}") from error


def check_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path, teacher: str) -> None:
    """Raise a `UserError` that names the first tensor that is to be one of `own` and holds no real finite numbers."""
    for key, value in state.items():
        if key not in own or not own[key].is_floating_point():
            continue
        if not value.is_floating_point() or value.layout != torch.strided:
            kind = str(value.dtype).removeprefix("torch.") if value.layout == torch.strided else "sparse numbers"
            raise UserError(
                f"teacher {teacher}: {source} holds {kind} in {key}, where real numbers are weights; save the model's "
                "weights in floating point."
            )
        if not value.to(own[key].dtype).isfinite().all():
            raise UserError(
                f"teacher {teacher}: {source} holds infinite values or NaN in {key}; take weights from before the "
                "training diverged, or fetch the file again."
            )
