"""The ladder: what each layer of the relay costs, and whether each trick in it is worth its lines.

A rung is one question, answered by steps that differ in one thing: in the rungs that climb, each step adds a layer to
the one above it (a copy of memory, encryption, sockets and the link, TLS on the reactor alone, trio, the worker with
its logging, counting and limits, several workers); in the rungs about a trick, one step has it and the others do not.
So a number is read against its neighbour, and a trick whose rung shows nothing is removed.

How a number comes about is said in `benchmarks.peers`, whose load generator, backend and rounds these are: all steps of
a rung run at the same time and are measured in turns, cost is CPU time, and what is compared is compared round by
round.

A step without a trick is the same code with one place of its text replaced (`variants`), before anything runs. A
replacement whose place is gone is an error, so a rung cannot outlive its trick unnoticed.
"""
