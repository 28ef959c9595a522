"""The comparison with other TLS proxies: same certificate, same load, interleaved rounds, CPU time of each side.

How a number comes about. Every proxy of a row runs at the same time, in front of the same backend; an idle one costs
nothing. A round measures each of them once, one after the other, in an order that turns from round to round. What is
compared is never two absolute numbers but the ratio within one round, so that whatever else the machine was doing hits
both sides alike; reported are the median of the ratios and their quartiles. Cost is CPU time, user and system, of every
process a proxy consists of, read after it has come to rest, so that closing is paid for too.

Fairness, decided here. One worker or thread each. Everything is pinned: all proxies to one CPU, generator and backend
to the others, because a thread-per-connection server spread over two CPUs and one confined to one are not comparable,
and because a proxy that shares its CPU with the generator is measured with cold caches. One TLS version, suite and
group for everybody. Peers run as their distribution ships them, without tuning and without logging; ours runs with
metrics on and logging at `warning`.

The generator must not be what is measured. It is C (`loadgen.c` says how it stays cheap), and every row reports how
busy the proxy was and how busy generator and backend were. A row is flagged when the load side was nearer to its limit.
"""
