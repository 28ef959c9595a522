"""`tlstunnel cert`: one file for each group of its commands.

Imports: `tools.pki` and what the other commands import.
Touches: the terminal, and the files that a command names.
"""

from __future__ import annotations

import typer

from tlstunnel.cli.cert import bundle, keyfile, lifecycle, make, requests, show

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Make a CA, issue, sign, inspect and revoke certificates."
)

app.command("ca")(make.ca)
app.command("issue")(make.issue)
app.command("self-signed")(make.self_signed)
app.command("request")(requests.request)
app.command("sign")(requests.sign)
app.command("renew")(lifecycle.renew)
app.command("revoke")(lifecycle.revoke)
app.command("crl")(lifecycle.crl)
app.command("show")(show.show)
app.command("bundle")(bundle.bundle)
app.add_typer(keyfile.app, name="key")
