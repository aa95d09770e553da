"""Checks around every call: malformed requests are refused, and unexpected exceptions are logged.

gRPC itself answers both with the status UNKNOWN and does not show the traceback.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from downpour.protos.errors import DownpourError, InvalidRequest, Unsupported
from downpour.protos.logs import log
from downpour.protos.status_codes import status_of


class _Unparsed:
    """Takes the place of a request that cannot be parsed."""

    def __init__(self, content: bytes, error: Exception) -> None:
        self.error = InvalidRequest(
            f"a request must be a message of the protocol; received {len(content)} bytes that are not ({error}). "
            "Check that both sides run the same version."
        )


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handlers of all calls whose requests are messages."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return a handler of the call that receives valid messages only."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler  # the call is unknown, or transfers raw frames
        method, parse = _method_of(handler), _parser(handler.request_deserializer)
        stream_in, stream_out = handler.request_streaming, handler.response_streaming
        make = getattr(grpc, f"{_kind(stream_in)}_{_kind(stream_out)}_rpc_method_handler")
        wrap = _yielding if inspect.isasyncgenfunction(method) else _awaited
        return make(wrap(method, stream_in), parse, handler.response_serializer)


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _method_of(handler: Any) -> Callable[..., Any]:
    method: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return method


def _parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(content: bytes) -> Any:
        try:
            return parse(content)
        except DecodeError as error:
            return _Unparsed(content, error)

    return parsed


def _awaited(method: Callable[..., Any], stream_in: bool) -> Callable[..., Any]:
    async def checked(request: Any, context: Any) -> Any:
        try:
            return await method(_checked(request, stream_in), context)
        except Exception as error:
            return await refuse(error, context)

    return checked


def _yielding(method: Callable[..., Any], stream_in: bool) -> Callable[..., Any]:
    async def checked(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for reply in method(_checked(request, stream_in), context):
                yield reply
        except Exception as error:
            await refuse(error, context)

    return checked


async def refuse(error: Exception, context: Any) -> None:
    """End a call with the status of its error; an unexpected one is logged with its traceback.

    Raises:
        AbortError: Always, for gRPC, unless the caller has hung up.
    """
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if context.done():  # the caller has cancelled the call, which may have caused the error
        return
    if isinstance(error, NotImplementedError):
        error = Unsupported("this server has no such method. Check that both sides run the same version.")
    elif not isinstance(error, DownpourError):
        log(f"a call failed: {''.join(traceback.format_exception(error))}")
    await context.abort(*status_of(error))


def _checked(request: Any, stream_in: bool) -> Any:
    """Return the request, or an iterator of the requests.

    Raises:
        InvalidRequest: The request could not be parsed.
    """
    if stream_in:
        return _each(request)
    if isinstance(request, _Unparsed):
        raise request.error
    return request


async def _each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, False)
