"""Event streams over a WebSocket, `GET /v1/ws`, for browsers and programs. docs/reference/streams.md is the contract.

- `connection`: the socket, and frames that are ready to be sent.
- `endpoint`: who may connect, and the life of a connection.
- `socket`: the subscriptions of one connection, and who may send now.
- `subscription`: replay, then live, up to the end of the subscription.
- `frames`: what comes, as messages.
- `beats`: signs of life of all connections, by one timer.
"""
