"""Sessions of workers over a WebSocket, `GET /v1/workers/session`. docs/reference/worker-sessions.md is the contract.

- `connection`: the socket, with the bounds that every connection has.
- `endpoint`: who may connect, and the life of a connection.
- `outbox`: what waits to be sent, and the frames in which it is sent.
- `frames`: what comes, as messages.
- `offers`: the definitions of a worker.
- `answers`: messages of the server as JSON.

What a session does is in `application/workers/hosting/`.
"""
