"""The demo: a release, another one under load, and one that turns out bad, with the real parts."""
