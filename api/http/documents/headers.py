"""The headers of requests and answers, as the OpenAPI document describes them."""

from typing import Any

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}

OF_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "Tidelog-Position": (_NUMBER, "Wait until the read model shows this position: the `position` of a command before."),
    "Idempotency-Key": (
        {"type": "string", "minLength": 1, "maxLength": 255},
        "The same request with the same key is executed once, and gets the first answer again, as long as the log knows commands.",
    ),
    "Prefer": (
        {"type": "string", "examples": ["wait=30"]},
        "`wait=<seconds>`, at most 60: wait for the end of the run, which the answer then has as `run`.",
    ),
    "If-Match": ({"type": "string", "examples": ['"v3"']}, "Only if the run is at this version; the form is that of `ETag`."),
    "Tidelog-Caused-By": (
        {"type": "string", "format": "uuid"},
        "The id of the agent run, tool call or run from which the request follows. The server finds the depth of causation itself.",
    ),
    "Tidelog-On-Behalf-Of": (
        {"type": "string", "minLength": 1, "maxLength": 200, "examples": ["user:ada@example.org"]},
        "For whom the caller asks, in UTF-8: the events of the command and, of a run, all that comes of it say so.",
    ),
    "Tidelog-Reason": (
        {"type": "string", "minLength": 1, "maxLength": 500},
        "Why, in one line of UTF-8: the audit trail keeps it. The body's `reason` goes before it.",
    ),
    "Cache-Control": (_TEXT, "`no-cache`: no result of before answers the call."),
    "Last-Event-ID": (_TEXT, "The id of the last event that the reader of a stream has. It goes before `after`."),
    "Tidelog-Lease": (
        _TEXT,
        "The id, the attempt and the token of a piece of work in hand, with blanks between, as `work` of the session gave them.",
    ),
    "Range": (_TEXT, "`bytes=<first>-<last>`: only these bytes of the content."),
    "If-Range": (_TEXT, "An `ETag`: the `Range` counts only for this content."),
    "Content-Encoding": (_TEXT, "`identity`, or nothing: a content comes as it is."),
    "Accept-Encoding": (_TEXT, "`gzip`: the content may come compressed."),
    "If-None-Match": (_TEXT, "An `ETag` of before: 304 if the document is still the same."),
}
OF_ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "Tidelog-Position": (_NUMBER, "Of a command: the position of its last event. Of a read: the position that the answer shows."),
    "Tidelog-History": (_TEXT, "Id of the history of the log that the events are of."),
    "Tidelog-Trace-Id": (_TEXT, "The trace of the request, for the server's log."),
    "ETag": (_TEXT, 'The version: of a resource `"v<version>"`, of a document or a single value a hash.'),
    "Location": (
        {"type": "string", "format": "uri-reference"},
        "A reference to the resource, relative to the address of the request.",
    ),
    "Content-Location": (
        {"type": "string", "format": "uri-reference"},
        "The list of which the answer is a page, relative to the address of the request.",
    ),
    "Link": (_TEXT, 'The next page, `rel="next"`, relative to the address of this page.'),
    "Idempotency-Replayed": ({"const": "true"}, "The command was recorded before, and this is its first answer."),
    "Preference-Applied": (_TEXT, "`wait=<seconds>`: the longest time that the answer would have waited."),
    "Retry-After": (_NUMBER, "Seconds after which to try again."),
    "WWW-Authenticate": (_TEXT, "How to show a key."),
    "Cross-Origin-Opener-Policy": (_TEXT, "`same-origin`"),
    "Set-Cookie": (_TEXT, "The cookie of a browser that is signed in, or its end."),
    "Content-Encoding": (_TEXT, "`gzip`, for those who take it."),
    "Vary": (_TEXT, "`Accept-Encoding`"),
    "Accept-Ranges": (_TEXT, "`bytes`"),
    "Content-Range": (_TEXT, "Which bytes of the content these are, and how many it has."),
    "Cross-Origin-Resource-Policy": (_TEXT, "`same-origin`"),
    "Cache-Control": (_TEXT, "How long the answer may be kept."),
    "Content-Disposition": (_TEXT, "The name of the file."),
    "X-Content-Type-Options": (_TEXT, "`nosniff`"),
    "Referrer-Policy": (_TEXT, "`no-referrer`"),
    "X-Accel-Buffering": (_TEXT, "`no`, on streams: a proxy is to pass events on at once."),
    "Content-Security-Policy": (_TEXT, "What a browser may load for the page: from this server alone."),
    "Accept": (_TEXT, "The content types that a body may have."),
    "Accept-Encoding": (_TEXT, "The content codings that a body may have."),
}


def parameter(name: str) -> dict[str, Any]:
    """A header of requests as an OpenAPI parameter."""
    schema, description = OF_REQUESTS[name]
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def headers(*names: str) -> dict[str, Any]:
    """Headers of an answer as OpenAPI header objects. Every answer has a trace id."""
    return {
        name: {"schema": schema, "description": description}
        for name in (*names, "Tidelog-Trace-Id")
        for schema, description in (OF_ANSWERS[name],)
    }
