"""A server on a unix socket that says what a test tells it to: for failures that no real server shows on demand."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis

Answer = Callable[[list[bytes]], "bytes | None"]
"""From the words of a command to the bytes of its answer: empty for silence, None to hang up."""


class ScriptedRedis:
    """Counts connections and remembers commands. `answer` may be changed while it runs."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.url = f"unix://{path}"
        self.answer = answer
        self.seen: list[list[bytes]] = []
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()

    def count(self, word: bytes) -> int:
        return sum(words[0] == word for words in self.seen)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (words := parser.gets()) is not False:
                    self.seen.append(words)
                    reply = b"+PONG\r\n" if words[0] == b"PING" else self.answer(words)
                    if reply is None:
                        return
                    writer.write(reply)
        except ConnectionError:
            return
        finally:
            self.writers.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        for writer in tuple(self.writers):
            writer.transport.abort()


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[ScriptedRedis]:
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        path = Path(folder) / "s"
        server = ScriptedRedis(path, answer)
        listener = await asyncio.start_unix_server(server.serve, str(path))
        try:
            yield server
        finally:
            listener.close()
            server.hang_up()
            await listener.wait_closed()
            # One turn, so that the handlers see the end of their connections before the loop goes.
            await asyncio.sleep(0)
