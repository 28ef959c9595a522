"""The whole probe: which questions are asked, in which order, how many at a time, and what is made of the answers.

    1. One hello as a browser sends it. Whoever is silent, out of reach or no TLS server is known after it.
    2. One hello for each version, so that later questions are asked in a version the server has.
    3. A whole handshake, alone on the wire, for the timings, the chain, tickets, and a client certificate's request.
    4. Everything else at once, in a pool of few threads: suites of each version, groups, ALPN, resumption, features.
    5. Judgement: chains, staples, weaknesses.

A question that fails does not end the probe: it leaves None in the findings and a line in `incomplete`.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tlstunnel.address import Target, TCPAddress
from tlstunnel.connection.starttls.conversation import StartTLSError
from tlstunnel.connection.starttls.modes import ASK
from tlstunnel.errors import StartupError
from tlstunnel.tools.pki.chain import load_trust
from tlstunnel.tools.probe import certificates, findings, questions, sessions, summary
from tlstunnel.tools.probe.answer import Answer
from tlstunnel.tools.probe.ask import Asker, ask_ssl2, refusal, sni_of
from tlstunnel.tools.probe.choices import CutShort
from tlstunnel.tools.probe.findings import Findings
from tlstunnel.tools.probe.handshake import Handshake, Plan, handshake
from tlstunnel.tools.probe.hello import SCHEMES_BY_KEY, SSL_2_0, SSL_3_0, TLS_1_0, TLS_1_1
from tlstunnel.tools.probe.http import HTTP
from tlstunnel.tools.probe.legacy import Contexts, LegacyHandshake
from tlstunnel.tools.probe.legacy import handshake as legacy_handshake
from tlstunnel.tools.probe.route import Limits, Route
from tlstunnel.tools.probe.trouble import Trouble
from tlstunnel.tools.probe.weaknesses import judge
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, AlertDescription, version_name

VERSIONS = (TLS_1_3, TLS_1_2, TLS_1_1, TLS_1_0, SSL_3_0)
Progress = Callable[[str, int], None]
"""Told what is being asked and how many connections there were."""
Choices = questions.Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to probe, and how."""

    target: Target
    server_name: str | None = None
    """Asked for (SNI) instead of the target's host."""
    name: str | None = None
    """What the certificate must be for, instead of that."""
    alpn: tuple[str, ...] = ()
    starttls: str | None = None
    ca: Path | None = None
    limits: Limits = field(default_factory=Limits)
    parallel: int = 4

    @property
    def host(self) -> str | None:
        """The host as written; None for a unix socket."""
        return self.target.host if isinstance(self.target, TCPAddress) else None

    @property
    def sni(self) -> str:
        """The name to send."""
        return sni_of(self.server_name or self.host or "")


def probe(request: Request, progress: Progress = lambda _what, _count: None) -> Findings:
    """Find out what a server offers.

    Raises:
        StartupError: it cannot be reached, speaks no TLS, or refuses whatever it is offered.
        TunnelError: the CAs cannot be read.
    """
    return _Survey(request, progress).run()


class _Survey:
    def __init__(self, request: Request, progress: Progress) -> None:
        self._request = request
        self._progress = progress
        starttls = ASK[request.starttls] if request.starttls else None
        self._route = Route(request.target, request.limits, starttls=starttls)
        self._asker = Asker(self._route, request.sni, request.alpn)
        self._contexts = Contexts()
        self._found = Findings(
            target=findings.Target(
                host=request.host or str(request.target),
                port=request.target.port if isinstance(request.target, TCPAddress) else None,
                server_name=request.sni or None,
                name=request.name or request.server_name or request.host,
                starttls=request.starttls,
            ),
            started=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        self._modern: list[Handshake] = []
        self._legacy: LegacyHandshake | None = None
        self._curve: int | None = None

    def run(self) -> Findings:
        start = time.monotonic()
        found = self._found
        found.store, anchors = load_trust(self._request.ca)
        first = self._meet()
        self._ask_versions(first)
        self._shake_hands()
        self._ask_the_rest()
        self._progress("certificates", self._route.connections)
        now = datetime.datetime.now(datetime.UTC)
        summary.complete(found, self._asker.answers, self._modern, self._legacy, anchors, now)
        found.target.address = self._route.address
        found.weaknesses = judge(found, now)
        found.connections = self._route.connections
        found.duration_ms = summary.milliseconds(time.monotonic() - start) or 0.0
        return found

    # One after the other.

    def _meet(self) -> Answer:
        where = str(self._request.target)
        self._progress("connecting", 0)
        try:
            self._found.timings_ms.lookup = summary.milliseconds(self._route.resolve())
            return self._asker.ask(self._asker.offer(*VERSIONS[:-1]))
        except (Trouble, StartTLSError) as exc:
            raise StartupError(f"{where}: {exc}") from exc

    def _ask_versions(self, first: Answer) -> None:
        for version in VERSIONS:
            name = version_name(version)
            self._progress(name, self._route.connections)
            offered: bool | None = None
            with self._noted(name):
                offered = questions.takes_version(self._asker, version)
            self._found.versions.append(findings.Version(name=name, id=version, offered=offered))
        self._progress("SSL 2.0", self._route.connections)
        ciphers = None
        with self._noted("SSL 2.0"):
            ciphers = None if self._request.starttls else ask_ssl2(self._route)
        self._found.versions.append(findings.Version(name="SSL 2.0", id=SSL_2_0, offered=ciphers is not None))
        if not any(each.offered for each in self._found.versions):
            raise StartupError(f"{self._request.target}: {refusal(first)}")

    def _shake_hands(self) -> None:
        self._progress("handshake", self._route.connections)
        with self._noted("handshake"):
            if self._has(TLS_1_3):
                plan = Plan(
                    server_name=self._asker.server_name, alpn=self._asker.alpn or (HTTP,),
                    host=self._found.target.name or "", is_timed=True,
                )  # fmt: skip
                done = handshake(self._route, plan)
                if done.alert == AlertDescription.NO_APPLICATION_PROTOCOL and not self._asker.alpn:
                    done = handshake(self._route, Plan(server_name=self._asker.server_name, is_timed=True))
                self._modern.append(done)
            if not any(each.chain for each in self._modern):
                self._legacy = self._shake_hands_with_the_library()
        summary.time(self._found.timings_ms, self._modern, self._legacy)

    def _shake_hands_with_the_library(self) -> LegacyHandshake:
        name, host = self._asker.server_name, self._found.target.name or "localhost"
        done = legacy_handshake(self._route, self._contexts.with_http, name, host=host)
        return done if done.is_complete else legacy_handshake(self._route, self._contexts.any_version, name)

    # At once.

    def _ask_the_rest(self) -> None:
        leaves = [each.chain[0] for each in self._asker.answers if each.chain]
        self._curve = next((curve for leaf in leaves if (curve := certificates.curve_of(leaf)) is not None), None)
        pool = ThreadPoolExecutor(self._request.parallel, thread_name_prefix="probe")
        try:
            waiting = [pool.submit(self._guarded, name, task) for name, task in self._tasks()]
            for done in waiting:
                done.result()
        except BaseException:
            self._route.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _tasks(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for version in VERSIONS:
            if self._has(version):
                yield f"cipher suites of {version_name(version)}", partial(self._ask_suites, version)
        if self._has(TLS_1_3):
            yield "groups of TLS 1.3", partial(self._ask_groups, TLS_1_3, questions.groups_in_tls13)
            yield "tickets", self._resume_modern
            for kind, schemes in SCHEMES_BY_KEY.items():
                yield f"{kind} certificates", partial(self._fetch_certificate, schemes)
        before = self._best_before_tls13()
        if before is not None:
            yield "resumption", self._resume_legacy
            yield "compression", partial(self._ask_compression, before)
        if self._best() > SSL_3_0:
            # Before TLS 1.3 the answer comes in the clear, and costs the server less.
            yield "ALPN", partial(self._ask_protocols, TLS_1_3 if before in (None, SSL_3_0) else before)
        lower = [each for each in VERSIONS if self._has(each)][1:]
        if lower:
            yield "fallback", partial(self._ask_fallback, lower[0])

    def _guarded(self, name: str, task: Callable[[], None]) -> None:
        self._progress(name, self._route.connections)
        with self._noted(name):
            task()

    @contextlib.contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        """A question that cannot be answered leaves a line, and the others go on."""
        try:
            yield
        except (Trouble, StartTLSError) as exc:
            self._found.incomplete.append(f"{name}: {exc}")

    def _ask_suites(self, version: int) -> None:
        taken, order = self._enumerate(f"cipher suites of {version_name(version)}", questions.suites_of, version)
        self._found.ciphers.append(summary.ciphers(version, taken, order, self._asker.answers))
        if version == self._best_before_tls13():
            # These need to know the suites, so that they offer some that the server has.
            self._ask_groups(version, questions.groups_before_tls13, taken, self._curve)
            if version == TLS_1_2:
                self._found.features.sha1_signatures = questions.signs_with_sha1(self._asker, taken)

    def _ask_groups(self, version: int, ask: Callable[..., Choices], *known: object) -> None:
        taken, order = self._enumerate(f"groups of {version_name(version)}", ask, version, *known)
        if taken:
            self._found.groups.append(summary.of_version(version, taken, order))

    def _enumerate(self, name: str, ask: Callable[..., Choices], *known: object) -> Choices:
        """What the server took; if it stopped answering, what it had taken by then, and a line that says so."""
        try:
            return ask(self._asker, *known)
        except CutShort as exc:
            self._found.incomplete.append(f"{name}: {exc}")
            return list(exc.taken), None

    def _ask_protocols(self, version: int) -> None:
        alpn = self._found.alpn
        alpn.protocols, alpn.refuses_others = questions.protocols_of(self._asker, version)

    def _ask_compression(self, version: int) -> None:
        chosen = questions.compression_of(self._asker, version)
        self._found.features.compression = [] if chosen is None else [chosen]

    def _ask_fallback(self, lower: int) -> None:
        self._found.features.fallback_scsv = questions.notices_fallback(self._asker, lower)

    def _fetch_certificate(self, schemes: tuple[int, ...]) -> None:
        plan = Plan(server_name=self._asker.server_name, alpn=self._asker.alpn, schemes=schemes)
        self._modern.append(handshake(self._route, plan))

    def _resume_modern(self) -> None:
        sessions.resume_modern(self._found.resumption, self._asker, self._modern[0])

    def _resume_legacy(self) -> None:
        sessions.resume_legacy(self._found.resumption, self._asker, self._contexts)

    # What is known so far.

    def _has(self, version: int) -> bool:
        known = self._found.version(version)
        return known is not None and bool(known.offered)

    def _best(self) -> int:
        return next(version for version in (*VERSIONS, SSL_2_0) if self._has(version))

    def _best_before_tls13(self) -> int | None:
        return next((version for version in VERSIONS[1:] if self._has(version)), None)
