"""What every call has around it: requests that are no messages are refused, and defects of the server are told.

gRPC by itself answers both with the status UNKNOWN, and keeps the traceback to itself.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from downpour.protos.errors import DownpourError, InvalidRequest, Unsupported, status_of
from downpour.protos.logs import log


class _Unparsed:
    """Stands for a request that cannot be parsed."""

    def __init__(self, content: bytes, error: Exception) -> None:
        self.error = InvalidRequest(
            f"a request must be a message of the protocol; received {len(content)} bytes that are not ({error}). "
            "Check that both sides run the same version."
        )


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handlers of all calls that receive messages."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, which gets messages only."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler  # unknown, or of raw frames
        own, parse = _behaviour(handler), _parser(handler.request_deserializer)
        stream_in, stream_out = handler.request_streaming, handler.response_streaming
        make = getattr(grpc, f"{_kind(stream_in)}_{_kind(stream_out)}_rpc_method_handler")
        wrap = _yielding if inspect.isasyncgenfunction(own) else _awaited
        return make(wrap(own, stream_in), parse, handler.response_serializer)


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _behaviour(handler: Any) -> Callable[..., Any]:
    behaviour: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return behaviour


def _parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(content: bytes) -> Any:
        try:
            return parse(content)
        except DecodeError as error:
            return _Unparsed(content, error)

    return parsed


def _awaited(own: Callable[..., Any], stream_in: bool) -> Callable[..., Any]:
    async def behave(request: Any, context: Any) -> Any:
        try:
            return await own(_checked(request, stream_in), context)
        except Exception as error:
            return await refuse(error, context)

    return behave


def _yielding(own: Callable[..., Any], stream_in: bool) -> Callable[..., Any]:
    async def behave(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for reply in own(_checked(request, stream_in), context):
                yield reply
        except Exception as error:
            await refuse(error, context)

    return behave


async def refuse(error: Exception, context: Any) -> None:
    """Ends a call as its error says; one that nobody foresaw is in the log, with its traceback.

    Raises:
        AbortError: For gRPC.
    """
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if context.done():  # the caller has hung up, in whatever that showed
        return
    if isinstance(error, NotImplementedError):
        error = Unsupported("this server has no such call.")
    elif not isinstance(error, DownpourError):
        log(f"a call failed: {''.join(traceback.format_exception(error))}")
    await context.abort(*status_of(error))


def _checked(request: Any, stream_in: bool) -> Any:
    """The request, or the iterator of requests.

    Raises:
        InvalidRequest: It is none.
    """
    if stream_in:
        return _each(request)
    if isinstance(request, _Unparsed):
        raise request.error
    return request


async def _each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, False)
