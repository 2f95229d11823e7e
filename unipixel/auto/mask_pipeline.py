"""The task `video-mask-generation` of the pipelines of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

if TYPE_CHECKING:
    from unipixel.output.result import Result

TASK = "video-mask-generation"


class VideoMaskGenerationPipeline(Pipeline):
    """Asks a question about a video; the result has the answer and the masks of its objects."""

    # That of transformers takes its own class alone.
    _load_processor = False
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **options: Any) -> None:
        """Prepare a pipeline; `transformers.pipeline` calls this.

        Raises:
            OSError: The folder of the model has no tokenizer.
        """
        super().__init__(*args, **options)
        self.processor: Any = options.get("processor") or AutoProcessor.from_pretrained(self.model.name_or_path)

    def __call__(self, video: Any, question: str = "", **options: Any) -> Result:
        """Ask one question about one video.

        Args:
            video: Any source that `open_video` accepts: a file, a folder of frames, arrays.
            question: The question; `[id]` names an object of the prompts.
            options: `points`, `boxes` and `masks` by object id, and fields of `SessionSettings`, as for `unipixel.ask`.

        Raises:
            OSError: The video cannot be read.
            ValueError: There is no question, a prompt is outside the video, or the question names an unknown object.
            TypeError: A prompt has another form, or a setting is unknown.
        """
        if not question:
            raise ValueError(f"the pipeline {TASK} needs a question: pipe(video, 'Segment the red circle.')")
        # As one value, because a pipeline takes a list, such as that of the frames, for several inputs.
        result: Result = super().__call__({"video": video, "question": question}, **options)
        return result

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.model!r}>"

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, options, {}

    def preprocess(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the request as it is: the session prepares its own frames."""
        return request

    def _forward(self, request: dict[str, Any], **options: Any) -> Result:
        from unipixel.session.asking import ask

        return ask(request["video"], request["question"], model=self.model, processor=self.processor, **options)

    def postprocess(self, result: Result) -> Result:
        """Return the result as it is."""
        return result


if TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(TASK, VideoMaskGenerationPipeline, pt_model=AutoModel, type="video")
