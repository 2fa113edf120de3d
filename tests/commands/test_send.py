"""`gateway send` against a real HTTP server that verifies with the svix library."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr
from svix.webhooks import Webhook, WebhookVerificationError

from gateway.clerk.catalogue import CATALOGUE
from gateway.commands.answers import Answer, answer_line
from gateway.commands.posting import Poster, UrlError
from gateway.commands.send import SendOptions, send, send_command
from gateway.signature import SecretError
from tests.canaries import OTHER_SECRET, SECRET, URL_PASSWORD

PATH = "/webhooks/clerk"

Reply = Callable[["Received"], tuple[int, bytes]]


@dataclass(frozen=True)
class Received:
    """A request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: tuple[str, int]

    def event(self) -> dict[str, Any]:
        event = json.loads(self.body)
        assert isinstance(event, dict)
        return event


def verify_and_deliver(request: Received) -> tuple[int, bytes]:
    """Answer as the gateway does, with svix's own verdict."""
    try:
        Webhook(SECRET).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return 401, b'{"status":"rejected","error":"no matching signature"}'
    event_type = request.event()["type"]
    target = {
        "route": "all",
        "broker": "bus",
        "subject": f"clerk.{event_type}",
        "stream": "CLERK",
        "seq": 12,
        "status": "delivered",
    }
    svix_id = request.headers["svix-id"]
    answer = {"status": "delivered", "id": svix_id, "type": event_type, "targets": [target]}
    return 200, json.dumps(answer).encode()


@dataclass
class Site:
    """The server: what it received, and how it replies."""

    url: str
    reply: Reply = verify_and_deliver
    received: list[Received] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024  # one write per answer: two would wait for each other's acks
    site: Site

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(self.path, headers, body, self.client_address)
        self.site.received.append(request)
        status, answer = self.site.reply(request)
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class's name
        """Keep the test output to the tests."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is the test's own doing."""


@pytest.fixture
def site() -> Iterator[Site]:
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_address[1]}{PATH}")
        handler.site = site  # type: ignore[attr-defined] # type() hides the class's attributes
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield site
        server.shutdown()
        thread.join(5)


@pytest.fixture
def run(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in an empty directory, at the site unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLERK_WEBHOOK_SIGNING_SECRET", raising=False)

    def run(*arguments: str, secret: str | None = SECRET, url: str | None = site.url) -> Result:
        given = [*arguments]
        given += ["--secret", secret] if secret is not None else []
        given += ["--url", url] if url is not None else []
        return CliRunner().invoke(send_command, given)

    return run


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


Run = Callable[..., Result]


@pytest.mark.parametrize("event_type", [*CATALOGUE, "some.newType"])
def test_what_is_sent_verifies_with_svix(run: Run, site: Site, event_type: str) -> None:
    before = int(time.time() * 1000)
    result = run(event_type)
    after = int(time.time() * 1000)
    assert result.exit_code == 0, result.output
    (request,) = site.received
    assert request.path == PATH
    assert request.headers["content-type"] == "application/json"
    assert request.event()["type"] == event_type
    assert before <= request.event()["timestamp"] <= after
    svix_id = request.headers["svix-id"]
    assert svix_id.startswith("msg_")
    assert len(svix_id) == 31
    assert svix_id.isalnum() or svix_id.replace("_", "", 1).isalnum()
    assert result.stdout == (
        f"200 delivered {event_type} {svix_id} -> clerk.{event_type} (stream CLERK seq 12)\n"
    )


def test_a_forged_signature_is_well_formed_and_refused(run: Run, site: Site) -> None:
    result = run("user.created", "--forge")
    (request,) = site.received
    version, _, encoded = request.headers["svix-signature"].partition(",")
    assert version == "v1"
    assert len(encoded) == 44
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"401 rejected user.created {request.headers['svix-id']}: no matching signature",
        "every forged signature was refused with 401, as it must be",
    ]


def test_a_forged_signature_that_is_accepted_is_a_failure(run: Run, site: Site) -> None:
    site.reply = lambda _request: (200, b'{"status":"delivered"}')
    result = run("user.created", "--forge")
    assert result.exit_code == 1
    assert "was not refused" in result.stderr


def test_set_changes_the_sample(run: Run, site: Site) -> None:
    run("user.created", "--set", "data.id=user_x", "--set", 'data.public_metadata.a={"b":1}')
    data = site.received[0].event()["data"]
    assert data["id"] == "user_x"
    assert data["public_metadata"] == {"a": {"b": 1}}


def test_each_message_has_an_id_of_its_own_and_one_connection_is_kept(run: Run, site: Site) -> None:
    result = run("user.created", "--count", "5")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 5
    assert len({request.headers["svix-id"] for request in site.received}) == 5
    assert len({request.connection for request in site.received}) == 1


def test_many_messages_give_a_summary(run: Run, site: Site) -> None:
    def every_third_fails(request: Received) -> tuple[int, bytes]:
        if len(site.received) % 3:
            return verify_and_deliver(request)
        return 503, b'{"status":"failed","error":"broker_down"}'

    site.reply = every_third_fails
    result = run("user.created", "--count", "30")
    assert result.exit_code == 1
    delivered, failed, total = result.stdout.splitlines()
    assert delivered.split() == ["20", "200", "delivered"]
    assert failed.split() == ["10", "503", "failed"]
    assert total.startswith("30 user.created in ")
    assert "latency p50 " in total
    assert "p99 " in total


def test_a_rate_sends_without_waiting_for_answers(run: Run, site: Site) -> None:
    together = threading.Barrier(3, timeout=10)

    def answer_only_three_at_once(request: Received) -> tuple[int, bytes]:
        together.wait()
        return verify_and_deliver(request)

    site.reply = answer_only_three_at_once
    result = run("user.created", "--count", "3", "--rate", "100")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 3


def test_a_rate_is_kept(run: Run, site: Site) -> None:
    started = time.monotonic()
    assert run("user.created", "--count", "6", "--rate", "20").exit_code == 0
    # Five intervals of 50 ms; slower than asked is the machine's business.
    assert time.monotonic() - started >= 0.25
    assert len(site.received) == 6


def test_nothing_listens_there(run: Run) -> None:
    url = f"http://127.0.0.1:{unused_port()}{PATH}"
    for arguments in (["--count", "1000"], ["--count", "1000", "--rate", "500"]):
        result = run("user.created", *arguments, url=url)
        assert result.exit_code == 3
        assert result.stdout == ""
        assert result.stderr == (
            f"could not reach {url}: Connection refused. "
            "Is the gateway running? `gateway dev` starts one.\n"
        )


def test_a_name_that_is_no_host(run: Run) -> None:
    result = run("user.created", url="http://nowhere.invalid/webhooks/clerk")
    assert result.exit_code == 3
    assert "could not reach http://nowhere.invalid/webhooks/clerk: " in result.stderr


def test_a_connection_that_is_lost_is_no_answer(run: Run, site: Site) -> None:
    def vanish(_request: Received) -> tuple[int, bytes]:
        raise ConnectionResetError

    site.reply = vanish
    result = run("user.created")
    assert result.exit_code == 1
    assert result.stdout.startswith("--- user.created msg_")
    assert ": the connection was lost: " in result.stdout


async def test_an_answer_that_never_comes_ends_at_svixs_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.commands.posting.SVIX_TIMEOUT", 0.3)

    gone = asyncio.Event()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nname: ")
            while True:  # each byte comes in time, the answer never does
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()
            gone.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Poster(f"http://127.0.0.1:{port}/", SecretStr(SECRET)) as poster:
            answer = await poster.post(b"{}")
        await asyncio.wait_for(gone.wait(), 10)
    assert answer == Answer(answer.svix_id, None, problem="no answer within 0.3 s")


def test_a_huge_answer_is_cut(run: Run, site: Site) -> None:
    site.reply = lambda _request: (200, b"x" * 5_000_000)
    result = run("user.created")
    assert result.exit_code == 0
    assert len(result.stdout) < 400


def test_a_redirect_is_not_followed(run: Run, site: Site) -> None:
    site.reply = lambda _request: (307, b"")
    result = run("user.created")
    assert result.exit_code == 1
    assert len(site.received) == 1


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert run("user.created").exit_code == 0


def test_a_proxy_that_cannot_be_one_is_bad_usage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense://x")
    result = run("user.created", url="http://gateway.invalid/")
    assert result.exit_code == 2
    assert "proxy" in result.stderr


def test_the_secret_comes_from_the_option_the_environment_or_the_file(
    run: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("user.created", secret=None)
    assert result.exit_code == 2
    for way in ("--secret", "CLERK_WEBHOOK_SIGNING_SECRET", ".gateway/secret"):
        assert way in result.stderr

    (tmp_path / ".gateway").mkdir()
    (tmp_path / ".gateway/secret").write_text(f"{SECRET}\n")
    assert run("user.created", secret=None).exit_code == 0

    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", OTHER_SECRET)
    result = run("user.created", secret=None)
    assert result.exit_code == 1
    assert "It came from the environment (CLERK_WEBHOOK_SIGNING_SECRET)." in result.stderr

    assert run("user.created", secret=SECRET).exit_code == 0
    assert [r.event()["type"] for r in site.received] == ["user.created"] * 3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"not base64!"])
def test_a_secret_file_that_holds_no_secret_is_bad_usage(
    run: Run, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / ".gateway").mkdir()
    (tmp_path / ".gateway/secret").write_bytes(content)
    result = run("user.created", secret=None)
    assert result.exit_code == 2
    assert "secret" in result.stderr


def test_a_secret_file_that_is_a_directory_is_bad_usage(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".gateway/secret").mkdir(parents=True)
    result = run("user.created", secret=None)
    assert result.exit_code == 2
    assert "cannot read the secret" in result.stderr


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!!!!", "whsec_MfKQ9r8G KYq=x", "whsec_AAAA"]
)
def test_a_bad_secret_is_bad_usage_and_is_not_shown(run: Run, site: Site, secret: str) -> None:
    result = run("user.created", secret=secret)
    assert result.exit_code == 2
    assert "secret" in result.stderr
    assert len(secret) < 7 or secret not in result.output
    assert not site.received


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://example.com/",
        "http://",
        "http:///path",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://[::1/",
        "http://exa\x00mple.com/",
        "http://user:hunter2@example.com:port/",
    ],
)
def test_a_bad_url_is_bad_usage(run: Run, url: str) -> None:
    result = run("user.created", url=url)
    assert result.exit_code == 2
    assert "cannot post to" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "data.id"],
        ["--set", "=x"],
        ["--set", "dta.id=x"],
        ["--set", "data.id.x=1"],
        ["--set", "data.id=" + "[" * 50_000],
        ["--count", "0"],
        ["--count", "1000001"],
        ["--count", "many"],
        ["--rate", "0"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--no-such-option"],
    ],
)
def test_bad_usage_sends_nothing_and_shows_no_traceback(
    run: Run, site: Site, arguments: list[str]
) -> None:
    result = run("user.created", *arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Error: " in result.stderr
    assert not site.received


def test_a_type_that_nobody_knows_is_sent_with_a_note(run: Run, site: Site) -> None:
    result = run("user.creatd")
    assert result.exit_code == 0
    assert site.received[0].event()["type"] == "user.creatd"
    assert "user.creatd is not in Clerk's catalogue" in result.stderr
    assert "Did you mean user.created?" in result.stderr
    assert "has no published schema" in run("invitation.created").stderr
    assert run("user.created").stderr == ""


async def test_send_is_a_function_for_other_commands(site: Site) -> None:
    out, err = StringIO(), StringIO()
    assert await send(SendOptions("user.created", SecretStr(SECRET), site.url), out, err) == 0
    assert out.getvalue().startswith("200 delivered user.created msg_")
    assert err.getvalue() == ""


def test_the_secret_is_in_no_repr() -> None:
    assert "MfKQ" not in repr(SendOptions("user.created", SecretStr(SECRET)))


def test_a_poster_refuses_what_cannot_work() -> None:
    with pytest.raises(UrlError) as raised:
        Poster(f"http://user:{URL_PASSWORD}@/x", SecretStr(SECRET))
    assert raised.value.url == "http:///x"
    with pytest.raises(SecretError):
        Poster("http://127.0.0.1/", SecretStr("whsec_"))


def test_a_reader_that_goes_away_ends_the_command_quietly(site: Site) -> None:
    for rate in ([], ["--rate", "200"]):
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from gateway.commands.send import send_command; send_command()",
                *("user.created", "--url", site.url, "--count", "20", *rate),
            ],
            env={**os.environ, "CLERK_WEBHOOK_SIGNING_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(30) == 1


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            {
                "status": "dead_lettered",
                "reason": "too_large",
                "targets": [
                    {"topic": "clerk.users", "partition": 0, "offset": 0, "status": "delivered"},
                    {"subject": "clerk.x", "status": "dead_lettered", "reason": "too_large"},
                ],
            },
            "200 dead_lettered user.created msg_1 -> clerk.users (partition 0 offset 0), "
            "clerk.x dead_lettered too_large",
        ),
        ({"status": "unmatched", "targets": []}, "200 unmatched user.created msg_1"),
        ({"status": "stored"}, "200 stored user.created msg_1"),
        ({"status": "\x1b[2J", "targets": 3, "error": "\n\x07"}, "200 [2J user.created msg_1: "),
        (
            {"status": "delivered", "targets": [{"topic": "clerk.a"}], "targets_left_out": 40},
            "200 delivered user.created msg_1 -> clerk.a and 40 more",
        ),
        ({"targets": [3, None, {}]}, "200 - user.created msg_1 -> -"),
    ],
)
def test_the_line_of_an_answer(body: dict[str, object], line: str) -> None:
    answer = Answer("msg_1", 200, json.dumps(body).encode())
    assert answer_line("user.created", answer) == line


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"status":"stored"}', "stored"),
        (b'{"status":"something else"}', "-"),
        (b'{"status":["stored"]}', "-"),
        (b"[]", "-"),
        (b"\xff", "-"),
        (b"[" * 100_000, "-"),
        (b"", "-"),
    ],
)
def test_answers_are_counted_by_few_words(body: bytes, word: str) -> None:
    assert Answer("msg_1", 200, body).outcome == ("200", word)
