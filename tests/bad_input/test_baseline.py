import pytest

from tests.bad_input.conftest import Refuse


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--baseline.optimizer", "lbfg"), "unknown baseline.optimizer 'lbfg'; did you mean 'lbfgs'"),
        (("--baseline.learning-rate", "0"), "baseline.learning_rate must be positive, not 0.0"),
        (("--baseline.clip", "-1"), "baseline.clip must be positive, not -1.0"),
        (("--baseline.evaluate-every", "0"), "baseline.evaluate_every must be at least 1, not 0"),
        (("--baseline.momentum", "1"), "baseline.momentum must be from 0 to below 1, not 1.0"),
        (("--baseline.schedule", "cosin"), "invalid choice 'cosin'"),
        (
            ("--baseline.minibatch", "15"),
            "baseline.minibatch (15) must be a multiple of search.batch_size (10)",
        ),
        (("--search.fitness", "kl+local"), "'local' is known to the block-wise search only"),
        (("--baseline.budget", "50"), "a budget of 50 candidate-images is below the 100 of two evaluations"),
        (
            ("--baseline.optimizer", "lbfgs", "--baseline.minibatch", "10"),
            "baseline.optimizer lbfgs searches along lines of one function",
        ),
        (("--search.sites", "head/weight"), "name no site of the network's blocks"),
        (("--search.fitness", "klx"), "unknown fitness 'klx'"),
        (
            ("--baseline.optimizer", "rprop"),
            "baseline.optimizer rprop takes no schedule of the learning rate",
        ),
        (
            ("--resume",),
            "--resume wants a run directory, not 'config.py': write evolq baseline RUN_DIR --resume",
        ),
    ],
)
def test_fields(refuse: Refuse, args: tuple[str, ...], message: str) -> None:
    assert message in refuse("baseline", "config.py", *args)
