"""`tlstunnel explain [HOST:PORT]`: a TLS 1.3 handshake as a numbered story."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tlstunnel.cli.hosts import host_name
from tlstunnel.errors import StartupError, UsageError, words_of

if TYPE_CHECKING:
    from tlstunnel.tools.tls13.story import Story

app = typer.Typer(add_completion=False)

_SHOW: dict[str, Any] = {"rich_help_panel": "What to print", "show_default": False}
_BOTH: dict[str, Any] = {"rich_help_panel": "The handshake", "show_default": False}
_HERE: dict[str, Any] = {"rich_help_panel": "Without HOST:PORT", "show_default": False}
_THERE: dict[str, Any] = {"rich_help_panel": "With HOST:PORT", "show_default": False}


@app.command()
def explain(
    address: str | None = typer.Argument(None, metavar="[HOST:PORT]", help="A real server.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print JSON.", **_SHOW),
    show_hex: bool = typer.Option(False, "--hex", help="Show every byte of messages and records.", **_SHOW),
    html: Path | None = typer.Option(None, metavar="FILE", help="Write a page with a sequence diagram.", **_SHOW),
    groups: str | None = typer.Option(None, metavar="LIST", help="The client's groups, best first.", **_BOTH),
    ciphersuites: str | None = typer.Option(None, metavar="LIST", help="The client's suites, best first.", **_BOTH),
    alpn: list[str] = typer.Option([], metavar="NAMES", help="Application protocols, comma-separated.", **_BOTH),
    resume: bool = typer.Option(False, "--resume", help="Connect twice, tell of the second time.", **_BOTH),
    key_type: str = typer.Option("ecdsa-p256", metavar="TYPE", help="Of both ends' certificates.", **_HERE),
    client_auth: str = typer.Option("none", metavar="none|optional|required", help="Ask for a certificate.", **_HERE),
    hello_retry: bool = typer.Option(False, "--hello-retry", help="Let the server want another group.", **_HERE),
    key_update: bool = typer.Option(False, "--key-update", help="Change the keys after some data.", **_HERE),
    server_name: str | None = typer.Option(None, metavar="NAME", help="Send and verify this name.", **_THERE),
    ca: Path | None = typer.Option(None, metavar="PEM", help="The CAs to trust, not the system's.", **_THERE),
    cert: Path | None = typer.Option(None, metavar="PEM", help="Our certificate, if it asks for one.", **_THERE),
    key: Path | None = typer.Option(None, metavar="PEM", help="Its key.", **_THERE),
    key_passphrase_file: Path | None = typer.Option(None, metavar="FILE", help="Its first line opens it.", **_THERE),
    connect_timeout: str = typer.Option("5s", metavar="DURATION", help="To reach the server.", **_THERE),
    handshake_timeout: str = typer.Option("10s", metavar="DURATION", help="For the handshake.", **_THERE),
) -> None:
    """Tell a TLS 1.3 handshake message by message: fields, transcript hashes, secrets, signatures, encryption.

    Without HOST:PORT a client and a server talk inside this process, with certificates made for the occasion. With it,
    our client talks to that server, says whether its chain verifies, and goes on even if it does not. The secrets
    shown are those of this one connection.
    """
    from tlstunnel.cli import explain_scenes as scenes

    if as_json and show_hex:
        raise UsageError("--hex", "--json has every byte anyway; give one of the two")
    offer = scenes.Offer(
        groups=scenes.parse_groups(groups), suites=scenes.parse_suites(ciphersuites), alpn=scenes.parse_alpn(alpn)
    )
    if address is None:
        _refuse(
            "needs HOST:PORT; without it the certificates are made for the occasion",
            {
                "--server-name": server_name, "--ca": ca, "--cert": cert, "--key": key,
                "--key-passphrase-file": key_passphrase_file,
            },
        )  # fmt: skip
        options = scenes.Rehearsal(key_type, client_auth, hello_retry, key_update, resume)
        story = scenes.in_this_process(offer, options)
    else:
        _refuse(
            "is for a handshake inside this process; leave HOST:PORT out",
            {
                "--hello-retry": hello_retry, "--key-update": key_update,
                "--key-type": key_type != "ecdsa-p256", "--client-auth": client_auth != "none",
            },
        )  # fmt: skip
        visit = scenes.Visit(
            address=address, server_name=host_name("--server-name", server_name), ca=ca, cert=cert, key=key,
            key_passphrase_file=key_passphrase_file, resume=resume,
            connect_timeout=connect_timeout, handshake_timeout=handshake_timeout,
        )  # fmt: skip
        story = scenes.with_server(offer, visit)
    _show(story, as_json=as_json, show_hex=show_hex, html=html)
    if story.failure is not None:
        raise StartupError(f"{story.server}: {story.failure}")


def _refuse(why: str, options: dict[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(name, why)


def _show(story: Story, *, as_json: bool, show_hex: bool, html: Path | None) -> None:
    if html is not None:
        from tlstunnel.cli.explain_html import render

        try:
            html.write_text(render(story), encoding="utf-8")
        except OSError as exc:
            reason = words_of(exc)
            raise StartupError(f"{html}: {reason}; give a file that can be written") from exc
        print(f"wrote {html}", file=sys.stderr)
    if as_json:
        print(json.dumps(story.as_json(), indent=2))
    elif html is None and story.steps:
        from tlstunnel.cli.explain_text import show

        show(story, show_hex=show_hex)
