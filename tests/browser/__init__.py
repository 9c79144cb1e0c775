"""The console in a real Chromium, against a real server: `make browser`. `make test` leaves these tests out.

`conftest.py` has the fixtures, `browser_kit.py` what a page of a test may not do, `site_kit.py` the server with runs of all kinds.
"""
