"""The HTTP layer of all API services: a strict HTTP/1.1 server on asyncio's transports.

A handler takes a `Request` and returns a `Response`, or answers by `request.stream`,
`request.hijack` or `request.websocket` and returns None.
"""

from sagong.http.connection import Stream
from sagong.http.door import HttpLimits
from sagong.http.raw import RawStream
from sagong.http.request import Peer, Query, Request, Response
from sagong.http.route import Match, Router
from sagong.http.server import Handler, HttpServer, Refusal
from sagong.http.tls import ServerTls

__all__ = [
    "Handler",
    "HttpLimits",
    "HttpServer",
    "Match",
    "Peer",
    "Query",
    "RawStream",
    "Refusal",
    "Request",
    "Response",
    "Router",
    "ServerTls",
    "Stream",
]
