"""The verbs of `evolq`, one module each.

`run_VERB` runs the verb and gives a result. `plan_VERB`, if there is one, says what it would cost. A verb
with more than one file is a package with a `run.py` and a `plan.py`.
"""
