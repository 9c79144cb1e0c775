"""Tools that come with Tidelog, and tools that are data: an HTTP request with placeholders instead of a function.

- `placeholders`: `{{name}}` in texts, URLs and bodies; no code, bounded.
- `pointers`: JSON Pointers.
- `definitions`: an HTTP tool as data, and files of them.
- `http_tools`: carries out such a definition through the guard.
- `defined`: carries out the tools of the server's catalogue.
- `tools`: `http.get`, `json.query`, `text.template`, `time.now`.
"""
