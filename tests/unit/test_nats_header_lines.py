"""Headers of NATS messages are read as the library reads them."""

import pytest
from nats.aio.client import Client

from adapters.nats.security import SecuredClient

LINES = [
    b"",
    b"\r\n",
    b"Nats-Msg-Id: 1:2\r\nTidelog-History: abc\r\n\r\n",
    b"a:b\r\na: c\r\nA:\td \r\n",
    b"no colon\r\nempty:\r\n: no name\r\n  padded  :  value  \r\n",
    b"in side: x\r\nin\tside: x\r\nin\x1fside: x\r\n\x1foutside: x\r\nin\x0bside: y",
    b"colons: a:b::c\r\nlast: without an end",
    "größe: x\r\nvalue: größe\r\n".encode(),
    b"broken: \xff\xc3(\r\nbro\xffken: x\r\n\xe2\x82: x\r\nwhole: \xe2\x82\r\n",
    b"line\n: feed\r\nvalue: line\nfeed\r\nreturn: a\rb\r\n",
]


@pytest.mark.parametrize("raw", LINES, ids=range(len(LINES)))
def test_headers_are_those_that_the_library_reads(raw: bytes) -> None:
    assert SecuredClient._parse_header_lines(raw) == Client._parse_header_lines(raw)


def test_a_message_is_read_with_them() -> None:
    assert Client._parse_header_lines is not SecuredClient._parse_header_lines, "the library still calls it by this name"
