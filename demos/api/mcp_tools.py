"""The named functions as tools for agents over MCP, with typed JSON results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

from fastapi.concurrency import run_in_threadpool
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field

from unipixel.demos.api.descriptions import parameter_descriptions
from unipixel.demos.errors import DemoError


def make_mcp_server(functions: Iterable[Callable[..., Any]]) -> FastMCP:
    """Return a server with a tool for each function; a tool of a streaming function returns its last value.

    Args:
        functions: Functions with types and docstrings.
    """
    server = FastMCP(
        "UniPixel",
        instructions="Open a session, load a video, click objects in it, and ask about them.",
        stateless_http=True,
        json_response=True,
        streamable_http_path="/",
        log_level="WARNING",
        # Hosts and origins are checked before, for all paths.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    for function in functions:
        server.add_tool(_as_tool(function), name=function.__name__, description=inspect.getdoc(function))
    return server


def _as_tool(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an asynchronous function with described parameters that runs the function in a thread."""
    hints, descriptions = get_type_hints(function), parameter_descriptions(function)
    signature = inspect.signature(function)
    is_stream = inspect.isgeneratorfunction(function)
    # The values of a stream have different fields.
    result = dict[str, Any] if is_stream else hints.get("return", Any)
    has_request = "request" in signature.parameters

    async def tool(context: Context[Any, Any, Any], **values: Any) -> Any:
        if has_request:
            values["request"] = context.request_context.request
        try:
            if not is_stream:
                return await run_in_threadpool(function, **values)
            return await _last_value(function(**values), context)
        except DemoError as error:
            raise ToolError(str(error)) from error

    parameters = [
        parameter.replace(
            annotation=Annotated[hints[name], Field(description=descriptions.get(name, ""))],
            kind=inspect.Parameter.KEYWORD_ONLY,
        )
        for name, parameter in signature.parameters.items()
        if name != "request"
    ]
    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context[Any, Any, Any])
    tool.__signature__ = inspect.Signature([*parameters, context_parameter], return_annotation=result)  # type: ignore[attr-defined]
    tool.__annotations__ = {
        **{parameter.name: parameter.annotation for parameter in parameters},
        "context": Context[Any, Any, Any],
        "return": result,
    }
    tool.__name__, tool.__doc__ = function.__name__, function.__doc__
    return tool


async def _last_value(values: Any, context: Context[Any, Any, Any]) -> Any:
    """Exhaust a stream in threads, report its progress, and return its last value."""
    last: Any = {}
    while (value := await run_in_threadpool(next, values, None)) is not None:
        last = value
        if value.get("total"):
            await context.report_progress(value["done"], value["total"], value["state"])
    return last
