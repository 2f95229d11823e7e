"""AutoConfig, AutoModel and AutoProcessor of transformers with checkpoints of UniPixel."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.python_program import run_python
from helpers.sail_model import recorded_sail
from transformers import AutoConfig, AutoModel, AutoProcessor

from unipixel import PixelSail, Processor, SailProcessor, UniPixel, UniPixelConfig
from unipixel.assets import sample_path
from unipixel.checkpoints.files import BUNDLED
from unipixel.checkpoints.hub_options import split_options


def same_weights(first: UniPixel, second: UniPixel) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(tensor.float(), theirs[name].float()) for name, tensor in first.state_dict().items())


def test_auto_model_is_the_model_of_from_pretrained(checkpoint: Path) -> None:
    found = AutoModel.from_pretrained(
        str(checkpoint), dtype="auto", device_map="auto", attn_implementation="sdpa", local_files_only=True
    )
    own = UniPixel.from_pretrained(checkpoint)
    assert isinstance(found, UniPixel)
    assert found.dtype == own.dtype
    assert same_weights(found, own)
    assert not found.training


def test_auto_model_takes_a_type_and_an_attention(checkpoint: Path) -> None:
    model = AutoModel.from_pretrained(str(checkpoint), dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.model.language_model.config._attn_implementation == "eager"


def test_auto_config_has_the_fields_of_the_file_and_reads_ours(checkpoint: Path) -> None:
    config = AutoConfig.from_pretrained(str(checkpoint))
    fields = json.loads((checkpoint / "config.json").read_text())
    assert config.model_type == "pixel_qwen2_5_vl"
    assert config.seg_token_id == fields["seg_token_id"]
    assert isinstance(config.read(), UniPixelConfig)
    assert config.read() == UniPixel.from_pretrained(checkpoint).config
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = config.nothing


def test_auto_model_of_a_configuration_has_new_weights(checkpoint: Path) -> None:
    model = AutoModel.from_config(AutoConfig.from_pretrained(str(checkpoint)))
    own = UniPixel.from_pretrained(checkpoint)
    assert model.config == own.config
    assert not same_weights(model, own)


def test_auto_processor_is_the_processor(checkpoint: Path, processor: Processor) -> None:
    found = AutoProcessor.from_pretrained(str(checkpoint))
    assert isinstance(found, Processor)
    assert found.budget == processor.budget
    assert found.tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_auto_classes_load_pixel_sail(tmp_path: Path) -> None:
    own, processor = recorded_sail()
    own.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = AutoModel.from_pretrained(str(tmp_path), dtype="auto", attn_implementation="sdpa", local_files_only=True)
    assert isinstance(found, PixelSail)
    assert found.name_or_path == str(tmp_path)
    theirs = own.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.state_dict().items())
    assert AutoConfig.from_pretrained(str(tmp_path)).read() == found.config
    assert isinstance(AutoProcessor.from_pretrained(str(tmp_path)), SailProcessor)


def test_normal_use_prints_no_warning_of_another_library() -> None:
    program = (
        # The auto classes are imported after the package here, and before it at the top of this module.
        "import unipixel; from transformers import AutoModel, AutoProcessor; "
        f"folder = {str(BUNDLED / 'unipixel-nano')!r}; "
        "model = AutoModel.from_pretrained(folder, dtype='auto'); processor = AutoProcessor.from_pretrained(folder); "
        f"session = unipixel.Session(model, processor, {str(sample_path())!r}); "
        "session.prompt(1, unipixel.PointPrompt(65, 85)); print(session.ask('What colour is [1]?').text)"
    )
    assert run_python(program) == "It is red.\n"


def test_saved_model_and_processor_load_from_one_folder(model: UniPixel, processor: Processor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved", processor=processor)
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert same_weights(AutoModel.from_pretrained(str(tmp_path / "saved")), model)
    assert isinstance(AutoProcessor.from_pretrained(str(tmp_path / "saved")), Processor)


@pytest.mark.parametrize("part", ["model", "processor"])
def test_push_to_hub_uploads_what_is_saved(
    model: UniPixel, processor: Processor, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    uploads: list[dict[str, Any]] = []

    class Commit:
        commit_url = "https://hub/commit"

    class Repository:
        repo_id = "me/model"

    class Api:
        def __init__(self, token: Any = None) -> None:
            assert token == "secret"

        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Repository:
            assert (repo_id, private, exist_ok) == ("me/model", True, True)
            return Repository()

        def upload_folder(self, *, folder_path: str, **options: Any) -> Commit:
            uploads.append({"files": sorted(os.listdir(folder_path)), **options})
            return Commit()

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    if part == "model":
        address = model.push_to_hub("me/model", processor=processor, private=True, token="secret", revision="main")
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(uploads[0]["files"])
    else:
        address = processor.push_to_hub("me/model", private=True, token="secret", revision="main")
        assert "tokenizer.json" in uploads[0]["files"]
    assert address == "https://hub/commit"
    assert (uploads[0]["repo_id"], uploads[0]["revision"]) == ("me/model", "main")


def test_hub_options_reach_the_download(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        asked.append({"name": name, **options})
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    UniPixel.from_pretrained("owner/name", revision="v1", token="secret", local_files_only=True)
    Processor.from_pretrained("owner/name", revision="v1")
    assert asked[0] == {
        "name": "owner/name", "revision": "v1", "token": "secret", "local_files_only": True,
        "allow_patterns": ["*.safetensors", "*.json", "*.txt"],
    }  # fmt: skip
    assert asked[1]["revision"] == "v1"


@pytest.mark.parametrize(
    ("options", "translated"),
    [
        ({"torch_dtype": "bfloat16"}, {"dtype": torch.bfloat16}),
        ({"dtype": "torch.float16"}, {"dtype": torch.float16}),
        ({"dtype": "auto"}, {"dtype": "auto"}),
        ({"device_map": "cpu"}, {"device": "cpu"}),
        ({"device_map": {"": "cpu"}}, {"device": "cpu"}),
        ({"device_map": 1}, {"device": "cuda:1"}),
        ({"device_map": None, "attn_implementation": None, "trust_remote_code": False}, {}),
        ({"attn_implementation": "eager"}, {"attention": "eager"}),
    ],
)
def test_options_of_transformers_are_translated(options: dict[str, Any], translated: dict[str, Any]) -> None:
    assert split_options(options) == ({}, translated)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "float8"}, ValueError, "dtype 'float8' is not supported: allowed are auto, float32"),
        ({"device_map": {"model": 0, "sam2": "cpu"}}, ValueError, "device_map divides the model among"),
        ({"dtype": "auto", "torch_dtype": "auto"}, TypeError, "dtype is given twice"),
        ({"load_in_8bit": True}, TypeError, "load_in_8bit"),
    ],
)
def test_options_that_are_not_supported_are_refused(
    checkpoint: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        UniPixel.from_pretrained(checkpoint, **options)


def test_num_parameters_counts_each_parameter_once(model: UniPixel) -> None:
    unique = {parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}
    assert model.num_parameters() == sum(unique.values())
    assert model.num_parameters(only_trainable=True) == model.num_parameters()


def test_processor_called_gives_inputs_that_generate(model: UniPixel, processor: Processor, clip: Path) -> None:
    from unipixel.model.generation import GenerationSettings

    inputs = processor("What moves?", videos=clip)
    (answer,) = model.generate(inputs, settings=GenerationSettings(max_new_tokens=3))
    assert len(answer.token_ids) <= 3
    assert isinstance(processor.decode(answer.token_ids), str)
    assert processor("How are you?").videos == ()
    with pytest.raises(ValueError, match="not both"):
        processor("What?", videos=clip, images=clip)


def test_processor_decodes_an_answer_without_special_tokens(processor: Processor) -> None:
    ids = processor.tokenizer.encode("It is [1] <|seg|>.<|im_end|>", add_special_tokens=False)
    assert processor.decode(ids) == "It is [1]."
