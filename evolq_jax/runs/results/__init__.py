"""The results of verbs, as they are returned and as files hold them: frozen dataclasses with a `kind`."""
