"""The kind `container`: a release is one container, run by a container engine's own program."""
