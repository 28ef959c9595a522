"""OCSP responses to staple, fetched from the responders of our certificates and kept fresh: `ocsp_staple = "auto"`.

Theory of operation. The supervisor never talks to a responder. For each question it forks a child that drops its
privileges, begins anew with an interpreter of its own (`responder`, which has never seen a key), and leaves the answer
in an anonymous file; the kernel limits its time and the size of that file. When the child has ended the supervisor
reads the file, and believes only what `tls.ocsp` has verified: by the issuer's signature, for this certificate, "good".
One child at a time; a response is small and good for days.

    adopt       at start and after every reload: which certificates there are; what the cache still has for them
    due         half-way through a staple's life, or when an earlier attempt is to be made again: fetch
    answered    verified: into the contexts here (replacements are forked with them), to every worker, into the cache
    failed      counted, logged, tried again later, twice as late each time up to MAX_AGAIN_S; the old staple stays in
                use while it is good, and is not sent a moment longer

Without a staple a tunnel works as it would without stapling; only clients of must-staple certificates will refuse it.
"""

from __future__ import annotations

import base64
import os
import resource
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tlstunnel.config.model import OCSPStaple
from tlstunnel.daemon.ocsp import responder
from tlstunnel.daemon.processes.children import fork, signal_process
from tlstunnel.daemon.processes.messages import Staple as StapleOrder
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.daemon.processes.workforce import Workforce, how_it_ended
from tlstunnel.daemon.system import privileges
from tlstunnel.errors import StartupError, words_of
from tlstunnel.tls import ocsp
from tlstunnel.tls.ocsp import OCSPError, Staple, Staples
from tlstunnel.tls.staples import issuer_for, usable_responders
from tlstunnel.x509.certificate import utc
from tlstunnel.x509.material import Credential, MaterialError
from tlstunnel.x509.pem import printable, read_file

ANSWER_S = 20
"""A responder that takes longer has failed this time."""
FIRST_AGAIN_S = 60.0
MAX_AGAIN_S = 3600.0
_LOOK_S = 3600.0
"""At the latest then the clock is looked at again: somebody may have set it."""


@dataclass(slots=True, eq=False)
class _Subject:
    """A certificate and its staple."""

    credential: Credential
    issuer: bytes
    cache: Path | None
    services: set[int] = field(default_factory=set)
    staple: Staple | None = None
    fetch_at: float = 0.0
    """Unix time."""
    failures: int = 0
    """In a row."""

    @property
    def url(self) -> str:
        """The responder to fetch from; the next one after a failure, if the certificate names several."""
        urls = usable_responders(self.credential)
        return urls[self.failures % len(urls)]

    @property
    def file(self) -> Path | None:
        """Where its staple is kept."""
        return None if self.cache is None else self.cache / f"{self.credential.fingerprint}.ocsp"

    def judge(self, response: bytes) -> Staple:
        """The staple of a response. Raises OCSPError where it is none that is good now."""
        staple = ocsp.judge(response, self.credential.certificate_der, self.issuer)
        if problem := staple.problem(time.time()):
            raise OCSPError(problem.partition(";")[0])
        return staple


class Stapling:
    """Keeps the staples of a daemon fresh."""

    def __init__(self, daemon: Daemon, workforce: Workforce) -> None:
        self._daemon, self._workforce = daemon, workforce
        self._subjects: dict[bytes, _Subject] = {}
        self._fetching: tuple[int, int, _Subject] | None = None  # pid, descriptor of its answer, what it is for

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being fetched."""
        return self._fetching is None

    def adopt(self) -> None:
        """Care for the certificates of the generation in use, from now on."""
        known, self._subjects = self._subjects, {}
        generation = self._daemon.generation
        for index, service in enumerate(generation.config.services):
            if service.ocsp_staple is not OCSPStaple.AUTO:
                continue
            material = generation.inventory.materials[index]
            for credential in material.shown():
                issuer = issuer_for(credential, material.client_ca)
                if issuer is None or not usable_responders(credential):
                    continue  # said at load
                key = credential.certificate_der
                subject = self._subjects.get(key) or known.get(key) or _Subject(credential, issuer, service.ocsp_cache)
                if key not in self._subjects:
                    subject.services, subject.cache = set(), service.ocsp_cache
                    if subject.staple is None:
                        self._remember(subject)
                self._subjects[key] = subject
                subject.services.add(index)
        self._distribute()
        self._schedule()

    def stop(self) -> None:
        """Fetch nothing any more."""
        self._daemon.timers.cancel("staple")
        self._subjects = {}
        if self._fetching is not None:
            signal_process(self._fetching[0], signal.SIGKILL)

    def handle_end(self, pid: int, status: int) -> bool:
        """A child that is no worker has ended; whether it was ours."""
        if self._fetching is None or self._fetching[0] != pid:
            return False
        _, fd, subject = self._fetching
        self._fetching = None
        answer = os.pread(fd, ocsp.MAX_RESPONSE + 2, 0)
        os.close(fd)
        if self._subjects.get(subject.credential.certificate_der) is not subject:
            self._schedule()  # a reload has replaced the certificate meanwhile
            return True
        if not answer.startswith(b"+"):
            why = printable(answer[1:300].decode("utf-8", "replace")) if answer else how_it_ended(status)
            self._fail(subject, f"no answer ({why})")
            return True
        try:
            self._succeed(subject, subject.judge(answer[1:]))
        except OCSPError as exc:
            self._fail(subject, f"the answer {exc}")
        return True

    # Fetching.

    def _schedule(self) -> None:
        if self._fetching is None and self._subjects and self._daemon.phase != "draining":
            first = min(subject.fetch_at for subject in self._subjects.values())
            self._daemon.timers.after(min(max(0.0, first - time.time()), _LOOK_S), "staple", self._fetch)

    def _fetch(self) -> None:
        now = time.time()
        subject = min(self._subjects.values(), key=lambda each: each.fetch_at)
        if subject.fetch_at > now:
            self._schedule()
            return
        credential, identity = subject.credential, self._daemon.identity
        question = base64.b64encode(ocsp.request(credential.certificate_der, subject.issuer)).decode()
        words = [sys.executable, "-I", "-S", responder.__file__, subject.url, question]
        fd = os.memfd_create("tlstunnel-ocsp", os.MFD_CLOEXEC)

        def body() -> int:
            privileges.become(identity)
            return _begin_anew(words, fd)

        try:
            self._fetching = fork(body), fd, subject
        except StartupError as exc:
            os.close(fd)
            self._fail(subject, f"nobody could be asked: {exc}")

    def _succeed(self, subject: _Subject, staple: Staple) -> None:
        subject.failures = 0
        subject.fetch_at = ocsp.refresh_at(staple, time.time())
        if subject.staple is None or staple.until > subject.staple.until:
            subject.staple = staple
            end = utc(datetime.fromtimestamp(staple.until, UTC))
            text = f"{subject.credential.source}: {subject.url} says that it is good, until {end}"
            self._daemon.log.message("info", "ocsp", text)
            self._keep(subject, staple)
            self._distribute()
        self._schedule()

    def _fail(self, subject: _Subject, why: str) -> None:
        daemon, now, url = self._daemon, time.time(), subject.url
        again_s = min(MAX_AGAIN_S, FIRST_AGAIN_S * 2.0**subject.failures)
        subject.failures += 1
        subject.fetch_at = now + again_s
        for index in subject.services:
            daemon.row.counters[daemon.generation.series.services[index].staple_failures] += 1
        staple = subject.staple
        if staple is None or staple.until <= now:
            left = "there is no OCSP response to staple"
        else:
            left = f"the OCSP response in use is good until {utc(datetime.fromtimestamp(staple.until, UTC))}"
        text = f"{subject.credential.source}: {url}: {why}; {left}; asking again in {again_s:.0f} s"
        daemon.log.message("warning", "ocsp", text)
        self._schedule()

    # What is known.

    def _distribute(self) -> None:
        """Into the contexts here, to the workers, and to the metrics."""
        daemon = self._daemon
        generation = daemon.generation
        by_service: list[Staples | None] = []
        for index, service in enumerate(generation.config.services):
            if service.ocsp_staple is not OCSPStaple.AUTO:
                by_service.append(None)
                continue
            staples = {
                der: subject.staple
                for der, subject in self._subjects.items()
                if index in subject.services and subject.staple is not None
            }
            generation.inventory.contexts[index].staple(staples)
            by_service.append(staples)
        if any(staples is not None for staples in by_service):
            self._workforce.send(StapleOrder(tuple(by_service)), list(generation.workers.values()))
        daemon.publisher.fetched = {der: each.staple for der, each in self._subjects.items() if each.staple is not None}
        daemon.publish()

    def _remember(self, subject: _Subject) -> None:
        """Use what the cache has, if it is still good. It is judged like any answer: the folder is not trusted."""
        if subject.file is None:
            return
        try:
            subject.staple = subject.judge(read_file(subject.file, ocsp.MAX_RESPONSE).data)
        except (MaterialError, OCSPError):
            return  # none was kept, or it is not good any more
        subject.fetch_at = ocsp.refresh_at(subject.staple, time.time())

    def _keep(self, subject: _Subject, staple: Staple) -> None:
        path = subject.file
        if path is None:
            return
        try:
            fd, temporary = tempfile.mkstemp(prefix=".", suffix=".ocsp", dir=path.parent)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(staple.der)
                os.replace(temporary, path)
            except OSError:
                os.unlink(temporary)
                raise
        except OSError as exc:
            text = f"ocsp_cache: {path.parent}: {words_of(exc)}; the OCSP response is fetched again after a restart"
            self._daemon.log.message("warning", "ocsp", text)


def _begin_anew(words: list[str], answer: int) -> int:
    """In the child: become `responder`, whose standard output is the file of the answer."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd, end in ((nothing, 0), (answer, 1), (nothing, 2)):
        os.dup2(fd, end)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * ocsp.MAX_RESPONSE, 2 * ocsp.MAX_RESPONSE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(ANSWER_S)  # outlives the exec, and ends the process
    try:
        os.execve(words[0], words, {})  # noqa: S606 - our own interpreter, no shell
    except OSError as exc:
        os.write(1, f"-{words[0]}: {words_of(exc)}".encode())
    return 1
