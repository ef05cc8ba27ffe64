"""What `evolq` can do, a module a verb.

`run_VERB` does it and gives a result; `plan_VERB`, where there is one, says what it would cost.
A verb of more than one file is a package with its `run.py` and `plan.py`.
"""
