"""`tidelog up`: keeps the embedded servers, the roles and the worker running on one data folder.

    state.py       what the data folder says: server.json, the lock that proves it true, the development key
    processes.py   one child process that is started again whenever it ends
    embedded.py    the embedded PostgreSQL and NATS, or nothing of that kind
    service.py     the order in which all of this starts and stops

This module imports nothing by itself: the command line reads `state` at every call and must stay quick.
"""
