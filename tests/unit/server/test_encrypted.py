"""TLS on a socket, in both directions and to the end, with the client of Python's own `ssl` in a thread."""

import asyncio
import contextlib
import ctypes
import ctypes.util
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

from certs.authority import issue_ca, issue_leaf
from webhook.server.encrypted import EMPTY_RECORDS, RECEIVED_BYTES, RECORD_BYTES, RECORDS, EncryptedTransport
from webhook.server.peers import Ended

SECONDS: Final = 30.0
HOST: Final = "127.0.0.1"


class Heard(asyncio.Protocol):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.transport: EncryptedTransport
        self.data = bytearray()
        self.pieces: list[int] = []
        self.calls: list[str] = []
        self.lost: list[Exception | None] = []
        self.on_data: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, EncryptedTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces.append(len(data))
        self.on_data(data)

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Stage:
    """A listening socket, and a transport for who connects to it."""

    def __init__(self, folder: Path) -> None:
        now, life = datetime.now(UTC), timedelta(days=1)
        authority = issue_ca(organization="test", now=now, life=life)
        leaf = issue_leaf(authority, names=[HOST], now=now, life=life)
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(authority.certificate_pem)
        pair = folder / "tls.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(leaf.certificate_pem + leaf.key_pem)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(pair)
        self.context.num_tickets = 0
        self.client = ssl.create_default_context(cafile=str(self.ca))
        self.listening = socket.create_server((HOST, 0))
        self.shaken: list[Ended | None] = []

    def accepted(self, heard: Heard, *, handshake_seconds: float = SECONDS) -> EncryptedTransport:
        """Return the transport of who connected first."""
        accepted, _ = self.listening.accept()
        accepted.settimeout(0)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
        return EncryptedTransport(
            accepted,
            self.context,
            heard,
            handshake_seconds=handshake_seconds,
            closing_seconds=2,
            shaken=self.shaken.append,
        )

    def plain(self) -> socket.socket:
        """Return a connection without TLS."""
        return socket.create_connection(self.listening.getsockname(), timeout=SECONDS)

    async def opened(self) -> tuple[Heard, ssl.SSLSocket]:
        """Return both ends of a connection whose handshake is done."""
        heard = Heard()
        plain = self.plain()
        self.accepted(heard)
        client = await asyncio.to_thread(self.client.wrap_socket, plain, server_hostname=HOST)
        await until(lambda: heard.calls == ["made"])
        assert self.shaken == [None]
        return heard, client


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(SECONDS):
        while not done():  # noqa: ASYNC110  # what sockets do sets no event
            await asyncio.sleep(0.01)


async def turns() -> None:
    """Let the loop look for what has come, more often than is needed: whatever it would do, it has done."""
    for _ in range(50):
        await asyncio.sleep(0)  # a turn, which is what is counted


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.listening.close()


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Both kinds of event loops watch the same sockets."""

    def running(scenario: Awaitable[None]) -> None:
        async def main() -> None:
            await scenario

        (uvloop.run if request.param == "uvloop" else asyncio.run)(main())

    return running


Run = Callable[[Awaitable[None]], None]


def read_all(client: ssl.SSLSocket) -> bytes:
    """Read to the end; a reset would be an error."""
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    return data


def test_what_is_written_comes_whole_and_in_order_however_slowly_it_is_read(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        heard.transport.set_write_buffer_limits(high=100_000)
        said = [
            bytes([number % 251]) * size for number, size in enumerate((1, 5, 16_384, 16_385, 3_000_000, 7, 40_000))
        ]
        for each in said:
            heard.transport.write(each)
        assert heard.calls == ["made", "pause"]
        assert heard.transport.get_write_buffer_size() > 100_000
        heard.transport.close()
        heard.transport.write(b"too late")
        reading = asyncio.to_thread(read_all, client)
        assert await reading == b"".join(said)
        await until(lambda: heard.lost == [None])
        assert heard.calls == ["made", "pause"], "who has closed is not told to write on"
        client.close()

    run(scenario())


def test_writing_goes_on_when_there_is_room(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        heard.transport.set_write_buffer_limits(high=10_000)
        for _ in range(3):
            heard.calls.clear()
            heard.transport.write(b"x" * 2_000_000)
            assert heard.calls == ["pause"]
            left = 2_000_000
            while left:
                left -= len(await asyncio.to_thread(client.recv, 1 << 16))
            await until(lambda: heard.calls == ["pause", "resume"])
        heard.transport.abort()
        client.close()

    run(scenario())


@pytest.mark.parametrize("size", [1, 1_000, RECORD_BYTES, RECORD_BYTES + 1, 1_000_000])
def test_what_is_sent_comes_whole(stage: Stage, run: Run, size: int) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        sent = bytes(number % 251 for number in range(size))
        await asyncio.to_thread(client.sendall, sent)
        await until(lambda: len(heard.data) == size)
        assert heard.data == sent
        assert max(heard.pieces) <= RECORD_BYTES
        await asyncio.to_thread(client.unwrap)
        await until(lambda: heard.lost == [None])
        assert heard.calls == ["made", "eof"]
        client.close()

    run(scenario())


class Records:
    """A client whose records are sent as the test wants them: cut, or many in one piece."""

    def __init__(self, stage: Stage) -> None:
        self.socket = stage.plain()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = stage.client.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def shake(self, step: int) -> None:
        """Shake hands, *step* bytes at a time."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self.outgoing.read(), step)
                self.incoming.write(self.socket.recv(1 << 16))
            else:
                self.send(self.outgoing.read(), step)
                return

    def records(self, *texts: bytes) -> bytes:
        """Return a record of each text."""
        for text in texts:
            self.tls.write(text)
        return self.outgoing.read()

    def send(self, data: bytes, step: int) -> None:
        """Send *data*, *step* bytes at a time."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            self.socket.sendall(data[at : at + step])


@pytest.mark.parametrize("step", [1, 4, 5, 6, 23, 1_000_000])
def test_records_come_in_whatever_pieces(stage: Stage, run: Run, step: int) -> None:
    """The handshake's too; and many in one piece are all read, in turns."""

    async def scenario() -> None:
        heard, client = Heard(), Records(stage)
        stage.accepted(heard)
        await asyncio.to_thread(client.shake, step)
        texts = [bytes([number % 251]) * (number % 7 + 1) for number in range(3 * RECORDS + 1)]
        await asyncio.to_thread(client.send, client.records(*texts), step)
        await until(lambda: len(heard.data) == len(b"".join(texts)))
        assert heard.data == b"".join(texts)
        assert heard.pieces == list(map(len, texts))
        client.socket.close()
        await until(lambda: heard.lost == [None])

    run(scenario())


def test_who_stops_in_a_record_holds_no_more_than_it(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        heard, client = Heard(), Records(stage)
        stage.accepted(heard)
        await asyncio.to_thread(client.shake, 1 << 20)
        heard.on_data = lambda _: heard.transport.pause_reading()
        sent = client.records(*(bytes([number]) * RECORD_BYTES for number in range(8)))
        await asyncio.to_thread(client.send, sent[:-1], 1 << 20)
        for number in range(1, 8):
            await until(lambda: len(heard.pieces) == number)  # noqa: B023  # it is waited for here
            await turns()
            assert len(heard.pieces) == number
            assert len(heard.transport._left) <= RECEIVED_BYTES
            heard.transport.resume_reading()
        await turns()
        assert len(heard.pieces) == 7
        await asyncio.to_thread(client.send, sent[-1:], 1)
        await until(lambda: len(heard.pieces) == 8)
        assert heard.data == b"".join(bytes([number]) * RECORD_BYTES for number in range(8))
        heard.transport.abort()
        client.socket.close()

    run(scenario())


@pytest.mark.parametrize(
    "garbage",
    [b"\x17\x03\x03\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x00", b"\x14\x03\x03\x00\x01\x01"],
    ids=["a record that is too long", "no record", "an empty record", "a change of ciphers"],
)
def test_what_is_no_record_ends_it(stage: Stage, run: Run, garbage: bytes) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        await asyncio.to_thread(client.sendall, b"x")
        await until(lambda: heard.data == b"x")
        socket.socket.sendall(client, garbage)
        await until(lambda: heard.lost)
        assert isinstance(heard.lost[0], ssl.SSLError)
        assert heard.data == b"x"
        client.close()

    run(scenario())


def test_what_is_not_asked_for_is_left_in_the_kernel(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        heard.on_data = lambda _: heard.transport.pause_reading()
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            await asyncio.to_thread(client.sendall, b"x" * 20_000_000)
        assert heard.pieces == [RECORD_BYTES]
        assert not heard.transport.is_reading()
        heard.transport.resume_reading()
        await until(lambda: len(heard.pieces) == 2)
        await turns()
        assert len(heard.pieces) == 2
        heard.transport.abort()
        client.close()

    run(scenario())


def test_last_words_reach_who_still_sends(stage: Stage, run: Run) -> None:
    """To close on what was not read would reset the connection, and the answer with it."""

    async def scenario() -> None:
        heard, client = await stage.opened()

        def refuse(_: bytes) -> None:
            heard.transport.write(b"too large")
            heard.transport.close()

        heard.on_data = refuse
        await asyncio.to_thread(client.sendall, b"x" * 3_000_000)
        assert await asyncio.to_thread(client.recv, 100) == b"too large"
        assert heard.pieces == [RECORD_BYTES]
        client.close()
        await until(lambda: heard.lost == [None])

    run(scenario())


def test_who_never_closes_is_waited_for_no_longer_than_that(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        heard.transport.write(b"x" * 3_000_000)
        heard.transport.close()
        assert heard.transport.is_closing()
        assert heard.lost == []
        await until(lambda: heard.lost == [None])
        client.close()

    run(scenario())


@pytest.mark.parametrize("when", ["reading", "paused", "writing"])
def test_a_reset_ends_it_once(stage: Stage, run: Run, when: str) -> None:
    async def scenario() -> None:
        heard, client = await stage.opened()
        if when == "paused":
            heard.transport.pause_reading()
        if when == "writing":
            heard.transport.write(b"x" * 3_000_000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        if when == "paused":
            await turns()
            heard.transport.resume_reading()
        await until(lambda: heard.lost)
        heard.transport.write(b"more")
        heard.transport.resume_reading()
        heard.transport.close()
        heard.transport.abort()
        await turns()
        assert len(heard.lost) == 1
        assert heard.transport.get_extra_info("socket").fileno() == -1

    run(scenario())


def test_a_handshake_fails_is_late_or_is_ended_and_is_told_once(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        garbage, silent, ended, gone = (stage.plain() for _ in range(4))
        heard = [Heard() for _ in range(4)]
        transports = [stage.accepted(heard[0]), stage.accepted(heard[1], handshake_seconds=0.2)]
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: stage.shaken == [Ended.HANDSHAKE_FAILED, Ended.HANDSHAKE_LATE])
        transports.append(stage.accepted(heard[2]))
        transports[2].cancel()
        transports[2].cancel()
        assert stage.shaken[2:] == [None]
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        with contextlib.suppress(OSError):  # which the listener counts
            stage.accepted(heard[3])
            await until(lambda: stage.shaken[3:] == [Ended.HANDSHAKE_FAILED])
        await turns()
        assert [each.calls + each.lost for each in heard] == [[], [], [], []]
        assert [each.get_extra_info("socket").fileno() for each in transports] == [-1, -1, -1]
        for each in (garbage, silent, ended):
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(100)[:1] in {b"", b"\x15"}  # an alert at most
            each.close()

    run(scenario())


def test_a_protocol_that_fails_is_told_of_and_ended(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        heard, client = await stage.opened()

        def fail(_: bytes) -> None:
            raise ValueError("a bug")

        heard.on_data = fail
        client.sendall(b"x")
        await until(lambda: heard.lost)
        assert [str(each["exception"]) for each in told] == ["a bug"]
        client.close()

    run(scenario())


def test_another_protocol_goes_on_where_the_first_one_was(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        first, client = await stage.opened()
        second = Heard()
        first.on_data = lambda _: first.transport.set_protocol(second)
        client.sendall(b"one")
        await until(lambda: first.data == b"one")
        client.sendall(b"two")
        await until(lambda: second.data == b"two")
        assert first.transport.get_protocol() is second
        assert first.transport.get_extra_info("peername") == client.getsockname()
        assert first.transport.get_extra_info("sslcontext") is stage.context
        assert first.transport.get_extra_info("peercert") is None
        assert first.transport.get_extra_info("cipher")[1] == "TLSv1.3"
        assert first.transport.get_extra_info("compression", "none") == "none"
        client.close()
        await until(lambda: second.lost)
        assert first.lost == []
        assert first.transport.get_extra_info("peername", "gone") == "gone"

    run(scenario())


def test_a_peer_may_change_its_key(stage: Stage, run: Run) -> None:
    """By OpenSSL's own client, to which a line of K is the command to do so and to ask for the same."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "apt-get install openssl"

    async def scenario() -> None:
        heard = Heard()
        heard.on_data = lambda data: heard.transport.write(data.upper())
        host, port = stage.listening.getsockname()
        client = await asyncio.create_subprocess_exec(
            *(openssl, "s_client", "-connect", f"{host}:{port}", "-CAfile", stage.ca, "-quiet", "-no_ign_eof"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        stage.accepted(heard)
        await until(lambda: heard.calls == ["made"])
        for line in (b"one\n", b"K\n", b"two\n", b"K\n", b"K\n", b"three\n"):
            client.stdin.write(line)
            await client.stdin.drain()
            if line != b"K\n":
                assert await client.stdout.readline() == line.upper()
            else:
                await asyncio.sleep(0.1)  # it takes lines that come at once for one text
        assert heard.data == b"one\ntwo\nthree\n"
        client.stdin.close()
        await until(lambda: heard.lost)
        await client.wait()

    run(scenario())


class KeyChanger:
    """A client of OpenSSL's own library: Python's `ssl` can't change keys."""

    def __init__(self, port: int) -> None:
        library = ctypes.util.find_library("ssl")
        assert library is not None, "apt-get install libssl3"
        self._ssl = ctypes.CDLL(library)
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(self._ssl, name).restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._ssl.SSL_CTX_new(ctypes.c_void_p(self._ssl.TLS_client_method())))
        self._connection = ctypes.c_void_p(self._ssl.SSL_new(self._context))
        self.socket = socket.create_connection((HOST, port))
        self._ssl.SSL_set_fd(self._connection, self.socket.fileno())
        assert self._ssl.SSL_connect(self._connection) == 1

    def change(self, *, asking: bool) -> bool:
        """Send a new key, *asking* for one in return; return whether that was possible."""
        assert self._ssl.SSL_key_update(self._connection, int(asking)) == 1
        return bool(self._ssl.SSL_do_handshake(self._connection) == 1)

    def write(self, data: bytes) -> None:
        assert self._ssl.SSL_write(self._connection, data, len(data)) == len(data)

    def close(self) -> None:
        self._ssl.SSL_free(self._connection)
        self._ssl.SSL_CTX_free(self._context)
        self.socket.close()


@pytest.mark.parametrize("asking", [False, True], ids=["new keys", "new keys of both"])
def test_who_only_changes_its_key_is_ended_and_keeps_nobody_waiting(stage: Stage, run: Run, *, asking: bool) -> None:
    """Ten thousand at once took OpenSSL a second, in one call."""

    def flood(client: KeyChanger) -> int:
        return next((number for number in range(10_000) if not client.change(asking=asking)), 10_000)

    async def scenario() -> None:
        heard, (host, port) = Heard(), stage.listening.getsockname()
        assert host == HOST
        begun = asyncio.get_running_loop().run_in_executor(None, KeyChanger, port)
        stage.accepted(heard)
        client = await begun
        turns = 0

        async def count() -> None:
            nonlocal turns
            while not heard.lost:
                turns += 1
                await asyncio.sleep(0)  # one turn of the loop, which is what is counted

        counting = asyncio.ensure_future(count())
        sent = await asyncio.to_thread(flood, client)
        await counting
        assert sent < 10_000
        assert "without data" in str(heard.lost[0])
        assert turns > EMPTY_RECORDS // RECORDS
        client.close()

    run(scenario())


def test_new_keys_are_earned_by_data(stage: Stage, run: Run) -> None:
    async def scenario() -> None:
        heard, (_, port) = Heard(), stage.listening.getsockname()
        begun = asyncio.get_running_loop().run_in_executor(None, KeyChanger, port)
        stage.accepted(heard)
        client = await begun

        def talk() -> None:
            for _ in range(EMPTY_RECORDS + 20):
                assert client.change(asking=False)
                client.write(b"x" * (1 << 20))

        await asyncio.to_thread(talk)
        await until(lambda: len(heard.data) == (EMPTY_RECORDS + 20) << 20)
        assert heard.lost == []
        client.close()
        await until(lambda: heard.lost)

    run(scenario())
