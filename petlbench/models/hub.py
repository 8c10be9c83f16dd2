"""The Hugging Face hub: what a backbone's card or name points to, and what to do where access is refused."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from petlbench.core.environment import file_digest
from petlbench.core.errors import InputError, PetlbenchError, RunError
from petlbench.core.user_files import inside, read_json
from petlbench.models.card import BackboneCard, Source
from petlbench.models.folder_card import CONFIGS, PREPROCESSOR, card_of_folder
from petlbench.models.weight_files import WEIGHTS_FILES, check_weights_file, find_weights

_INDEX = ".index.json"


class _NotThereError(Exception):
    """The repository has no such file."""


@lru_cache
def card_of_repository(repository: str) -> BackboneCard:
    """The card of a repository on the hub, made of its configuration.

    Args:
        repository: ``ORGANISATION/NAME``, perhaps with ``@REVISION`` behind it.

    Raises:
        InputError: When there is none, access is refused, or it is of a model that timm cannot stand for.
        RunError: When the hub cannot be reached.
    """
    name, _, revision = repository.partition("@")
    source, title = Source(hub=name, revision=revision), f"hf-hub:{repository}"
    file = _first(source, CONFIGS, title)
    with suppress(_NotThereError):
        _fetch(source, PREPROCESSOR, title)
    return card_of_folder(file.parent, title, source)


def fetch_weights(card: BackboneCard) -> Path:
    """The file of a card's weights on this machine, fetched where it is not there yet.

    Raises:
        InputError: When the card names none, access is refused, or the file has another checksum.
        RunError: When the hub cannot be reached.
    """
    source = card.source
    if source.hub:
        names = WEIGHTS_FILES if source.file is None else (source.file,)
        file = _first(source, names, card.name)
        if file.name.endswith(_INDEX):
            shards = read_json(file, what="list of shards").get("weight_map") or {}
            for shard in sorted(set(map(str, shards.values()))):
                inside(file.parent, shard, what=f"a shard of {file}")
                _fetch(source, shard, card.name)
    elif card.folder is not None and (source.file is not None or card.folder == Path(card.name)):
        file = find_weights(
            card.folder if source.file is None else inside(card.folder, source.file, what="source.file")
        )
    else:
        raise InputError(
            f"the card of {card.name} does not say where its weights can be fetched",
            hint=f"get the file{f' from {card.home}' if card.home else ''} and give it with --weights FILE",
            kind="no_weights",
        )
    if source.sha256 is not None and source.sha256 != file_digest(file):
        raise InputError(
            f"weights file {file} is not the one that the card of {card.name} means: its SHA-256 is another one",
            hint="fetch it again, or take source.sha256 out of a card of your own",
            kind="bad_weights",
        )
    return file


def _first(source: Source, names: tuple[str, ...], backbone: str) -> Path:
    """The first of several files that a repository has."""
    for name in names:
        try:
            return _fetch(source, name, backbone)
        except _NotThereError:
            continue
    raise InputError(
        f"the repository {source.hub} of {backbone} has no {', no '.join(names)}",
        hint="say in a backbone card which file it is (source.file), or give --weights FILE",
        kind="no_weights",
    )


def _fetch(source: Source, file: str, backbone: str) -> Path:
    from huggingface_hub import constants, errors, hf_hub_download

    try:
        path = Path(hf_hub_download(source.hub, file, revision=source.revision or None))
    except errors.EntryNotFoundError as error:
        nobody_there = isinstance(error, errors.LocalEntryNotFoundError)
        if nobody_there and not _is_known_to_be_absent(source, file):
            raise _unreachable(source, backbone, error) from error
        raise _NotThereError from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise _refused(source, backbone, error, constants) from error
    except PetlbenchError:
        raise
    except Exception as error:  # the hub client raises many kinds, all of which mean the same to the user
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise _refused(source, backbone, error, constants) from error
        raise _unreachable(source, backbone, error) from error
    check_weights_file(path)
    return path


def _is_known_to_be_absent(source: Source, file: str) -> bool:
    """Whether the hub once said that a repository has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    return try_to_load_from_cache(source.hub, file, revision=source.revision or None) is _CACHED_NO_EXIST


def _refused(source: Source, backbone: str, error: Exception, constants: Any) -> InputError:
    """The error of a gate, and of a repository that is not there, which the hub answers alike without a token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    answer = f"the hub answers {status}" if status else "the hub refuses it"
    terms = f" Its terms: {source.terms}." if source.terms else ""
    return InputError(
        f"{backbone} cannot be fetched from {source.hub}: {answer}, so it is gated, private or not there",
        hint=f"ask for access at {constants.ENDPOINT}/{source.hub} and log in (hf auth login).{terms} The token is "
        f"looked for in the variable HF_TOKEN and in {constants.HF_TOKEN_PATH}; petlbench neither shows nor keeps it. "
        "Or give --weights FILE",
        kind="access_refused",
    )


def _unreachable(source: Source, backbone: str, error: Exception) -> RunError:
    return RunError(
        f"the weights of {backbone} could not be fetched from the hub ({source.hub}): {type(error).__name__}",
        hint="without a network, give --weights FILE, --weights none for random ones, or --backbone petlbench_micro, "
        "whose weights are here",
        kind="weights_unavailable",
    )
