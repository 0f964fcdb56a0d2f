"""One module a change, in order. Released ones are never edited."""
