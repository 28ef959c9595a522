"""Temporary: one worker in the foreground."""
from __future__ import annotations
import os, sys
from tlstunnel.config.model import Config
from tlstunnel.observe.board import Board
from tlstunnel.observe.log import open_log
from tlstunnel.observe.schema import schema_for
from tlstunnel.server import channel
from tlstunnel.server.worker import Plan, main
from tlstunnel.supervisor.sockets import open_listeners
from tlstunnel.tls.passphrase import PassphraseSource
from tlstunnel.tls.store import ServiceContexts, read

def run(config: Config) -> int:
    passphrases = PassphraseSource.of_this_process()
    materials = [read(s, passphrases) for s in config.services]
    contexts = tuple(ServiceContexts(s, m) for s, m in zip(config.services, materials))
    listeners = open_listeners(config)
    schema = schema_for(config)
    board = Board(schema.layout, 2)
    log = open_log(config.log)
    ours, theirs = channel.pair()
    for name, ls in listeners.services.items():
        service = next(s for s in config.services if s.name == name)
        for l in ls:
            print(f"ready: {name} listening on {l.bound} -> {service.targets[0]}", file=sys.stderr, flush=True)
    return main(Plan(config=config, contexts=contexts, sockets=listeners.for_slot(0), schema=schema, row=board.row(1), log=log, channel=theirs, slot=0, slots=1))
