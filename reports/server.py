"""The report from a server: the store is read as the browser asks, and verdicts of several people go into it at once.

A Bokeh server on this machine alone by default. The page is the same as that of a file; data come from ``data/…`` and
verdicts go to ``verdicts``. Requests from other hosts' pages are refused: by the host they name, by their origin, and
by a token that only the page knows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from bokeh.server.server import Server
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RequestHandler

import stores
from reports.blocks import (
    class_scale,
    mean_maps,
    other_relevance,
    picture_page,
    proof_payload,
    relevance_codes,
)
from reports.carriers import page, policy_of, read_models
from reports.judging import Judged
from reports.model import Group, ReportModel, Subject
from reports.payload import Pictures, chunk_payload, finite, relevance_title, script_json

LOCAL = "127.0.0.1"
PORT = 5006
PICKED = 256
"""At most so many pictures in one answer."""
MEMBERS_OF_MEAN = 1000
"""A served mean map is that of at most so many members, evenly drawn."""
VERDICT_BYTES = 64_000_000
BLOCKS_KEPT = 128


class Source:
    """What the server reads from a store, and writes to it."""

    def __init__(self, run: stores.Run, models: Sequence[ReportModel]) -> None:
        self.run = run
        self.models = {model.analysis: model for model in models}
        self.token = secrets.token_urlsafe(24)
        self.reader = ThreadPoolExecutor(1, "store")
        self.judged = Judged(run)
        self.html = page(models, (), served=self.token)
        self.block_text = lru_cache(BLOCKS_KEPT)(lambda name: script_json(finite(self.block(name))))
        """The JSON of a block; the latest are kept, since several people look at the same classes."""

    def block(self, name: str) -> dict[str, Any]:
        """A block by its name.

        ``chunk-<analysis>-<class>``; ``pictures-<analysis>-<class>-<position>.<position>…``, ``maps<n>-…`` the same of
        the n-th other relevance; and ``proof-<analysis>-<class>-<number of the finding>``.

        Raises:
            KeyError: there is no such block.
        """
        kind, _, place = name.partition("-")
        analysis, *rest = place.split("-", 1)
        model = self.models[analysis]
        if not rest:
            raise KeyError(name)
        if kind == "chunk":
            return self._chunk(model, model.group(_number(rest[0])))
        index, _, wanted = rest[0].rpartition("-")
        group = model.group(_number(index))
        if kind == "pictures":
            return self._pictures(str(model.facts["relevance"]), group, wanted)
        if kind.startswith("maps"):
            others = dict(enumerate(other_relevance(self.run, model)))
            return self._pictures(others[_number(kind.removeprefix("maps"))], group, wanted, thumbnails=False)
        if kind == "proof" and 0 <= _number(wanted) < len(group.subjects):
            finding = group.subjects[_number(wanted)].finding
            if finding is not None and finding.pictures:
                return proof_payload(finding)
        raise KeyError(name)

    def _pictures(self, name: str, group: Group, wanted: str, *, thumbnails: bool = True) -> dict[str, Any]:
        positions = [_number(text) for text in wanted.split(".")]
        if len(positions) > PICKED or not all(0 <= i < len(group.samples.rows) for i in positions):
            raise KeyError(wanted)
        rows = group.samples.rows[positions]
        codes = relevance_codes(self.run, name, rows, full=True)
        return picture_page(self.run, rows, codes, thumbnails=thumbnails)

    def _chunk(self, model: ReportModel, group: Group) -> dict[str, Any]:
        place = f"{model.analysis}-{group.index}"
        drawn = [_some(subject) for subject in group.subjects if not subject.has_map]
        members = np.unique(np.concatenate([np.zeros(0, np.int64), *(subject.members for subject in drawn)]))
        # Only the drawn members are read: positions among them take the place of those in the class.
        placed = tuple(
            dataclasses.replace(subject, members=np.searchsorted(members, subject.members))
            for subject in drawn
        )
        rows = group.samples.rows[members]

        def scaled(name: str) -> tuple[dict[str, Any], float]:
            """Mean maps, and the scale of the class."""
            relevance = relevance_codes(self.run, name, rows)
            if relevance is None:
                return {}, 0.0
            codes, scale = relevance
            return mean_maps(dataclasses.replace(group, subjects=placed), [(0, codes)]), class_scale([scale])

        others = [
            {
                "name": relevance_title(name),
                "pages": {"picked": f"maps{number}-{place}"},
                "front": None,
                "class_scale": scaled(name)[1],
            }
            for number, name in enumerate(other_relevance(self.run, model))
        ]
        means, scale = scaled(str(model.facts["relevance"]))
        return chunk_payload(group, Pictures({"picked": f"pictures-{place}"}, means, scale, None, others))

    def add(self, record: Any) -> None:
        """Put a verdict into the store.

        Raises:
            stores.StoreError: it is no verdict, nobody has signed it, or its members are not those of what it is about.
        """
        fields = {field.name for field in dataclasses.fields(stores.Verdict)}
        if not isinstance(record, dict) or set(record) != fields:
            raise stores.StoreError(f"a verdict has the fields {', '.join(sorted(fields))}.")
        verdict = stores.Verdict(**record)
        if not any(map(str.isalnum, verdict.annotator)):  # characters without width are no name
            raise stores.StoreError(
                f"the verdict on {verdict.key[:200]!r} has no annotator, and verdicts are signed. Enter your name in "
                "the report and give it again."
            )
        if not self._is_about_this_store(verdict):
            raise stores.StoreError(
                f"the members of this verdict on {verdict.key[:200]!r} are not those in the store. Reload the page."
            )
        self.judged.add(verdict)

    def _is_about_this_store(self, verdict: stores.Verdict) -> bool:
        """A sample of it, a subject of one of its analyses, or, of an analysis it no longer has, samples of it."""
        if verdict.subject == "sample":
            return verdict.members == (verdict.key,) and verdict.key in self._ids
        if verdict.analysis not in self.models:
            return bool(verdict.members) and self._ids.issuperset(verdict.members)
        about = verdict.subject, verdict.key, verdict.digest
        groups = self.models[verdict.analysis].groups
        return any(about == (it.kind, it.key, it.digest) for group in groups for it in group.subjects)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(str(name) for name in self.run.samples.read("id"))


def _number(text: str) -> int:
    """An index out of a block's name; a KeyError like any other wrong name."""
    try:
        return int(text)
    except ValueError as error:
        raise KeyError(text) from error


def _some(subject: Subject) -> Subject:
    """The subject with at most ``MEMBERS_OF_MEAN`` of its members, evenly drawn."""
    step = max(1, -(-len(subject.members) // MEMBERS_OF_MEAN))
    return dataclasses.replace(subject, members=np.sort(subject.members)[::step])


class _Handler(RequestHandler):
    """Refuses requests that were not meant for this server."""

    source: Source
    hosts: frozenset[str]

    def initialize(self, source: Source, hosts: frozenset[str]) -> None:
        """Called by tornado with what ``start`` gives."""
        self.source, self.hosts = source, hosts

    def prepare(self) -> None:
        """Names of other hosts that lead here (DNS rebinding), and pages of other origins, are refused."""
        origin = self.request.headers.get("Origin")
        if self.request.host not in self.hosts:
            raise HTTPError(
                403, reason="This host is not served. Start the server with origins=[...] for it."
            )
        if origin is not None and origin.partition("://")[2] not in self.hosts:
            raise HTTPError(403, reason="This origin is not served.")

    def set_default_headers(self) -> None:
        """Nothing is kept, framed or sniffed."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")

    def send_json(self, value: Any) -> None:
        """Answer with a value as JSON."""
        self.send_text(script_json(finite(value)))

    def send_text(self, text: str) -> None:
        """Answer with text that is JSON already."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(text)


class _Page(_Handler):
    def get(self) -> None:
        self.set_header("Content-Security-Policy", f"{policy_of(self.source.html)}; frame-ancestors 'none'")
        self.finish(self.source.html)


class _Data(_Handler):
    async def get(self, name: str) -> None:
        try:
            # Beside the loop: while one reads a large class, another's verdict is taken.
            text = await IOLoop.current().run_in_executor(self.source.reader, self.source.block_text, name)
        except KeyError as error:
            raise HTTPError(404, reason="There is no such block.") from error
        self.send_text(text)


class _Verdicts(_Handler):
    async def get(self) -> None:
        """The verdicts that the page has not got yet: it tells which state of the store is ``known`` to it."""
        known = self.get_query_argument("known", "")
        state, after, texts = await self._beside(self.source.judged.told, known)
        self.set_header("X-Spray-State", state)
        self.set_header("X-Spray-From", str(after))
        if state == known:
            self.set_status(204)
            self.finish()
        else:
            self.send_text(f"[{','.join(texts)}]")

    async def _beside(self, work: Callable[..., Any], *of: Any) -> Any:
        # Beside the loop: a store in a bucket answers slowly, and pictures are asked for meanwhile.
        return await IOLoop.current().run_in_executor(self.source.judged.thread, work, *of)

    async def post(self) -> None:
        token = self.request.headers.get(
            "X-Spray-Token", ""
        ).encode()  # as text it must be ASCII to be compared
        if not secrets.compare_digest(token, self.source.token.encode()):
            raise HTTPError(403, reason="The page is older than this server. Reload it.")
        try:
            await self._beside(self.source.add, json.loads(self.request.body))
        except (ValueError, RecursionError, stores.StoreError) as error:
            self.set_status(400)
            self.send_json({"error": str(error)})
            return
        await self.get()


def start(
    run_path: str | os.PathLike[str],
    *,
    analysis: str | None = None,
    title: str | None = None,
    port: int = PORT,
    address: str = LOCAL,
    origins: Sequence[str] = (),
) -> Server:
    """A started server for the report of a store; its loop is not running yet.

    Args:
        run_path: The store, local or remote.
        analysis: Id of the analysis to show first; where None the newest that was tested (``ReportModel.from_run``).
        title: Heading of the report.
        port: 0 takes a free one (``server.port`` tells which).
        address: Whom to listen to: this machine alone by default. Others see and change verdicts: there is no login.
        origins: Further ``host:port`` under which browsers may reach the server, such as that of a proxy.

    Raises:
        stores.StoreError: there is no readable store, or no analysis in it.
    """
    location = os.fspath(run_path)
    run = stores.open(location, mode="r+")
    source = Source(run, read_models(run, analysis, title=title))
    hosts: set[str] = set(origins)
    options = {"source": source, "hosts": hosts}
    server = Server(
        {},
        port=port,
        address=address,
        index=None,
        extra_patterns=[
            (r"/", _Page, options),
            (r"/data/([\w.-]+)", _Data, options),
            (r"/verdicts", _Verdicts, options),
        ],
        http_server_kwargs={"max_body_size": VERDICT_BYTES},
    )
    hosts.update(f"{name}:{server.port}" for name in {"localhost", LOCAL, address})
    server.start()
    return server


def serve(
    run_path: str | os.PathLike[str],
    *,
    ready: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """Serve the report of a store until it is interrupted or terminated.

    To be called from the main thread, which alone hears signals.

    Args:
        run_path: The store.
        ready: Is told the address once the server answers.
        options: As of ``start``.
    """
    server = start(run_path, **options)
    # Bokeh's own handler prints before it stops, and so never stops where nobody reads what it prints any more.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        ready(f"http://{server.address or LOCAL}:{server.port}/")
        server.io_loop.start()
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        signal.signal(signal.SIGTERM, before)
        server.stop()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
