"""The folder of a model: likra.json, the heads as plain PEFT adapters, and README.md.

Nothing in it is executed: weights are safetensors, and the rest is JSON and text. A prompt template
is rendered in Jinja's sandbox.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from likra.atomic import replacing
from likra.checksum import ChecksumError, checked, with_checksum
from likra.errors import LikraError, unknown
from likra.heads.base import BaseModel, fingerprint, open_model
from likra.heads.lora import Head
from likra.heads.quantized import FOUR_BIT, is_four_bit
from likra.heads.stamp import CONFIG, WEIGHTS
from likra.hub import hub_or_cache, reason
from likra.model import trained
from likra.model.card import CURVE, card, draw_curve
from likra.model.evidence import Chosen, Evidence
from likra.model.parts import Parts, check_weight, term_named
from likra.model.prompt import Prompt
from likra.model.terms import BASE, PRIOR, Prior
from likra.scores.ratio import MODES
from likra.scores.selection import CANDIDATES, Ranking

FILE, FORMAT = "likra.json", 2  # 1 has no prompt template
CARD = "README.md"
ADAPTER = (CONFIG, WEIGHTS)  # what a PEFT adapter takes


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return (folder / FILE).is_file()


def check_output(folder: Path) -> None:
    """Refuse to write a model where something else is.

    Raises:
        LikraError: the folder holds other files, or is a file.

    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not is_model(folder)):
        raise LikraError(f"'{folder}' holds something else than a model: give another output")


def save(model: Parts, folder: Path, name: str | None = None) -> Path:
    """Write a model: see `likra.model.likra.Likra.save_pretrained`.

    The card calls it by ``name``, by default the folder's.
    """
    check_output(folder)
    heads = dict(model.heads)
    content = _content(model, heads)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for head_name, head in heads.items():
            _copy_adapter(head, temporary / head_name)
        content |= trained.write(model.trained, temporary)
        text = json.dumps(with_checksum(content), indent=1, ensure_ascii=False)
        (temporary / FILE).write_text(text + "\n", encoding="utf-8")
        if model.chosen is not None and model.chosen.evidence.growth:
            draw_curve(model.chosen.evidence, temporary / CURVE)
        (temporary / CARD).write_text(card(model, name or folder.name), encoding="utf-8")
    return folder


def identity(model: Parts) -> str:
    """SHA-256 of all that decides what a model answers."""
    content = json.dumps(_content(model, dict(model.heads)), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _content(model: Parts, heads: dict[str, Head]) -> dict[str, Any]:
    """What ``likra.json`` holds; a head that is a term alone is added to the heads."""
    terms = _terms(model, heads)
    return {
        "format": FORMAT if model.prompt.template else 1,  # which older versions read
        **terms,
        "base": {
            "name": model.base.name,
            "fingerprint": fingerprint(model.base),
            **({"dtype": FOUR_BIT} if is_four_bit(model.base.model) else {}),
        },
        "heads": {name: _digest(head.folder) for name, head in heads.items() if head.folder},
        "prompt": model.prompt.as_json,
        "per_character": model.per_character,
        "truncate": model.truncate,
        "fit": None if model.chosen is None else asdict(model.chosen),
    }


def _terms(model: Parts, heads: dict[str, Head]) -> dict[str, Any]:
    """The names of the terms; a head that has none yet is added to the heads."""
    known = {head.folder: name for name, head in heads.items()}
    names: dict[str, str | None] = {"negative": None}
    for place, term in (("positive", model.positive), ("negative", model.negative)):
        if term is None:
            continue
        if term.base is not model.base:
            raise LikraError(
                f"the {place} term is another model ('{term.base.name}'), which a folder does not "
                "keep: put it together again with Likra(...)"
            )
        if isinstance(term, Prior):
            names[place] = PRIOR
        elif term.folder is None:
            names[place] = BASE
        else:
            names[place] = known.setdefault(term.folder, place)
            heads[known[term.folder]] = term
    return {**names, "weight": model.weight}


def _copy_adapter(head: Head, folder: Path) -> None:
    folder.mkdir()
    assert head.folder is not None
    try:
        for name in ADAPTER:
            shutil.copyfile(head.folder / name, folder / name)
    except OSError as error:
        raise LikraError(f"cannot copy the head in '{head.folder}': {error}") from error


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    try:
        for name in ADAPTER:
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise LikraError(f"cannot read the head in '{folder}': {error}") from error
    return digest.hexdigest()


def _chosen_from_json(values: Mapping[str, Any] | None) -> Chosen | None:
    if values is None:
        return None
    return Chosen(
        Ranking(**values["ranking"]),
        values["temperature"],
        tuple(values["confidence"]),
        tuple(values["correct"]),
        Evidence.from_json(values["evidence"]),
        values["inputs"],
    )


# --------------------------------------------------------------------------------------------
# Opening


def read(folder: Path) -> dict[str, Any]:
    """The content of ``likra.json``.

    Raises:
        LikraError: there is none, it cannot be read, or a newer likra wrote it.

    """
    path = folder / FILE
    if not path.is_file():
        raise LikraError(f"no model in '{folder}': there is no {FILE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = int(content["format"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise LikraError(f"cannot read '{path}' ({type(error).__name__})") from error
    if version > FORMAT:
        raise LikraError(
            f"'{path}' has format {version}, and this version of likra reads up to {FORMAT}: "
            "pip install --upgrade likra"
        )
    try:
        return checked(content)
    except ChecksumError as error:
        raise LikraError(
            f"'{path}' is not as likra wrote it: it is damaged, or was changed by hand; restore it "
            "from a copy, or take out its 'checksum' to keep the change"
        ) from error


def fitted_digest(folder: Path) -> str | None:
    """What the model in a folder was fitted from; None where there is none."""
    if not is_model(folder):
        return None
    return (read(folder).get("fit") or {}).get("inputs")


def check_heads(folder: Path, content: Mapping[str, Any]) -> None:
    """Refuse a model whose heads are not as they were saved.

    Raises:
        LikraError: a head is missing, or was changed.

    """
    for name, digest in content["heads"].items():
        if not re.fullmatch(r"\w[\w-]*", name):  # it is a folder beside the file
            raise LikraError(f"'{folder / FILE}': '{name:.60}' is no name of a head")
        missing = [file for file in ADAPTER if not (folder / name / file).is_file()]
        if missing:
            path = folder / name / missing[0]
            raise LikraError(f"the {name} head is missing: there is no '{path}'")
        if _digest(folder / name) != digest:
            raise LikraError(f"the {name} head in '{folder / name}' was changed after it was saved")


def check_base(base: BaseModel, folder: Path, expected: str) -> None:
    """Refuse another base model than the one that a model was made with.

    Raises:
        LikraError: it has other weights, or another tokenizer.

    """
    if base.model.dtype != torch.float16 and fingerprint(base) != expected:  # see `fingerprint`
        raise LikraError(
            f"'{base.name}' is not the base that the heads in '{folder}' were trained on: its "
            "weights or its tokenizer are others"
        )


def load(
    name: Path | str,
    *,
    base: BaseModel | str | None = None,
    mode: str | None = None,
    weight: float | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> Parts:
    """Open a model: see `likra.model.likra.Likra.from_pretrained`."""
    folder = local_folder(str(name))
    content = read(folder)
    with _readable(folder / FILE):
        check_heads(folder, content)
        if not isinstance(base, BaseModel):
            known = content["base"]
            kind = dtype or known.get("dtype")
            base = open_model(base or known["name"], dtype=kind, device=device)
        check_base(base, folder, content["base"]["fingerprint"])
        kept = _kept(folder, content, base)
    if mode is not None and (kept.chosen is None or mode != kept.chosen.ranking.mode):
        kept = _in_mode(kept, mode, folder)
    if weight is not None and weight != kept.weight:
        check_weight(weight)
        if kept.negative is None:
            raise LikraError("the model has no negative term that a weight could be of: give mode=")
        kept = replace(kept, weight=weight, chosen=None)  # another weight was calibrated
    return kept


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What is wrong with the content of a file becomes one clear error."""
    try:
        yield
    except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise LikraError(f"cannot read '{path}': {type(error).__name__}: {error}") from error


def _kept(folder: Path, content: Mapping[str, Any], base: BaseModel) -> Parts:
    """The parts as they were saved."""
    heads = {name: Head(base, folder / name) for name in content["heads"]}
    negative = content["negative"]
    return Parts(
        term_named(content["positive"], heads, base),
        None if negative is None else term_named(negative, heads, base),
        content["weight"],
        prompt=Prompt(**content["prompt"]),
        per_character=content["per_character"],
        truncate=content["truncate"],
        chosen=_chosen_from_json(content["fit"]),
        heads=heads,
        trained=trained.read(folder, content),
    )


def _in_mode(kept: Parts, mode: str, folder: Path) -> Parts:
    """The same heads in another mode, which nothing was calibrated for."""
    if mode not in CANDIDATES:
        raise unknown("mode", mode, CANDIDATES)
    terms = MODES[mode]
    lacking = {terms.positive, terms.negative} - {BASE, PRIOR, *kept.heads}
    if lacking:
        raise LikraError(f"mode {mode} needs a {lacking.pop()} head, and '{folder}' has none")
    negative = term_named(terms.negative, kept.heads, kept.base) if terms.weighted else None
    return replace(
        kept,
        positive=term_named(terms.positive, kept.heads, kept.base),
        negative=negative,
        weight=0.0 if negative is None else kept.weight or 1.0,
        per_character=False,
        chosen=None,
    )


def base_fingerprint(folder: Path) -> str:
    """Which base model the heads in a folder are of: see `likra.heads.base.fingerprint`.

    Raises:
        LikraError: as `read`.

    """
    content = read(folder)
    with _readable(folder / FILE):
        return str(content["base"]["fingerprint"])


def local_folder(name: str) -> Path:
    """The folder itself, or that of the cache for a model on the hub.

    Raises:
        LikraError: it is neither here nor on the hub.

    """
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        with hub_or_cache():
            return Path(snapshot_download(name))
    except Exception as error:  # the hub and the network: many types
        raise LikraError(
            f"no model '{name}': it is no folder here, and not on the Hugging Face hub "
            f"({reason(error)})"
        ) from error


def push(model: Parts, name: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a model: see `likra.model.likra.Likra.push_to_hub`."""
    from huggingface_hub import HfApi

    if Path(model.base.name).exists():
        raise LikraError(
            f"the base model is a folder or file of this machine ('{model.base.name}'), which "
            "nobody else has: open the model with base=OWNER/NAME, the same on the hub, and push "
            "that (`likra push --base OWNER/NAME`)"
        )
    api = HfApi(token=token)
    with TemporaryDirectory(prefix="likra-") as scratch:
        folder = save(model, Path(scratch) / "model", name)
        try:
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Likra model")
        except Exception as error:  # the hub and the network: many types
            text = " ".join(str(error).split())
            raise LikraError(f"cannot upload to '{name}': {text[:240]}") from error
    return str(address)
