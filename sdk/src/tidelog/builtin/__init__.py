"""Tools that come with Tidelog, and tools that are data: an HTTP request with placeholders instead of a function.

- `placeholders`: `{{name}}` in texts, URLs and bodies; no code, bounded.
- `pointers`: JSON Pointers.
- `definitions`: an HTTP tool as data, and files of them.
- `http_tools`: carries out such a definition through the guard.
- `defined`: carries out the tools of the server's catalogue.
- `mail`: a message to the mail server of the worker's operator.
- `tools`: `http.get`, `http.post`, `smtp.send`, `json.query`, `text.template`, `time.now`.
"""
