"""HTTP service: histories in a database, answers fresh to the last receipt, and pages that say why.

`store` keeps receipts (SQLite or PostgreSQL), `engine` turns them into lists with one saved model, and
`app` puts both behind HTTP. All of it needs the extra: ``pip install 'retailrec[serve]'``.
"""
