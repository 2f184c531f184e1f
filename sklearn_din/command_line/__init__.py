"""The command ``python -m sklearn_din``.

``options`` declares and checks the options, ``tables`` reads and writes files, ``log_file`` reads
the log and ``conditions`` the label. ``study`` makes impressions and models, ``trivial`` the simple
rules beside them, ``results`` compares all and scores rows, ``serving`` starts the server.
"""
