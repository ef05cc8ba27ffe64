"""The results of verbs: frozen dataclasses with a `kind`. Verbs return them, and files hold them."""
