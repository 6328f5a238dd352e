"""One request, one answer, and the connection kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_http import Broken, Channel, Channels

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request on each connection with the next of its bytes; None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return self._socket.getsockname()[:2]

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while self._answers:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while self._answers and connection.recv(65536):
                    answer = self._answers.pop(0)
                    if answer is None:
                        break
                    connection.sendall(answer)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for server in started:
        server.close()


def channels(servers: list[Server], *answers: bytes | None) -> Channels:
    server = Server(*answers)
    servers.append(server)
    return Channels(lambda: Channel(server.address, None, "", (), 5, 5), 4)


def test_lengths_and_chunks(servers: list[Server]) -> None:
    chunked = (
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    )
    none = b"HTTP/1.1 204 No Content\r\nX-One: 1\r\n\r\n"
    pool = channels(servers, OK, chunked, b"HTTP/1.1 100 Continue\r\n\r\n" + none, OK)
    assert pool.exchange(REQUEST).body == b"ok"
    answer = pool.exchange(REQUEST)
    assert (answer.status, answer.body) == (201, b"abcde")
    answer = pool.exchange(REQUEST)
    assert (answer.status, answer.body, answer.headers) == (204, b"", {"x-one": "1"})
    assert pool.exchange(REQUEST).status == 200
    assert servers[0].connections == 1
    pool.close()


def test_an_answer_until_the_end_of_the_connection(servers: list[Server]) -> None:
    # The only answer that this server has: then it closes.
    pool = channels(servers, b"HTTP/1.1 200 OK\r\n\r\nall of it")
    assert pool.exchange(REQUEST).body == b"all of it"
    assert pool._idle == []


def test_a_kept_connection_that_the_server_closed_is_replaced(servers: list[Server]) -> None:
    pool = channels(servers, OK, None, OK)
    assert [pool.exchange(REQUEST).body, pool.exchange(REQUEST).body] == [b"ok", b"ok"]
    assert servers[0].connections == 2
    pool.close()


def test_connection_close_is_obeyed(servers: list[Server]) -> None:
    pool = channels(servers, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", OK)
    pool.exchange(REQUEST)
    assert pool._idle == []
    pool.close()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    ],
)
def test_what_is_no_answer(servers: list[Server], answer: bytes | None) -> None:
    pool = channels(servers, answer)
    with pytest.raises(Broken):
        pool.exchange(REQUEST)
    pool.close()
