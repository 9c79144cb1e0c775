"""Hosting: the sessions of workers whose connections this process has.

- `messages`: what a worker says and what the server says, as values.
- `peer`: what a session needs of its connection.
- `host`: all sessions of this process, their beats, leases and keys.
- `session`: one session, from hello to its end.
- `credit`: the free slots that a worker tells.
- `hands`: all work that a worker has.
- `taker`: what the dispatcher needs of a session.
- `dispatch`: pulling work from the queue for free slots, claims, handing over.
- `hand`: a piece of work that a worker has, and what happens to the work meanwhile.
- `lanes`: reports take effect in order for each piece of work.
- `reports`: which use case a report calls; `looking`: questions to the log.

The lease of a worker's work belongs to its session (`application/engine/ports/sessions.py`). A worker that loses its connection
comes back with its session, to this process or to another, and goes on with its work.
"""
