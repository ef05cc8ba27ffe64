import pytest

from tests.search.setting import Setting, make_setting


@pytest.fixture(scope="session")
def setting() -> Setting:
    return make_setting()
