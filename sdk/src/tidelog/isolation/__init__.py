"""Tools that run in a process of their own: `@tool(isolation="process", …)`.

- `declared`: what a tool asks for, and what can be had here.
- `kernel`: namespaces and limits of Linux, and whether this machine has them.
- `template`: the process that has imported a tool's module and is copied for each call.
- `call`: what is copied: a keeper, and the process of the call.
- `pool`: the worker's side.
- `tool`: a tool whose calls go there.
"""
