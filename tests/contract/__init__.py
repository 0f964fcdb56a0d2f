"""One suite for every provider, one for every registry, each kind's own tests beside it."""
