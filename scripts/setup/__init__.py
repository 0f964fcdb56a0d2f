"""Prepares a machine: one module a piece, each of which finds what is there before it makes it.

    python3 -m scripts.setup            the Python environment
    python3 -m scripts.setup demo       that, and what the demo needs
    python3 -m scripts.setup tests      that, and what the tests need

The standard library is enough to run it, as it is what makes the environment. Every piece can be
run again at any time; what is there already is found in well under a second.
"""
