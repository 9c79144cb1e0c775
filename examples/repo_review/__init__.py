"""The demo job of Tidelog: four agents review a git repository and leave a Markdown report.

`tools.py` holds the access to git and files, the four agent files hold the work, `analysis/` holds the pure rules. A worker pointed
at this folder finds the agents and tools by itself. See README.md.
"""
