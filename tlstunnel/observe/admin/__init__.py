"""The admin endpoint: its own process, plain HTTP for Prometheus, probes, people and scripts.

    http.py      requests and responses: h11 for the protocol, trio for sockets and deadlines
    routes.py    what each path answers
    channels.py  the workers' open connections
    page.py      the page for a browser
    tls.py       TLS for the endpoint, if it is asked for
    process.py   the process: `run_admin`

It reads the board and the state, and asks workers for their open connections; it changes nothing. Only the supervisor
imports this package, in the process that becomes the admin process, so no other one pays for trio, h11 and the
exposition.
"""
