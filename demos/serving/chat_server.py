"""The routes of the OpenAI-compatible server; the clients take turns at the model."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.requests.hosts import LOOPBACK_HOSTS, is_allowed_host
from unipixel.demos.security.sandboxed_video import SandboxedVideo
from unipixel.demos.serving.api_errors import ApiError
from unipixel.demos.serving.chat_request import ChatRequest, parse_request
from unipixel.demos.serving.media_sources import MediaSources
from unipixel.demos.sessions.work_queue import WorkQueue
from unipixel.output.result import Result
from unipixel.session.callbacks import Cancelled
from unipixel.session.session import open_session
from unipixel.session.settings import SessionSettings
from unipixel.video.open import Video

_POLL_SECONDS = 0.2
_BODY_SECONDS = 120.0


class ChatServer:
    """Answers chat completions with one model.

    Attributes:
        application: The ASGI application.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        model_name: str,
        sources: MediaSources,
        limits: Limits,
        settings: SessionSettings,
        keys: Sequence[str] = (),
    ) -> None:
        """Create the server; without keys it answers requests to loopback names only.

        Args:
            model: A UniPixel or Pixel-SAIL.
            processor: Its processor.
            model_name: Name of the model in requests.
            sources: The media that requests may name.
            limits: Limits of a request.
            settings: Settings of the sessions; their `max_new_tokens` is the maximum of a request.
            keys: API keys.
        """
        self._model, self._processor, self._name = model, processor, model_name
        self._sources, self._limits, self._settings = sources, limits, settings
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._queue = WorkQueue(
            num_slots=1, max_waiting=limits.max_waiting, max_waiting_per_client=limits.max_waiting_per_client
        )
        self._executor = ThreadPoolExecutor(limits.max_waiting + 2, thread_name_prefix="unipixel-serve")
        self._counts: Counter[str] = Counter()
        self._num_open = 0
        self.application = FastAPI(openapi_url=None)
        self.application.add_api_route("/healthz", self._healthz, methods=["GET"], response_model=None)
        self.application.add_api_route("/metrics", self._metrics, methods=["GET"], response_model=None)
        self.application.add_api_route("/v1/models", self._models, methods=["GET"], response_model=None)
        self.application.add_api_route("/v1/chat/completions", self._chat, methods=["POST"], response_model=None)

    async def _healthz(self) -> Response:
        return PlainTextResponse("ok\n")

    async def _metrics(self, request: Request) -> Response:
        try:
            self._client_of(request)
        except ApiError as error:
            return JSONResponse(error.to_dict(), error.status)
        lines = []
        for name in ("requests", "failed_requests", "cancelled_requests", "generated_tokens", "work_milliseconds"):
            lines += [f"# TYPE unipixel_{name}_total counter", f"unipixel_{name}_total {self._counts[name]}"]
        lines += ["# TYPE unipixel_waiting_requests gauge", f"unipixel_waiting_requests {self._queue.num_waiting}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def _models(self, request: Request) -> Response:
        try:
            self._client_of(request)
        except ApiError as error:
            return JSONResponse(error.to_dict(), error.status)
        entry = {"id": self._name, "object": "model", "created": 0, "owned_by": "unipixel"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def _chat(self, request: Request) -> Response:
        self._counts["requests"] += 1
        is_counted = False
        try:
            client = self._client_of(request)
            if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                raise ApiError("the content type must be application/json", status=415)
            if self._num_open > self._limits.max_waiting:
                raise ApiError(f"{self._num_open} requests are in progress, the maximum: try again later", status=503)
            self._num_open, is_counted = self._num_open + 1, True
            events = self._events(request, client, await self._read_body(request))
            wanted = await anext(events)
            if wanted.is_streamed:
                return StreamingResponse(self._stream(wanted, events), media_type="text/event-stream")
            async for event in events:
                if isinstance(event, dict):
                    return JSONResponse(event)
            return Response(status_code=499)
        except (ApiError, StopAsyncIteration) as error:
            self._counts["failed_requests"] += 1
            found = error if isinstance(error, ApiError) else ApiError("the client has disconnected", status=499)
            return JSONResponse(found.to_dict(), found.status)
        finally:
            self._num_open -= is_counted

    def _client_of(self, request: Request) -> str:
        """Return the client: its key, or its address.

        Raises:
            ApiError: The key is wrong, or the Host header is not a loopback name.
        """
        if not self._keys:
            if not is_allowed_host(request.headers.get("host", "").encode("latin-1"), LOOPBACK_HOSTS):
                raise ApiError("a server without API keys answers at loopback addresses only", status=403)
            return request.client.host if request.client else ""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        # All keys are compared, each in constant time.
        found = [hmac.compare_digest(digest, known) for known in self._keys]
        if scheme.lower() != "bearer" or not any(found):
            raise ApiError("the API key is missing or wrong: send Authorization: Bearer KEY", status=401)
        return f"key {found.index(True)}"

    async def _read_body(self, request: Request) -> bytes:
        ceiling = int(self._limits.max_upload_megabytes * MEGABYTE * 4 / 3) + MEGABYTE

        async def read() -> bytes:
            content = bytearray()
            async for block in request.stream():
                content += block
                if len(content) > ceiling:
                    raise ApiError(f"the body is larger than the maximum of {ceiling} bytes", status=413)
            return bytes(content)

        try:
            return await asyncio.wait_for(read(), _BODY_SECONDS)
        except asyncio.TimeoutError as error:
            raise ApiError(f"the body took longer than {_BODY_SECONDS:g} seconds", status=408) from error

    async def _events(self, request: Request, client: str, body: bytes) -> AsyncIterator[Any]:
        """Yield the request when the work begins, pieces of text, and the completion; nothing after a disconnection.

        Raises:
            ApiError: The request failed.
        """
        loop, queue, stopped = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def emit(event: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed when the server ends
                loop.call_soon_threadsafe(queue.put_nowait, event)

        def report(future: Future[None]) -> None:
            if (error := future.exception()) is not None:
                emit(ApiError.of(error))
                if ApiError.of(error).status == 500:
                    logging.getLogger(__name__).error("a request failed", exc_info=error)

        self._executor.submit(self._work, client, body, stopped, emit).add_done_callback(report)
        try:
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _POLL_SECONDS)
                except asyncio.TimeoutError:
                    if await request.is_disconnected():
                        return
                    continue
                if isinstance(event, ApiError):
                    raise event
                yield event
                if isinstance(event, dict):
                    return
        finally:
            stopped.set()

    def _work(self, client: str, body: bytes, stopped: threading.Event, emit: Any) -> None:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ApiError(f"the body is not JSON: {error}") from error
        wanted = parse_request(
            content,
            limits=self._limits,
            max_tokens=self._settings.generation.max_new_tokens,
            model_name=self._name,
        )
        with self._queue.slot(client=client, should_stop=stopped.is_set) as slot:
            if not slot:
                self._counts["cancelled_requests"] += 1
                return
            start = time.monotonic()
            try:
                emit(self._answer(wanted, stopped, emit, deadline=start + self._limits.max_work_seconds))
            except Cancelled as error:
                self._counts["cancelled_requests"] += 1
                if not stopped.is_set():
                    message = f"the work took longer than {self._limits.max_work_seconds:g} seconds"
                    raise ApiError(message, status=504) from error
            finally:
                self._counts["work_milliseconds"] += round(1000 * (time.monotonic() - start))

    def _answer(self, wanted: ChatRequest, stopped: threading.Event, emit: Any, *, deadline: float) -> dict[str, Any]:
        num_tokens = 0

        def on_text(piece: str) -> None:
            nonlocal num_tokens
            num_tokens += 1

        with tempfile.TemporaryDirectory(prefix="unipixel-serve-") as name:
            path = self._sources.copy(wanted.media_url, Path(name))
            source = SandboxedVideo(path, name="the video", limits=self._limits)
            with contextlib.closing(source):
                settings = replace(self._settings, num_frames=wanted.num_frames, generation=wanted.generation)
                session = open_session(self._model, self._processor, Video(source), settings=settings)
                for object_id, group in wanted.prompts.items():
                    session.prompt(object_id, *group)
                emit(wanted)
                result = session.ask(
                    wanted.question,
                    on_text=on_text,
                    should_stop=lambda: stopped.is_set() or time.monotonic() > deadline,
                )
        self._counts["generated_tokens"] += num_tokens
        return _completion(result, wanted, self._name, num_tokens)

    async def _stream(self, wanted: ChatRequest, events: AsyncIterator[Any]) -> AsyncIterator[str]:
        try:
            async for event in events:
                if isinstance(event, dict):
                    for chunk in _chunks(event, wanted):
                        yield f"data: {json.dumps(chunk)}\n\n"
            yield "data: [DONE]\n\n"
        except ApiError as error:
            self._counts["failed_requests"] += 1
            yield f"data: {json.dumps(error.to_dict())}\n\n"


def _completion(result: Result, wanted: ChatRequest, model_name: str, num_tokens: int) -> dict[str, Any]:
    objects = result.to_dict()["objects"]
    if not wanted.returns_masks:
        objects = [{name: value for name, value in item.items() if name != "frames"} for item in objects]
    message = {"role": "assistant", "content": result.text, "refusal": None, "unipixel": {"objects": objects}}
    is_cut = num_tokens >= wanted.generation.max_new_tokens
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length" if is_cut else "stop"}
    usage = {
        "prompt_tokens": result.num_read_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": result.num_read_tokens + num_tokens,
    }
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model_name,
        "choices": [choice],
        "usage": usage,
    }


def _chunks(completion: dict[str, Any], wanted: ChatRequest) -> list[dict[str, Any]]:
    """Return a completion as chunks: the text word by word, then the objects, then the usage if it is wanted."""
    base = {**completion, "object": "chat.completion.chunk"}
    usage = base.pop("usage")
    choice = completion["choices"][0]
    message = choice["message"]
    words = message["content"].split(" ")
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f" {word}" if index else word} for index, word in enumerate(words)]
    chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    last = {"index": 0, "delta": {"unipixel": message["unipixel"]}, "finish_reason": choice["finish_reason"]}
    chunks.append({**base, "choices": [last]})
    return [*chunks, {**base, "choices": [], "usage": usage}] if wanted.includes_usage else chunks
