"""No way of refusing a connection is without a golden file, a remedy and a row in docs/how-to/troubleshoot.md.

The lists are those of the code. What cannot be produced from outside stands here with the reason why.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import tlstunnel
from tests.support import refusals
from tests.support.refusal_cases import CASES
from tests.support.refusals import COUNTERS, GOLDEN, field
from tlstunnel.access import policy
from tlstunnel.observe.series import PAUSE_REASONS
from tlstunnel.outcome import CloseReason, Stage
from tlstunnel.tls import reasons, remedies
from tlstunnel.tls.firstbytes import NotTLSError, Speaks
from tlstunnel.tools.tls13.names import AlertDescription

PAGES = refusals.pages()
PACKAGE = Path(tlstunnel.__file__).parent
HOW_TO = (PACKAGE.parent / "docs" / "how-to" / "troubleshoot.md").read_text()
BEFORE_A_LINK = [reason for reason in CloseReason if reason.stage is not Stage.LINK]
DETAILS = "\n".join(field(page, "detail") for page in PAGES.values())

# What has no golden file, and why.

NO_REASON = {
    CloseReason.INTERNAL_ERROR: "a mistake of ours ends set-ups too, and there is none to make on purpose",
    CloseReason.BACKEND_NO_PORT: "takes a network of its own: see tests/system/test_local_network.py",
    CloseReason.BACKEND_NO_MEMORY: "the kernel's memory for sockets cannot be used up on purpose",
    **dict.fromkeys(
        (reason for reason in CloseReason if reason.label.startswith("starttls_")),
        "a dialogue of each protocol: see tests/unit/test_starttls_*.py",
    ),
}
NO_DECISION = {
    policy.Reason.NO_CERTIFICATE: "OpenSSL demands a certificate where anonymous clients are denied, before rules are",
}
NO_REMEDY_OF_SERVERS = {
    CloseReason.HANDSHAKE_DRAINED: "the same path as with a client, told from it by one flag",
    CloseReason.NO_SHARED_CIPHER: "it is the server that finds no suite, and it says so by an alert",
    CloseReason.NO_SHARED_GROUP: "the same",
    CloseReason.NO_SHARED_SIGNATURE: "the same",
}
NO_VERDICT = {
    2: "OpenSSL says 20 where the chain is not complete",
    7: "a forged signature: the wording is a table's, and the verifier OpenSSL's",
    8: "a forged list is refused when it is loaded",
    11: "a list of tomorrow is refused when it is loaded",
    19: "the root has to be sent along, which no client of these tests does",
    20: "the same words as 21",
    24: "an issuer that is no CA: the wording is a table's, and the verifier OpenSSL's",
    25: "too long a chain: the same",
    27: "trust settings are refused when a CA is loaded",
    33: "a list of an unknown CA is refused when it is loaded",
    34: "a critical extension: see tests/interop/test_identity_openssl.py",
    47: "name constraints: the wording is a table's, and the verifier OpenSSL's",
    48: "the same",
    67: "a CA with a small key is refused when it is loaded",
    68: "a weak signature: see tests/interop/test_identity_openssl.py",
}
NO_MESSAGE = {
    "key_share is malformed": "lists that decide nothing are read for the log only, which leaves them out then",
    "supported_versions is malformed": "the same",
    "{} is malformed": "the same",
    "certificate cannot be parsed": "OpenSSL has parsed it before",
    "{} in the certificate is not ASCII": "see tests/interop/test_identity_openssl.py",
}


def key(page: str) -> tuple[str, str]:
    """Stage and label. A rejection's message has no stage: it is always the first."""
    return field(page, "stage") or "admit", field(page, "reason")


@pytest.mark.parametrize("reason", CloseReason)
def test_every_reason_that_can_end_a_set_up_has_a_golden_file(reason: CloseReason) -> None:
    shown = {key(page) for page in PAGES.values()}
    if reason in NO_REASON:
        assert (reason.stage.value, reason.label) not in shown, f"it can be shown after all: {NO_REASON[reason]}"
    elif reason in BEFORE_A_LINK:
        assert (reason.stage.value, reason.label) in shown


@pytest.mark.parametrize("reason", BEFORE_A_LINK)
def test_every_reason_is_counted_once_in_all_connections_and_once_in_its_stages_counter(reason: CloseReason) -> None:
    total, *by_stage = COUNTERS
    counter = dict(zip((Stage.ADMIT, Stage.HANDSHAKE, Stage.DIAL), by_stage, strict=True))[reason.stage]
    for name, page in PAGES.items():
        if key(page) != (reason.stage.value, reason.label):
            continue
        counts = dict(re.findall(r"(tlstunnel_\S+) (\d+)$", page, re.MULTILINE))
        assert counts[f'{total}{{result="{reason.label}"}}'] == "1", name
        # Each target that fails is counted.
        assert counts[f'{counter}{{reason="{reason.label}"}}'] == ("2" if name == "all_targets_down" else "1")
        assert len(counts) == 2, (name, counts)


ADMITS = (policy.Reason.ALLOW_RULE, policy.Reason.ALLOW_ANY, policy.Reason.ANONYMOUS)


@pytest.mark.parametrize("decision", [reason for reason in policy.Reason if reason not in ADMITS])
def test_every_decision_that_refuses_has_a_golden_file(decision: policy.Reason) -> None:
    assert (policy._REMEDIES[decision] in DETAILS) is (decision not in NO_DECISION)


@pytest.mark.parametrize("speaks", Speaks)
def test_everything_that_is_no_tls_has_a_golden_file(speaks: Speaks) -> None:
    assert str(NotTLSError(speaks)) in DETAILS


VERDICTS = (GOLDEN / "verdicts.txt").read_text()


@pytest.mark.parametrize("code", reasons.VERDICT_WORDS)
def test_every_verdict_on_a_certificate_has_a_golden_file(code: int) -> None:
    """Those that a certificate of these tests can bring about are in the page of a refusal, the others in a list."""
    assert code in NO_VERDICT or reasons.VERDICT_WORDS[code] in DETAILS or f"\n{code}: " in VERDICTS


@pytest.mark.parametrize("reason", remedies.OF_CLIENTS | remedies.OF_DIALS)
def test_every_remedy_for_clients_and_targets_is_in_a_golden_file(reason: CloseReason) -> None:
    shown = [page for page in PAGES.values() if key(page) == (reason.stage.value, reason.label)]
    has_page = any(field(page, "detail").endswith(remedies.of_client(reason)) for page in shown)
    assert has_page is (reason not in NO_REASON)


@pytest.mark.parametrize("reason", remedies.OF_SERVERS)
def test_every_remedy_for_servers_is_in_a_golden_file(reason: CloseReason) -> None:
    shown = [page for page in PAGES.values() if key(page) == (reason.stage.value, reason.label)]
    of_servers = [
        page for page in shown if field(page, "target") and remedies.of_server(reason) in field(page, "detail")
    ]
    assert bool(of_servers) is (reason not in NO_REMEDY_OF_SERVERS)


def test_every_alert_is_explained_from_either_side() -> None:
    fatal = {each.name.lower() for each in AlertDescription} - {"close_notify"}
    assert set(remedies.ALERTS_OF_CLIENTS) == set(remedies.ALERTS_OF_SERVERS) == fatal
    for of in ("clients", "servers"):
        assert len((GOLDEN / f"alerts_of_{of}.txt").read_text().splitlines()) == len(fatal)


def raised(module: str, *errors: str) -> list[str]:
    """The texts of the exceptions of these names that a module raises, with {} for what is filled in."""
    found = []
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.append(str(first.value))
            elif isinstance(first, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in first.values)
                found.append("".join(map(str, parts)))
    return found


@pytest.mark.parametrize(
    ("module", "error", "golden"),
    [
        ("tls/firstbytes.py", "HelloError", "malformed_hellos"),
        ("tls/clienthello.py", "HelloError", "malformed_hellos"),
        ("proxy_protocol.py", "MalformedHeaderError", "malformed_proxy_headers"),
        ("access/peer.py", "UnusableCertificateError", ""),
    ],
)
def test_every_complaint_of_a_parser_is_in_a_golden_file(module: str, error: str, golden: str) -> None:
    shown = (GOLDEN / f"{golden}.txt").read_text() if golden else DETAILS
    texts = raised(module, error)
    assert texts
    for text in texts:
        pattern = ".*".join(re.escape(part) for part in text.split("{}"))
        assert text in NO_MESSAGE or re.search(pattern, shown), text


def test_no_golden_file_is_left_over() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_refusals_golden*.py")]
    compared = set(re.findall(r'compare\("(\w+)"', "\n".join(sources)))
    ocsp = {"ocsp"}  # of tests/interop/test_ocsp.py
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {*CASES, *compared, *ocsp}


# How they read.


@pytest.mark.parametrize("name", PAGES)
def test_a_refusal_is_one_line_that_ends_with_what_would_be_right(name: str) -> None:
    page = PAGES[name]
    message, detail = field(page, "message"), field(page, "detail")
    (line,) = re.findall(r"^text:    (.*)$", page, re.MULTILINE)
    assert line.isprintable()
    assert "127.0.0.1:PORT" in line, "where"
    assert message in line, "what"
    assert not message.endswith(".")
    assert not detail.endswith(".")
    assert message not in detail, "said twice"
    if name != "client_gone":  # it asks nothing of anybody
        known = {*remedies.OF_CLIENTS.values(), *map(remedies.of_server, remedies.OF_SERVERS)}
        assert "; " in detail or "; " in message or detail in known, "what would be right"
    assert len(detail) < 256, "the log would cut it"
    assert "PRIVATE KEY" not in page
    assert "BEGIN CERTIFICATE" not in page


@pytest.mark.parametrize("name", ["connect", "alerts_of_servers"])
def test_what_our_own_commands_say_is_where_what_and_what_would_be_right(name: str) -> None:
    for line in (GOLDEN / f"{name}.txt").read_text().splitlines():
        assert re.fullmatch(r"([a-z A-Z]+: )?(tlstunnel: )?SERVER: .+; .+[^.]", line), line


# The page for operators.


def rows(title: str) -> set[str]:
    """The words of the first column of the table in a section."""
    section = re.split(r"\n## ", HOW_TO.split(f"## {title}\n", 1)[1])[0]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    found = [word for cell in cells for word in re.findall(r"`(\w+)`", cell)]
    assert len(found) == len(set(found)), f"{title}: twice"
    return set(found)


@pytest.mark.parametrize(
    ("title", "stage"),
    [
        ("Refused before any TLS", Stage.ADMIT),
        ("During the handshake", Stage.HANDSHAKE),
        ("The target was not reached", Stage.DIAL),
        ("Links that have ended", Stage.LINK),
    ],
)
def test_the_how_to_tells_of_every_reason(title: str, stage: Stage) -> None:
    assert rows(title) == {reason.label for reason in CloseReason if reason.stage is stage}


def test_the_how_to_tells_of_every_pause_and_alert() -> None:
    assert rows("Nothing is accepted") == set(PAUSE_REASONS)
    assert rows("Alerts") == set(remedies.ALERTS_OF_CLIENTS)


def test_the_line_that_the_how_to_shows_is_one_that_is_written() -> None:
    page = PAGES["no_client_certificate"]
    (shown,) = re.findall(r"no_client_certificate \(.*?\)", HOW_TO)
    assert shown in page
    assert field(page, "detail") in HOW_TO
