"""A client of yaml-language-server over stdio: what an editor asks of it, and nothing else.

The Language Server Protocol 3.17: https://microsoft.github.io/language-server-protocol/
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
SERVER: Final = ROOT / ".cache/editor/node_modules/yaml-language-server/bin/yaml-language-server"
SETTINGS: Final = {
    "yaml": {
        "completion": True,
        "hover": True,
        "validate": True,
        # Nothing is fetched: the schema is the one that the file names.
        "schemaStore": {"enable": False, "url": ""},
        "kubernetesCRDStore": {"enable": False},
    }
}
_PATIENCE: Final = 60.0


class LanguageServer:
    """One running server, to which one client talks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self._last_id = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._versions: dict[str, int] = {}
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self._told = asyncio.Condition()
        self._configured = asyncio.Event()

    async def begin(self) -> None:
        """Introduce the client, and wait until the server has asked for the settings."""
        capabilities = {
            "workspace": {"configuration": True, "didChangeConfiguration": {}},
            "textDocument": {
                "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
                "publishDiagnostics": {"versionSupport": True},
            },
        }
        await self.ask(
            "initialize",
            {"processId": None, "rootUri": ROOT.as_uri(), "capabilities": capabilities},
        )
        self._tell("initialized", {})
        await asyncio.wait_for(self._configured.wait(), _PATIENCE)

    async def ask(self, method: str, parameters: Any) -> Any:
        """Send a request, and give its result."""
        self._last_id += 1
        answer = self._answers[self._last_id] = asyncio.get_running_loop().create_future()
        self._send({"id": self._last_id, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, _PATIENCE)

    async def show(self, path: Path, text: str) -> list[dict[str, Any]]:
        """Open a file with this text, or put the text in its place; give its diagnostics."""
        uri = path.as_uri()
        version = self._versions[uri] = self._versions.get(uri, 0) + 1
        self._diagnostics.pop(uri, None)
        if version == 1:
            document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
            self._tell("textDocument/didOpen", {"textDocument": document})
        else:
            document = {"uri": uri, "version": version}
            changes = {"textDocument": document, "contentChanges": [{"text": text}]}
            self._tell("textDocument/didChange", changes)
        async with asyncio.timeout(_PATIENCE), self._told:
            await self._told.wait_for(lambda: uri in self._diagnostics)
        return self._diagnostics[uri]

    async def completions(self, path: Path, line: int, character: int) -> dict[str, str]:
        """Give what is offered at a place, 0-based, each with its documentation."""
        found = await self.ask("textDocument/completion", _at(path, line, character))
        return {item["label"]: _text(item.get("documentation", "")) for item in found["items"]}

    async def hover(self, path: Path, line: int, character: int) -> str:
        """Give what is shown over a place, 0-based."""
        found = await self.ask("textDocument/hover", _at(path, line, character))
        return "" if found is None else _text(found["contents"])

    async def read(self) -> None:
        """Take what the server sends, until it ends."""
        while (message := await self._next()) is not None:
            if "method" not in message:
                self._answer(message)
            elif "id" in message:
                self._send({"id": message["id"], "result": self._served(message)})
            elif message["method"] == "textDocument/publishDiagnostics":
                async with self._told:
                    told = message["params"]
                    self._diagnostics[told["uri"]] = told["diagnostics"]
                    self._told.notify_all()

    def _answer(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message["id"])
        if "error" in message:
            answer.set_exception(AssertionError(message["error"]))
        else:
            answer.set_result(message["result"])

    def _served(self, message: dict[str, Any]) -> Any:
        if message["method"] != "workspace/configuration":
            return None
        self._configured.set()
        return [SETTINGS.get(item["section"], {}) for item in message["params"]["items"]]

    def _tell(self, method: str, parameters: Any) -> None:
        self._send({"method": method, "params": parameters})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._input.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    async def _next(self) -> dict[str, Any] | None:
        length = 0
        while line := (await self._output.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            return None
        message: dict[str, Any] = json.loads(await self._output.readexactly(length))
        return message


def _at(path: Path, line: int, character: int) -> dict[str, Any]:
    position = {"line": line, "character": character}
    return {"textDocument": {"uri": path.as_uri()}, "position": position}


def _text(documentation: Any) -> str:
    return documentation["value"] if isinstance(documentation, dict) else str(documentation)


@asynccontextmanager
async def language_server() -> AsyncIterator[LanguageServer]:
    """Start a server for the time of a test."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SERVER),
        "--stdio",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    server = LanguageServer(process)
    reading = asyncio.create_task(server.read())
    try:
        await server.begin()
        yield server
    finally:
        process.kill()
        await process.wait()
        await reading
