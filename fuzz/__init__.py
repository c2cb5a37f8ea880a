"""What a hostile peer can send, as fuzz targets: each takes bytes, acts on them, and asserts what must hold after any.

A target is a module with a function ``check(data: bytes)``, sync or async, that knows no fuzzer: ``fuzz/run.py`` drives
it under atheris (``make fuzz``), and ``tests/phoenix/test_corpus.py`` replays what was found, in ``make test``.
"""
