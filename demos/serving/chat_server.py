"""The routes of the OpenAI-compatible server; the clients take turns at the model."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import tempfile
import threading
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
from unipixel.demos.serving.chat_answer import ChatAnswer, StopTexts
from unipixel.demos.serving.chat_request import ChatRequest, parse_request
from unipixel.demos.serving.media_sources import MediaSources
from unipixel.demos.serving.model_turn import ModelTurn
from unipixel.demos.sessions.work_queue import WorkQueue
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
        self._sessions: set[ModelTurn] = set()
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
                return StreamingResponse(self._stream(events), media_type="text/event-stream")
            async for completion in events:
                return JSONResponse(completion)
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

    async def _read_body(self, request: Request) -> bytearray:
        ceiling = int(self._limits.max_upload_megabytes * MEGABYTE * 4 / 3) + MEGABYTE

        async def read() -> bytearray:
            content = bytearray()
            async for block in request.stream():
                content += block
                if len(content) > ceiling:
                    raise ApiError(f"the body is larger than the maximum of {ceiling} bytes", status=413)
            return content

        try:
            return await asyncio.wait_for(read(), _BODY_SECONDS)
        except asyncio.TimeoutError as error:
            raise ApiError(f"the body took longer than {_BODY_SECONDS:g} seconds", status=408) from error

    async def _events(self, request: Request, client: str, body: bytearray) -> AsyncIterator[Any]:
        """Yield the request when the work begins, then its completion or chunks; nothing after a disconnection.

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
        # Not `wait_for`, which may lose an event when its time is over.
        received = asyncio.ensure_future(queue.get())
        try:
            while True:
                await asyncio.wait({received}, timeout=_POLL_SECONDS)
                if not received.done():
                    if await request.is_disconnected():
                        return
                    continue
                event = received.result()
                if isinstance(event, ApiError):
                    raise event
                if event is None:
                    return
                yield event
                received = asyncio.ensure_future(queue.get())
        finally:
            received.cancel()
            stopped.set()

    def _work(self, client: str, body: bytearray, stopped: threading.Event, emit: Any) -> None:
        wanted = self._parse(body)
        with tempfile.TemporaryDirectory(prefix="unipixel-serve-") as name:
            # Before the turn, so that nobody waits for a slow host.
            path = self._sources.copy(wanted.media_url, Path(name))
            wanted = replace(wanted, media_url="")
            with self._queue.slot(client=client, should_stop=stopped.is_set) as slot:
                if not slot:
                    self._counts["cancelled_requests"] += 1
                    return
                turn = ModelTurn(slot, stopped, self._sessions, self._limits.max_work_seconds)
                try:
                    self._answer(wanted, path, turn, emit)
                except Cancelled as error:
                    self._counts["cancelled_requests"] += 1
                    if not stopped.is_set():
                        message = f"the work took longer than {self._limits.max_work_seconds:g} seconds"
                        raise ApiError(message, status=504) from error
                finally:
                    self._counts["work_milliseconds"] += round(1000 * turn.end())

    def _parse(self, body: bytearray) -> ChatRequest:
        """Read a body and empty it: a data URL is not kept in memory while the request waits."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ApiError(f"the body is not JSON: {error}") from error
        finally:
            body.clear()
        return parse_request(
            content,
            limits=self._limits,
            max_tokens=self._settings.generation.max_new_tokens,
            model_name=self._name,
        )

    def _answer(self, wanted: ChatRequest, path: Path, turn: ModelTurn, emit: Any) -> None:
        answer, stop_texts = ChatAnswer(wanted, self._name), StopTexts(wanted.generation.stop_strings)

        def on_text(piece: str, *, is_last: bool = False) -> None:
            if text := stop_texts.add(piece, is_last=is_last):
                emit(answer.text_chunk(text))

        with contextlib.closing(SandboxedVideo(path, name="the video", limits=self._limits)) as source:
            settings = replace(self._settings, num_frames=wanted.num_frames, generation=wanted.generation)
            session = open_session(self._model, self._processor, Video(source), settings=settings)
            for object_id, group in wanted.prompts.items():
                session.prompt(object_id, *group)
            emit(wanted)
            if wanted.is_streamed:
                emit(answer.first_chunk())
            result = session.ask(
                wanted.question, on_text=on_text if wanted.is_streamed else None, should_stop=turn.should_stop
            )
            self._counts["generated_tokens"] += result.num_generated_tokens
            on_text("", is_last=True)
            for event in answer.last_chunks(result) if wanted.is_streamed else [answer.completion(result)]:
                emit(event)
        emit(None)

    async def _stream(self, events: AsyncIterator[Any]) -> AsyncIterator[str]:
        try:
            async for event in events:
                yield f"data: {json.dumps(event)}\n\n"
            yield "data: [DONE]\n\n"
        except ApiError as error:
            self._counts["failed_requests"] += 1
            yield f"data: {json.dumps(error.to_dict())}\n\n"
