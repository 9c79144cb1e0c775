"""`tidelog up`: keeps the embedded servers, the roles and the worker running on one data folder.

    state.py       the state files of the data folder: server.json, the lock that proves it valid, the development key
    processes.py   one child process that is restarted whenever it ends
    addresses.py   the address to listen on: whether it is free, and who has it
    embedded.py    the embedded PostgreSQL and NATS, if the settings name no servers
    worker_account.py  who the worker runs as if root starts the server
    service.py     the order of start and stop

This file imports nothing: the command line imports `state` at every call and must stay fast.
"""
