"""The verb `landscape`: from a config or a finished run to arrays, numbers and pictures."""
